"""Keys of other services, encrypted at rest.

One key-encryption key of the gateway lies in ``secrets/kek``; what it seals is
bound to where it belongs (tenant, name, and the address it is sent to), so a
sealed text copied to another tenant, under another name, or beside another
``base_url`` opens nothing. AES-256-GCM with random nonces: safe for four
thousand million entries, of which there are a few thousand.
"""

import base64
import binascii
import re
import secrets
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta

from appliance.config.documents import read_document, write_document
from appliance.model.errors import (
    ApplianceError,
    ConfigInvalid,
    InvalidRequest,
    Kind,
    NotFound,
    TooLarge,
    Unavailable,
)
from appliance.storage.paths import PathRefused

_KEK_FILE = "secrets/kek"
_KEK_PREFIX = b"openclawmu-kek-v1:"
_SEALED_PREFIX = "v1:"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_FOLDER = "credentials"
_LARGEST = 64 * 1024  # bytes of one file
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_FILE = re.compile(r"provider-([a-z0-9][a-z0-9._-]{0,63})\.yaml", re.ASCII)


class Files(Protocol):
    """The part of a confined directory that is needed here."""

    def read_bytes(self, relative: str, *, limit: int) -> bytes: ...
    def write_atomic(self, relative: str, data: bytes, *, mode: int = 0o600) -> None: ...
    def mkdir(self, relative: str) -> None: ...
    def exists(self, relative: str) -> bool: ...
    def listdir(self, relative: str = "") -> list[str]: ...
    def unlink(self, relative: str) -> None: ...


class TenantFiles(Files, Protocol):
    @property
    def tenant(self) -> str: ...


class VaultUnusable(Unavailable):
    code = "vault-unusable"
    title = "The key-encryption key cannot be used"


class CredentialDamaged(ApplianceError):
    """What is stored was changed, belongs elsewhere, or was sealed with another key."""

    code = "credential-damaged"
    title = "The stored key cannot be opened"
    kind = Kind.UNAVAILABLE


class Vault:
    """Seals and opens short secrets. Holds the key-encryption key in memory."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a key-encryption key has {_KEY_BYTES} bytes")
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "<Vault>"

    @classmethod
    def open(cls, state: Files) -> "Vault":
        """Read ``secrets/kek``, making it where there is none.

        Raises :exc:`VaultUnusable` for a damaged one, which is never replaced:
        everything sealed with it would be lost.
        """
        try:
            text = state.read_bytes(_KEK_FILE, limit=_LARGEST)
        except FileNotFoundError:
            text = _KEK_PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n"
            state.write_atomic(_KEK_FILE, text)
        try:
            if not text.startswith(_KEK_PREFIX):
                raise ValueError("unknown version")
            return cls(base64.b64decode(text.removeprefix(_KEK_PREFIX).strip(), validate=True))
        except ValueError:
            raise VaultUnusable(
                f"{_KEK_FILE} is damaged or of a newer release; restore it from a backup"
            ) from None

    def seal(self, secret: str, *, bound_to: tuple[str, ...]) -> str:
        """Encrypt ``secret``; the result opens only with the same ``bound_to``."""
        return self._seal(secret, bound_to, secrets.token_bytes(_NONCE_BYTES))

    def open_sealed(self, sealed: str, *, bound_to: tuple[str, ...]) -> str:
        """The opposite of :meth:`seal`; raise :exc:`CredentialDamaged` if it is not that."""
        try:
            if not sealed.startswith(_SEALED_PREFIX):
                raise ValueError("unknown version")
            data = base64.b64decode(sealed.removeprefix(_SEALED_PREFIX), validate=True)
            nonce, box = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
            return self._cipher.decrypt(nonce, box, _associated(bound_to)).decode()
        except (ValueError, binascii.Error, InvalidTag):
            raise CredentialDamaged(
                "a stored key was changed or sealed by another gateway; set it again"
            ) from None

    def _seal(self, secret: str, bound_to: tuple[str, ...], nonce: bytes) -> str:
        box = self._cipher.encrypt(nonce, secret.encode(), _associated(bound_to))
        return _SEALED_PREFIX + base64.b64encode(nonce + box).decode()


@dataclass(frozen=True, slots=True)
class ProviderCredential:
    """A tenant's own key for a provider, and where to send it.

    ``dialect`` and ``base_url`` are None where the gateway's provider of the
    same name is meant.
    """

    provider: str
    dialect: str | None
    base_url: str | None
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """What may be shown of a :class:`ProviderCredential`."""

    provider: str
    dialect: str | None
    base_url: str | None


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``credentials/provider-<name>.yaml``"""

    dialect: str | None = None
    base_url: str | None = None
    api_key: Annotated[str, Meta(max_length=16_384)]


