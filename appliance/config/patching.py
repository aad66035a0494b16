"""The patches of OpenClaw's clients: RFC 7396, and lists of things with an ``id`` item by item."""

from collections.abc import Collection, Mapping
from typing import Any

from appliance.config.documents import child
from appliance.model.errors import ConfigInvalid


def apply_patch(
    target: Mapping[str, Any], patch: Mapping[str, Any], *, replace_paths: Collection[str] = ()
) -> dict[str, Any]:
    """``target`` changed by ``patch``; neither is changed itself.

    Null removes. A list is replaced, unless all items on both sides are
    objects with an ``id``: then items are merged by it, and new ones come
    last. Lists at ``replace_paths`` (``a.b``) are replaced all the same.
    Whoever calls has bounded the depth. Raises :exc:`ConfigInvalid` for an id
    given twice.
    """
    return _merged(target, patch, "", frozenset(replace_paths))


def _merged(
    target: Mapping[str, Any], patch: Mapping[str, Any], path: str, replaced: frozenset[str]
) -> dict[str, Any]:
    result = dict(target)
    for key, value in patch.items():
        below = child(path, key)
        before = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            known = before if isinstance(before, Mapping) else {}
            result[key] = _merged(known, value, below, replaced)
        elif isinstance(value, list) and below not in replaced and _have_ids(before, value):
            result[key] = _merged_items(before, value, below, replaced)
        else:
            result[key] = value
    return result


def _have_ids(before: object, patch: list[Any]) -> bool:
    if not isinstance(before, list) or not before:
        return False
    return all(
        isinstance(item, Mapping) and isinstance(item.get("id"), str) for item in [*before, *patch]
    )


def _merged_items(
    before: Any, patch: list[Any], path: str, replaced: frozenset[str]
) -> list[dict[str, Any]]:
    items = {item["id"]: item for item in before}
    named: set[str] = set()
    for position, item in enumerate(patch):
        if item["id"] in named:
            raise ConfigInvalid.at(f"{path}[{position}].id", "given twice", "name each item once")
        named.add(item["id"])
        items[item["id"]] = _merged(items.get(item["id"], {}), item, path, replaced)
    return list(items.values())
