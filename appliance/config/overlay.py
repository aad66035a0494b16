"""Tenants' settings, which lie on top of the gateway's.

An overlay is a config of the same shape in which every key is optional and
null takes the gateway's value away. The keys in :data:`ADMIN_ONLY` belong to
the operator and live in the gateway config alone; they are refused when an
overlay is written *and* put back when one is applied, so that a file edited by
hand or brought in by a restore changes nothing either.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from appliance.config.checking import find_problems, first_problems
from appliance.config.documents import DEEPEST, LARGEST, invalid, read_document, write_document
from appliance.config.schema import GatewayConfig, builtins
from appliance.model.errors import AdminOnlyKey, FieldError

ADMIN_ONLY: tuple[str, ...] = (
    "server",
    "providers",
    "models.rate_card",
    "guardrails",
    "quotas",
    "billing",
    "sandbox.backend",
    "sandbox.binds",
    "sandbox.limits",
    "sandbox.uid",
    "sandbox.image",
    "backup.store",
    "channels.limits",  # they are platform-wide
    "egress.allow_private",
    "egress.only",
    "logging",
    "metrics",
    "templates",
    "env",
    "meta",
)
_PATHS = tuple(tuple(key.split(".")) for key in ADMIN_ONLY)
_ABSENT = object()


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396) and return the result.

    Neither argument is changed; the result may share parts with both, so treat
    all three as values. A loop, not a recursion: how deep ``patch`` is nested
    was decided by whoever sent it.
    """
    if not isinstance(patch, Mapping):
        return patch
    result: dict[str, Any] = dict(target) if isinstance(target, Mapping) else {}
    waiting = [(result, patch)]
    while waiting:
        into, changes = waiting.pop()
        for key, value in changes.items():
            if value is None:
                into.pop(key, None)
            elif isinstance(value, Mapping):
                below = into.get(key)
                into[key] = copy = dict(below) if isinstance(below, Mapping) else {}
                waiting.append((copy, value))
            else:
                into[key] = value
    return result


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """``overlay`` on top of ``base``: mappings key by key, all else replaced, null removes.

    Knows nothing of admin-only keys; :func:`effective` does.
    """
    merged: dict[str, Any] = merge_patch(base, overlay)
    return merged


def parse_overlay(text: str, *, name: str) -> dict[str, Any]:
    """Read a tenant's ``config.yaml``; an empty one is an empty overlay.

    Raises :exc:`ConfigInvalid` or :exc:`AdminOnlyKey` for the tenant's file as
    :func:`check_overlay` does for a request.
    """
    document = read_document(text, name=name)
    raw = {} if document.value is None else document.value
    return _check(raw, name=name, remedy=_FOR_ADMINS, lines=document.lines)


def render_overlay(overlay: Mapping[str, Any]) -> str:
    """The opposite of :func:`parse_overlay`; :exc:`ConfigInvalid` if that could not read it."""
    text = write_document(dict(overlay))
    if len(text.encode()) > LARGEST:
        raise invalid("", [FieldError("", f"larger than {LARGEST} bytes", "shorten it")])
    return text


def check_overlay(raw: object, *, caller_is_admin: bool) -> dict[str, Any]:
    """Return ``raw`` as an overlay that may be stored.

    Raises :exc:`AdminOnlyKey` naming each such key, whoever asks (they live in
    the gateway config only), and :exc:`ConfigInvalid` naming everything else
    that is wrong.
    """
    return _check(raw, name="", remedy=_FOR_ADMINS if caller_is_admin else _FOR_TENANTS, lines={})


def overlay_problems(raw: object, *, path: str) -> Iterator[FieldError]:
    """What :func:`check_overlay` would refuse, admin-only keys included."""
    if _too_deep(raw):
        yield FieldError(path, f"nested more than {DEEPEST} levels deep", "flatten it")
        return
    for key in _admin_only_keys(raw):
        yield FieldError(f"{path}.{key}", "only the gateway's own config may set this")
    yield from find_problems(raw, GatewayConfig, path=path, partial=True)


def effective(gateway: GatewayConfig, overlay: Mapping[str, Any]) -> GatewayConfig:
    """The config that holds for a tenant with ``overlay``.

    Whatever the overlay holds, admin-only keys keep the gateway's values.
    Raises :exc:`ConfigInvalid` if the rest does not make a config.
    """
    if not overlay:
        return gateway
    problems = first_problems(_without_admin_keys(overlay), GatewayConfig, partial=True)
    if problems:
        raise invalid("the tenant's config", problems)
    base = builtins(gateway)
    merged = _pinned(merge(base, overlay), base)
    try:
        return msgspec.convert(merged, GatewayConfig)
    except msgspec.ValidationError as exc:
        raise invalid("the tenant's config", [FieldError("", str(exc))]) from exc


def public_view(config: GatewayConfig) -> dict[str, Any]:
    """What a tenant may see of an effective config: no key that is the operator's.

    Every reference to a secret is below an admin-only key (a test walks the
    schema), so none is in here.
    """
    view = builtins(config)
    for path in _PATHS:
        _remove(view, path)
    return {key: value for key, value in view.items() if value != {}}


_FOR_TENANTS = "ask the operator of this gateway"
_FOR_ADMINS = "set it in the gateway's own config.yaml"


def _check(raw: object, *, name: str, remedy: str, lines: Mapping[str, int]) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise invalid(name, [FieldError("", "expected a mapping of settings", "send an object")])
    if _too_deep(raw):
        raise invalid(name, [FieldError("", f"nested more than {DEEPEST} levels deep")])
    refused = list(_admin_only_keys(raw))
    if refused:
        keys = ", ".join(refused)
        prefix = f"{name}: " if name else ""
        raise AdminOnlyKey(
            f"{prefix}only the operator may set {keys}; {remedy}",
            fields=[FieldError(key, "only the operator may set this", remedy) for key in refused],
        )
    problems = first_problems(raw, GatewayConfig, partial=True)
    if problems:
        raise invalid(name, problems, lines)
    return dict(raw)


def _admin_only_keys(raw: object) -> Iterator[str]:
    for path in _PATHS:
        if _at(raw, path) is not _ABSENT:
            yield ".".join(path)


def _too_deep(raw: object) -> bool:
    level = [raw]
    for _ in range(DEEPEST):
        level = [value for above in level for value in _members(above) if _holds_more(value)]
        if not level:
            return False
    return True


def _members(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _holds_more(value: object) -> bool:
    return isinstance(value, Mapping | list)


def _at(raw: object, path: tuple[str, ...]) -> object:
    for key in path:
        if not isinstance(raw, Mapping) or key not in raw:
            return _ABSENT
        raw = raw[key]
    return raw


def _pinned(merged: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """``merged`` with every admin-only key as in ``base``."""
    for path in _PATHS:
        value = _at(base, path)
        if value is _ABSENT:
            _remove(merged, path)
        else:
            _put(merged, path, value)
    return merged


def _without_admin_keys(overlay: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(overlay)
    for path in _PATHS:
        _remove(kept, path)
    return kept


def _remove(tree: dict[str, Any], path: tuple[str, ...]) -> None:
    """Take ``path`` out of ``tree``, copying on the way down: what is below may be shared."""
    *above, last = path
    for key in above:
        below = tree.get(key)
        if not isinstance(below, Mapping):
            return
        tree[key] = tree = dict(below)
    tree.pop(last, None)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set ``path`` in ``tree``, replacing what is in the way by mappings."""
    *above, last = path
    for key in above:
        below = tree.get(key)
        tree[key] = tree = dict(below) if isinstance(below, Mapping) else {}
    tree[last] = value