class CredentialStore:
    """The provider keys of one tenant. Methods block: call them in a thread."""

    def __init__(self, root: TenantFiles, vault: Vault) -> None:
        self._root = root
        self._vault = vault

    def set(self, credential: ProviderCredential) -> None:
        """Store or replace the key for ``credential.provider``."""
        sealed = self._vault.seal(credential.api_key, bound_to=self._binding(credential))
        stored = {
            "dialect": credential.dialect,
            "base_url": credential.base_url,
            "api_key": sealed,
        }
        self._root.mkdir(_FOLDER)
        self._root.write_atomic(_path(credential.provider), write_document(stored).encode())

    def get(self, provider: str) -> ProviderCredential | None:
        """The key for ``provider``, or None; :exc:`CredentialDamaged` if it cannot be opened."""
        stored = self._read(provider)
        if stored is None:
            return None
        entry = ProviderEntry(provider, stored.dialect, stored.base_url)
        api_key = self._vault.open_sealed(stored.api_key, bound_to=self._binding(entry))
        return ProviderCredential(provider, stored.dialect, stored.base_url, api_key)

    def list(self) -> list[ProviderEntry]:
        """Which providers there are keys for; the keys stay sealed.

        One that is damaged is listed too, without its address: it must not
        hide the others, nor look as if there were none.
        """
        return [self._entry(provider) for provider in _providers(self._root)]

    def delete(self, provider: str) -> None:
        """Forget the key for ``provider``; :exc:`NotFound` if there is none."""
        try:
            self._root.unlink(_path(provider))
        except FileNotFoundError:
            raise NotFound(f"there is no key for provider {provider!r}") from None

    def _entry(self, provider: str) -> ProviderEntry:
        try:
            stored = self._read(provider)
        except CredentialDamaged:
            stored = None
        if stored is None:
            return ProviderEntry(provider, None, None)
        return ProviderEntry(provider, stored.dialect, stored.base_url)

    def _read(self, provider: str) -> _Stored | None:
        path = _path(provider)
        try:
            data = self._root.read_bytes(path, limit=_LARGEST)
            document = read_document(data.decode(), name=path)
            return msgspec.convert(document.value, _Stored)
        except FileNotFoundError:
            return None
        except (
            PathRefused, TooLarge, UnicodeDecodeError, ConfigInvalid, msgspec.ValidationError
        ):  # fmt: skip
            raise CredentialDamaged(
                f"the stored key for {provider!r} cannot be read; set it again"
            ) from None

    def _binding(self, entry: ProviderEntry | ProviderCredential) -> tuple[str, ...]:
        return (
            "provider-key",
            self._root.tenant,
            entry.provider,
            entry.dialect or "",
            entry.base_url or "",
        )


def _providers(root: Files) -> list[str]:
    if not root.exists(_FOLDER):
        return []
    found = (_FILE.fullmatch(name) for name in root.listdir(_FOLDER))
    return [match[1] for match in found if match is not None]


def _path(provider: str) -> str:
    if _PROVIDER.fullmatch(provider) is None:
        raise InvalidRequest.at(
            "provider", "a provider is named with 1 to 64 of a-z, 0-9, '.', '_' and '-'"
        )
    return f"{_FOLDER}/provider-{provider}.yaml"


def _associated(bound_to: tuple[str, ...]) -> bytes:
    # JSON keeps the parts apart: ("a", "bc") and ("ab", "c") differ.
    return msgspec.json.encode(bound_to)
