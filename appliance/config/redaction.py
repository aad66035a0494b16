"""Secrets taken out of a config that is shown, and put back when it is sent again.

Which keys hold secrets is written in the schema; nothing is guessed from names.
"""

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from appliance.config.checking import Kind, is_section, keys_of, kind_of
from appliance.config.documents import child
from appliance.config.schema import GatewayConfig
from appliance.model.errors import ConfigInvalid

REDACTED = "__OPENCLAW_REDACTED__"
_ABSENT = object()


def redacted(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config``, or a part of one on top of another, without its secrets."""
    shown: dict[str, Any] = _redact(config, kind_of(GatewayConfig))
    return shown


def restored(sent: Any, stored: Any) -> Any:
    """``sent`` with each mark of :func:`redacted` replaced by what ``stored`` has in its place.

    Raises :exc:`ConfigInvalid` naming the mark where nothing is stored: it
    would be kept as if it were the secret.
    """
    return _restore(sent, stored, "")


def _redact(value: Any, kind: Kind) -> Any:
    if kind.extra.get("secret") and value is not None:
        return REDACTED
    if isinstance(value, Mapping):
        return {key: _redact(below, _below(kind, key)) for key, below in value.items()}
    if isinstance(value, list):
        of_items = _of_items(kind)
        return [_redact(item, of_items) for item in value]
    return value


def _below(kind: Kind, key: str) -> Kind:
    if is_section(kind.base):
        info = keys_of(kind.base).get(key)
        return kind_of(Any if info is None else info.type)
    if get_origin(kind.base) is dict:
        return kind_of(get_args(kind.base)[1])
    return kind_of(Any)


def _of_items(kind: Kind) -> Kind:
    return kind_of(get_args(kind.base)[0] if get_origin(kind.base) is list else Any)


def _restore(sent: Any, stored: Any, path: str) -> Any:
    if sent == REDACTED:
        if stored is _ABSENT:
            raise ConfigInvalid.at(
                path, "there is no stored value to keep", "write the value itself"
            )
        return stored
    if isinstance(sent, Mapping):
        known = stored if isinstance(stored, Mapping) else {}
        return {
            key: _restore(below, known.get(key, _ABSENT), child(path, str(key)))
            for key, below in sent.items()
        }
    if isinstance(sent, list):
        return [
            _restore(item, _counterpart(item, position, stored), f"{path}[{position}]")
            for position, item in enumerate(sent)
        ]
    return sent


def _counterpart(item: Any, position: int, stored: Any) -> Any:
    """The stored item with the same ``id``, else the one in the same place."""
    if not isinstance(stored, list):
        return _ABSENT
    if isinstance(item, Mapping) and "id" in item:
        same = (s for s in stored if isinstance(s, Mapping) and s.get("id") == item["id"])
        return next(same, _ABSENT)
    return stored[position] if position < len(stored) else _ABSENT
