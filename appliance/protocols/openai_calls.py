"""Calls of tools in the messages of a chat completion, and what came of them.

Beside functions there are custom tools, which are called with a text, and the
``function_call`` of a time before there were tools.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.model.prompts import Attachment, Block, Call, Result, Text
from appliance.protocols import request_members as members
from appliance.protocols.known_members import require_known

# The members of each thing that are read or say nothing. To the latter belongs
# what providers and clients tell about an earlier call beside the call.
_CALL = frozenset(
    {"cache_control", "extra_content", "id", "index", "provider_specific_fields", "type"}
)
_FUNCTION = frozenset({"arguments", "name", "parsed_arguments", "provider_specific_fields"})
_CUSTOM = frozenset({"input", "name"})


def read_calls(at: str, message: Mapping[str, Any], functions: dict[str, str]) -> Iterator[Call]:
    """``functions`` are the ids that calls of the older kind were given, by function."""
    for i, call in enumerate(members.items(message.get("tool_calls"), f"{at}.tool_calls")):
        yield _call(f"{at}.tool_calls[{i}]", call)
    match message.get("function_call"):
        case None:
            return
        case {"name": str(name), "arguments": given} as function:
            where = f"{at}.function_call"
            require_known(function, where, _FUNCTION)
            arguments = members.arguments(given, f"{where}.arguments")
            id_ = functions[name] = f"call_{len(functions)}_{_digits(at)}"
            yield Call(id=id_, name=name, arguments=arguments, at=where)
        case _:
            raise InvalidRequest.at(f"{at}.function_call", "is not a call of a function")


def _call(at: str, call: Any) -> Call:
    match call:
        case {"id": str(id_), "function": {"name": str(name), "arguments": given, **rest}}:
            require_known(call, at, _CALL | {"function"})
            require_known(rest, f"{at}.function", _FUNCTION)
            arguments = members.arguments(given, f"{at}.function.arguments")
            cache = members.cache_control(call, at)
            return Call(id=id_, name=name, arguments=arguments, cache=cache, at=at)
        case {"id": str(id_), "custom": {"name": str(name), "input": str(text), **rest}}:
            require_known(call, at, _CALL | {"custom"})
            require_known(rest, f"{at}.custom", _CUSTOM)
            cache = members.cache_control(call, at)
            return Call(id=id_, name=name, arguments=text, is_custom=True, cache=cache, at=at)
    raise InvalidRequest.at(at, "is no call of a function and none of a custom tool")


def _digits(at: str) -> str:
    return "".join(filter(str.isdigit, at))


def read_result(
    at: str, message: Mapping[str, Any], blocks: Sequence[Block], functions: Mapping[str, str]
) -> Result:
    """What came of a call, be it of a function or of a custom tool."""
    if message["role"] == "function":
        name = members.text(message.get("name"), f"{at}.name")
        if name not in functions:
            raise InvalidRequest.at(f"{at}.name", "names no function that was called before")
        call_id = functions[name]
    else:
        given = message.get("tool_call_id")
        if not isinstance(given, str):
            raise InvalidRequest.at(f"{at}.tool_call_id", "is missing", "name the call it answers")
        call_id = given
    parts = tuple(block for block in blocks if isinstance(block, Text | Attachment))
    if len(parts) < len(blocks):
        raise InvalidRequest.at(f"{at}.content", "is no result: a tool refuses nothing")
    return Result(call_id=call_id, parts=parts, cache=members.cache_control(message, at), at=at)


def written_call(call: Call) -> dict[str, Any]:
    if call.is_custom:
        custom = {"name": call.name, "input": call.arguments}
        return {"id": call.id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
