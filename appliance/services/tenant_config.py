"""A tenant's own settings: the overlay in its ``config.yaml``, and what comes of it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from appliance.config.overlay import (
    check_overlay,
    effective,
    merge_patch,
    parse_overlay,
    public_view,
    render_overlay,
)
from appliance.config.schema import GatewayConfig, Template
from appliance.model.callers import Caller
from appliance.model.errors import ApplianceError, ConfigInvalid, InvalidRequest, PreconditionFailed
from appliance.model.spelling import nearest
from appliance.storage.paths import ConfinedDirectory

FILE = "config.yaml"
LARGEST = 1024 * 1024  # bytes
_MOST_NAMED = 40  # keys that the audit log names for one change
_DEEPEST_NAMED = 3


@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """A tenant's overlay, what it makes of the gateway's config, and the overlay's version.

    ``etag`` is bare: the quotes of an HTTP header are the transport's business.
    """

    overlay: Mapping[str, object]
    effective_public: Mapping[str, object]
    etag: str

    @property
    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.etag != NO_FILE


class Roots(Protocol):
    """The state directory, as far as overlays need it."""

    def tenant_root(self, tenant: str) -> ConfinedDirectory: ...


class Overlays:
    """Reads, checks and writes overlays. Hold the tenant's lock around a change."""

    def __init__(self, roots: Roots, *, config: Callable[[], GatewayConfig]) -> None:
        self._roots = roots
        self._config = config

    def document(self, tenant: str) -> ConfigDocument:
        """Raises ``ConfigInvalid`` if somebody wrote something else into the file."""
        data = self._read(tenant)
        return self._document(self._parse(data), data)

    def version(self, tenant: str) -> str:
        """The etag alone, of a file that cannot be used too: so it can be replaced."""
        return _etag(self._read(tenant))

    def check(self, caller: Caller, raw: object) -> dict[str, Any]:
        """Return ``raw`` as an overlay that makes a config.

        Raises ``ConfigInvalid`` and ``AdminOnlyKey`` naming each bad key.
        """
        overlay = check_overlay(raw, caller_is_admin=caller.is_admin)
        effective(self._config(), overlay)
        return overlay

    def write(self, tenant: str, overlay: Mapping[str, Any]) -> ConfigDocument:
        """Replace the overlay, durably. Blocks."""
        data = render(overlay)
        root = self._roots.tenant_root(tenant)
        try:
            root.write_atomic(FILE, data)
        finally:
            root.close()
        return self._document(overlay, data)

    def find(self, tenant: str) -> dict[str, Any]:
        """The overlay as far as it can be read, to tell what a change changes."""
        try:
            return self._parse(self._read(tenant))
        except ApplianceError:
            return {}

    def _document(self, overlay: Mapping[str, Any], data: bytes) -> ConfigDocument:
        config = effective(self._config(), overlay)
        return ConfigDocument(overlay, public_view(config), _etag(data))

    def _read(self, tenant: str) -> bytes:
        root = self._roots.tenant_root(tenant)
        try:
            return root.read_bytes(FILE, limit=LARGEST)
        except FileNotFoundError:
            return b""
        finally:
            root.close()

    def _parse(self, data: bytes) -> dict[str, Any]:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise ConfigInvalid(f"the tenant's {FILE} is not UTF-8") from None
        return parse_overlay(text, name=FILE)


def render(overlay: Mapping[str, Any]) -> bytes:
    return render_overlay(overlay).encode()


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


NO_FILE = _etag(b"")
"""The version of an overlay that was never written."""


def require_version(current: str, if_match: str | None) -> None:
    """Raise ``PreconditionFailed`` unless the caller saw what it is about to replace."""
    if if_match is not None and if_match != current:
        raise PreconditionFailed("the config changed since it was read; read it again")


def patched(overlay: Mapping[str, Any], patch: object) -> Any:
    """``overlay`` changed by an RFC 7396 merge patch."""
    if not isinstance(patch, Mapping):
        raise ConfigInvalid("a merge patch is an object")
    return merge_patch(overlay, patch)


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The dotted keys that differ, for the audit log; never their values."""
    return sorted(_changed(before, after, "", 1))[:_MOST_NAMED]


def _changed(before: Any, after: Any, path: str, depth: int) -> Iterator[str]:
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old == new and (key in before) == (key in after):
            continue
        below = f"{path}.{key}" if path else str(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and depth < _DEEPEST_NAMED:
            yield from _changed(old, new, below, depth + 1)
        else:
            yield below


def find_template(config: GatewayConfig, name: str | None) -> Template:
    """The template ``name``, an empty one for None; raise ``InvalidRequest`` if there is none."""
    if name is None:
        return Template()
    template = config.templates.get(name)
    if template is None:
        near = nearest(name, config.templates)
        remedy = f"did you mean {near!r}?" if near else "see templates in the gateway's config"
        raise InvalidRequest.at("template", "there is no such template", remedy)
    return template
