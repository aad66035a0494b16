"""``tenant.json``: the record of one tenant, in its own directory.

There is no central list of tenants: a directory with a readable record in it
is a tenant. So nothing can be lost but one tenant at a time, and a record that
cannot be read is left as it is, reported, and never written over.

An operator may edit the file. A key that is misspelt would otherwise be
ignored in silence (``"disbled": true``), so unknown keys make a record
unreadable, except in a file from a newer release that says we may read it:
there they are kept as they are.
"""

import errno
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from appliance.model.errors import AlreadyExists, ApplianceError, TenantBroken, TenantUnknown
from appliance.model.ids import is_tenant_id
from appliance.model.quotas import parse_quotas, render_limit
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope, TokenRecord, parse_stored_digest, stored_digest
from appliance.storage.state import TENANTS, StateDirectory

FILE = "tenant.json"
SCHEMA_VERSION = 2
_WITH_MODELS = 2  # a release that knows no tokens for some models would let them ask any
# The oldest release that may still read what we write, as its SCHEMA_VERSION.
COMPAT_VERSION = 1
_UNFINISHED = ".new-"  # no tenant id starts with a dot
LARGEST = 1024 * 1024  # bytes; a record with 250 tokens has a tenth of that

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _Token(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    label: str = ""
    hash: str
    scopes: list[Scope]
    created_at: _Moment
    expires_at: _Moment | None = None
    last_used_at: _Moment | None = None
    parent: str | None = None
    models: list[str] = []


class _StrictToken(_Token, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Tenant(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int = SCHEMA_VERSION
    compat_version: int = COMPAT_VERSION
    id: str
    name: str = ""
    created_at: _Moment
    disabled: bool = False
    disabled_reason: str = ""
    quotas: dict[str, Any] = {}
    tokens: Sequence[_Token] = ()
    version: int = 1


class _StrictTenant(_Tenant, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tokens: Sequence[_StrictToken] = ()


_decode_strict = msgspec.json.Decoder(_StrictTenant).decode
_decode = msgspec.json.Decoder(_Tenant).decode


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """A tenant's directory whose record cannot be used, and why."""

    tenant: str
    reason: str


class TenantRecords:
    """Reads and writes records. Every method is short and blocks; those that write sync."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state

    def read(self, tenant: str) -> TenantRecord:
        """Raises ``TenantUnknown`` if there is no such directory, ``TenantBroken`` saying why."""
        if not is_tenant_id(tenant):
            raise TenantUnknown("there is no such tenant")
        try:
            # From the top in one step, which halves the time of a scan.
            data = self._state.read_bytes(f"{TENANTS}/{tenant}/{FILE}", limit=LARGEST)
        except FileNotFoundError:
            if not self._state.exists(f"{TENANTS}/{tenant}"):
                raise TenantUnknown(f"there is no tenant {tenant!r}") from None
            raise TenantBroken(f"{FILE} is missing") from None
        except ApplianceError as error:
            raise TenantBroken(error.detail) from error
        except OSError as error:
            raise TenantBroken(f"{FILE} cannot be read: {error.strerror}") from error
        return parse_record(data, tenant=tenant)

    def write(self, record: TenantRecord) -> None:
        """Replace the record of an existing tenant; when this returns it is on disk.

        Whatever happens, even a power cut, there is either the old record or
        the new one. Raises ``DiskFull``, ``TenantBroken`` rather than replace
        a record that cannot be read, and ``TenantUnknown``.
        """
        with self._state.tenant_root(record.id) as root:
            before = root.read_bytes(FILE, limit=LARGEST)
            parse_record(before, tenant=record.id)
            root.write_atomic(FILE, render_record(record, before=before))

    def create(self, record: TenantRecord, files: Mapping[str, bytes]) -> None:
        """Make a tenant's directory with its record and ``files``, whole or not at all.

        Raises ``AlreadyExists`` if there is anything of that name, usable or not.
        """
        state = self._state
        new = f"{TENANTS}/{_UNFINISHED}{record.id}-{secrets.token_hex(4)}"
        state.mkdir(new)
        try:
            for name, data in {**files, FILE: render_record(record)}.items():
                state.write_atomic(f"{new}/{name}", data)
            _move(state, new, f"{TENANTS}/{record.id}")
        except BaseException:
            with suppress(OSError):
                state.remove_tree(new)
            raise

    def remove(self, tenant: str) -> str:
        """Take a tenant's directory away, whatever its state; return what :meth:`erase` takes."""
        return self._state.retire_tenant(tenant)

    def erase(self, removed: str) -> None:
        """Remove for good what :meth:`remove` took away."""
        self._state.purge(removed)

    def scan(self) -> Iterator[TenantRecord | BrokenRecord]:
        """Read every record, one at a time: ten thousand parsed ones are 40 MB.

        Clears away what a crash left of tenants that were never finished, so
        nobody may be creating one meanwhile.
        """
        for name in self._state.listdir(TENANTS):
            if name.startswith(_UNFINISHED):
                self._state.remove_tree(f"{TENANTS}/{name}")
        for tenant in self.tenants():
            try:
                yield self.read(tenant)
            except ApplianceError as error:
                yield BrokenRecord(tenant, error.detail)

    def tenants(self) -> list[str]:
        """Every id that has a directory, sorted."""
        return self._state.tenants()


def parse_record(data: bytes, *, tenant: str) -> TenantRecord:
    """Read the record of ``tenant``; raise ``TenantBroken`` with the reason and the place."""
    try:
        stored = _decode_known(data)
        record = _record(stored)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        # The text of the file is not quoted: it holds hashes.
        raise TenantBroken(f"{FILE} cannot be used: {error}") from error
    except ApplianceError as error:
        raise TenantBroken(f"{FILE} cannot be used: {error.detail}") from error
    if record.id != tenant:
        raise TenantBroken(f"{FILE} names another tenant than its directory")
    return record


def render_record(record: TenantRecord, *, before: bytes = b"{}") -> bytes:
    """The file of ``record``, for people too; keys of a newer release in ``before`` are kept."""
    stored = msgspec.to_builtins(_stored(record))
    for token in stored["tokens"]:
        if not token["models"]:
            del token["models"]
    stored.update(_from_newer_release(before))
    return msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n"


def _move(state: StateDirectory, new: str, place: str) -> None:
    """Give a finished directory its name. An empty one in its place holds nothing to lose."""
    try:
        state.rename(new, place)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        raise AlreadyExists("there is a tenant of this id already") from None


def _decode_known(data: bytes) -> _Tenant:
    try:
        return _decode_strict(data)
    except msgspec.ValidationError as error:
        newer = _versions(data)
        if newer is None:
            raise
        if newer.compat_version > SCHEMA_VERSION:
            raise ValueError("it was written by a newer release that says we may not") from error
        return _decode(data)


class _Versions(msgspec.Struct, frozen=True):
    schema_version: int = SCHEMA_VERSION
    compat_version: int = COMPAT_VERSION


_decode_versions = msgspec.json.Decoder(_Versions).decode
_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _versions(data: bytes) -> _Versions | None:
    """The versions of a file that a newer release wrote, else None."""
    try:
        versions = _decode_versions(data)
    except msgspec.DecodeError:
        return None
    return versions if versions.schema_version > SCHEMA_VERSION else None


def _from_newer_release(before: bytes) -> dict[str, msgspec.Raw]:
    if _versions(before) is None:
        return {}
    ours = set(_Tenant.__struct_fields__) - {"schema_version", "compat_version"}
    return {key: value for key, value in _decode_keys(before).items() if key not in ours}


def _record(stored: _Tenant) -> TenantRecord:
    tokens = tuple(_token(token) for token in stored.tokens)
    if len({token.id for token in tokens}) < len(tokens):
        raise ValueError("two tokens have the same id")
    return TenantRecord(
        id=stored.id,
        name=stored.name,
        created_at=stored.created_at.astimezone(UTC),
        disabled=stored.disabled,
        disabled_reason=stored.disabled_reason,
        quotas=parse_quotas(stored.quotas) if stored.quotas else {},
        tokens=tokens,
        version=stored.version,
    )


def _token(stored: _Token) -> TokenRecord:
    return TokenRecord(
        id=stored.id,
        label=stored.label,
        digest=parse_stored_digest(stored.hash),
        scopes=frozenset(stored.scopes),
        created_at=stored.created_at.astimezone(UTC),
        expires_at=_utc(stored.expires_at),
        last_used_at=_utc(stored.last_used_at),
        parent=stored.parent,
        models=tuple(stored.models),
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


def _stored(record: TenantRecord) -> _Tenant:
    version = _WITH_MODELS if any(token.models for token in record.tokens) else COMPAT_VERSION
    return _Tenant(
        schema_version=version,
        compat_version=version,
        id=record.id,
        name=record.name,
        created_at=record.created_at,
        disabled=record.disabled,
        disabled_reason=record.disabled_reason,
        quotas={key: render_limit(key, value) for key, value in record.quotas.items()},
        tokens=[
            _Token(
                id=token.id,
                label=token.label,
                hash=stored_digest(token.digest),
                scopes=sorted(token.scopes),
                created_at=token.created_at,
                expires_at=token.expires_at,
                last_used_at=token.last_used_at,
                parent=token.parent,
                models=list(token.models),
            )
            for token in record.tokens
        ],
        version=record.version,
    )
