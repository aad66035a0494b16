"""Tools whose parameters go by several names: models were taught with more than one."""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from appliance.services.tools.base import (
    AnyParams,
    Effect,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)

P = TypeVar("P", bound=ToolParams)

# What other gateways and assistants call the parameters of the tools for files.
FILE_ALIASES: Mapping[str, str] = {
    "file_path": "path",
    "filePath": "path",
    "file": "path",
    "old_string": "oldText",
    "old_str": "oldText",
    "old_text": "oldText",
    "new_string": "newText",
    "new_str": "newText",
    "new_text": "newText",
    "replace_all": "replaceAll",
    "ignore_case": "ignoreCase",
    "max_results": "limit",
}


def forgiving(
    *,
    name: str,
    group: str,
    label: str,
    description: str,
    params: type[P],
    call: Callable[[ToolCall, P], Awaitable[ToolResult]],
    effect: Effect = Effect.READ,
    is_parallel: bool = True,
    aliases: Mapping[str, str] = FILE_ALIASES,
) -> Tool[AnyParams]:
    """A tool that reads its parameters under their own names and under ``aliases``.

    The model is shown their own names only.
    """

    async def work(made: ToolCall, given: AnyParams) -> ToolResult:
        return await call(made, read_arguments(params, given.arguments, aliases))

    return Tool(
        name=name,
        group=group,
        label=label,
        description=description,
        params=AnyParams,
        call=work,
        effect=effect,
        is_parallel=is_parallel,
        schema=schema_of(params),
    )


def read_arguments(
    params: type[P], given: Mapping[str, Any], aliases: Mapping[str, str] = FILE_ALIASES
) -> P:
    """Raises :exc:`ToolFailed` saying which parameter is wrong. A name of its own wins."""
    known = {field.encode_name for field in msgspec.structs.fields(params)}
    named = _renamed(given, known, aliases)
    try:
        return msgspec.convert(named, params, strict=False)
    except msgspec.ValidationError as problem:
        raise ToolFailed(f"{problem}; the parameters are {', '.join(sorted(known))}") from problem


def _renamed(given: Mapping[str, Any], known: set[str], aliases: Mapping[str, str]) -> Any:
    named: dict[str, Any] = {}
    for key, value in given.items():
        target = key if key in known else aliases.get(key, key)
        # Null is how some models leave a parameter out.
        if value is not None and (target == key or target not in given):
            named[target] = _renamed_within(value, aliases)
    return named


def _renamed_within(value: Any, aliases: Mapping[str, str]) -> Any:
    """The objects of a list, such as several edits, have their parameters by other names too."""
    if not isinstance(value, list):
        return value
    return [
        {aliases.get(key, key): inner for key, inner in each.items()}
        if isinstance(each, dict)
        else each
        for each in value
    ]


@lru_cache(maxsize=64)
def schema_of(params: type[ToolParams]) -> Mapping[str, Any]:
    """The JSON Schema of ``params``, complete in itself."""
    whole = msgspec.json.schema(params)
    inner = dict(whole["$defs"][params.__name__])
    inner.pop("title", None)
    inner.pop("description", None)
    others = {name: kind for name, kind in whole["$defs"].items() if name != params.__name__}
    if others:
        inner["$defs"] = others
    return inner
