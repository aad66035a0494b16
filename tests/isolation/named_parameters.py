"""Finds, in the registry, every parameter by which a request names something."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import inspect

from appliance.transports.rpc.method import Method


@dataclass(frozen=True, slots=True)
class Parameter:
    """``path`` as in ``reference.key``; a list is its items (``keys.[]``)."""

    method: str
    path: str
    kind: str | None

    @property
    def name(self) -> str:
        return [step for step in self.path.split(".") if step != "[]"][-1]

    @property
    def looks_like_a_name(self) -> bool:
        """Whether it is called as things that name others are: ``…Id``, ``key``, ``…Ids``."""
        name = self.name.removesuffix("s")
        return name.endswith(("Id", "Key", "ID")) or name in {"id", "key"}

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


HIDDEN = (
    # Names in what the registry cannot describe.
    Parameter("message.action", "params.to", "session-key"),
    Parameter("message.action", "params.target", "session-key"),
    Parameter("node.event", "payload.sessionKey", "session-key"),
)


def texts_of(method: Method) -> list[Parameter]:
    """Every text in the params of ``method``, however deep."""
    found = _walk(inspect.type_info(method.params), "", None)
    return [Parameter(method.name, path, kind) for path, kind in dict.fromkeys(found)]


def named(method: Method) -> list[Parameter]:
    """Every parameter of ``method`` that names a thing of a tenant."""
    told = [parameter for parameter in texts_of(method) if parameter.kind is not None]
    return [*told, *(parameter for parameter in HIDDEN if parameter.method == method.name)]


def put(params: dict[str, Any], path: str, value: str) -> None:
    """Set what ``path`` means in ``params``."""
    step, _, rest = path.partition(".")
    if not rest:
        params[step] = value
    elif rest == "[]":
        params[step] = [value]
    else:
        inner = dict(params.get(step) or {})
        put(inner, rest, value)
        params[step] = inner


def take_out(params: dict[str, Any], path: str) -> None:
    """Remove what ``path`` means from ``params``, if it is there."""
    step, _, rest = path.partition(".")
    if not rest:
        params.pop(step, None)
    elif step in params:
        params[step] = dict(params[step])
        take_out(params[step], rest)


def _walk(kind: inspect.Type, path: str, name: str | None) -> Iterator[tuple[str, str | None]]:
    match kind:
        case inspect.Metadata():
            yield from _walk(kind.type, path, (kind.extra or {}).get("kind", name))
        case inspect.UnionType():
            for each in kind.types:
                yield from _walk(each, path, name)
        case (
            inspect.ListType()
            | inspect.SetType()
            | inspect.FrozenSetType()
            | inspect.VarTupleType()
        ):
            yield from _walk(kind.item_type, f"{path}.[]", name)
        case inspect.TupleType():
            for each in kind.item_types:
                yield from _walk(each, f"{path}.[]", name)
        case inspect.DictType():
            yield from _walk(kind.value_type, f"{path}.*", name)
        case inspect.StructType():
            for field in kind.fields:
                yield from _walk(field.type, f"{path}.{field.encode_name}".lstrip("."), None)
        case inspect.StrType():
            yield path, name
