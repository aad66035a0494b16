"""A prompt written for Ollama's own chat API, which nobody speaks to us.

Reference: Ollama's ``docs/api.md``, "Generate a chat completion". What is
lost: marks for a cache, detail of pictures, ids of calls (a result names its
tool), that a call failed, that a tool is ``strict`` (clients say so of all of
theirs), seals on thinking, and how much of it a budget allows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.model.prompts import (
    Attachment,
    Block,
    Call,
    Format,
    Message,
    Prompt,
    Refusal,
    Result,
    Role,
    Text,
    Thinking,
    Tool,
)
from appliance.protocols import request_members as members

_OPTIONS = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
)
_ROLES = {Role.DEVELOPER: "system"}
# What is asked for, and the nearest there is.
_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}


def write_body(prompt: Prompt) -> dict[str, bytes]:
    """Write a request, but for the model's name, the limit and how the answer travels."""
    prompt.refuse_others()
    functions = prompt.require_functions()
    prompt.require_choice()
    prompt.refuse("answers", "top_logprobs", "logit_bias")
    tools = _chosen(prompt, functions)
    if tools:
        prompt.refuse("parallel_tools")
    prompt = prompt.with_speakers()
    calls = {
        block.id: block.name
        for message in prompt.messages
        for block in message.blocks
        if isinstance(block, Call)
    }
    options = {name: getattr(prompt, name) for name in _OPTIONS}
    written = {
        "messages": [
            written for message in prompt.messages for written in _messages(message, calls)
        ],
        "options": {
            **{name: value for name, value in options.items() if value is not None},
            **({"stop": prompt.stops} if prompt.stops else {}),
        }
        or None,
        "tools": [_tool(tool) for tool in tools] or None,
        "format": _format(prompt),
        "think": _think(prompt),
    }
    return members.write_members(written)


def _chosen(prompt: Prompt, functions: Sequence[Tool]) -> Sequence[Tool]:
    choice = prompt.choice
    if choice is None:
        return functions
    if choice.mode not in {"auto", "none"}:
        raise InvalidRequest.at(prompt.named("choice"), "Ollama knows auto and none only")
    if choice.mode == "none":
        return []
    return [tool for tool in functions if not choice.names or tool.name in choice.names]


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = members.schema_of(tool.parameters)
    return {"type": "function", "function": function}


def _format(prompt: Prompt) -> Any:
    match prompt.format:
        case Format(kind="json_object"):
            return "json"
        case Format(kind="json_schema", schema=schema, description=told):
            return schema if told is None else {"description": told, **(schema or {})}
    return None


def _think(prompt: Prompt) -> Any:
    reasoning = prompt.reasoning
    if reasoning is None:
        return None
    if reasoning.mode == "disabled" or reasoning.effort == "none":
        return False
    if reasoning.effort is None:
        return None if reasoning.mode is None else True
    if reasoning.effort not in _EFFORTS:
        efforts = ", ".join(("none", *_EFFORTS))
        raise InvalidRequest.at(prompt.named("reasoning"), f"is one of {efforts} here")
    return _EFFORTS[reasoning.effort]


def _messages(message: Message, calls: Mapping[str, str]) -> list[dict[str, Any]]:
    if message.role is not Role.TOOL:
        return [_said(_ROLES.get(message.role, message.role.value), message, message.blocks)]
    said = []
    for result in message.blocks:
        if not isinstance(result, Result):
            raise InvalidRequest.at(message.at, "holds more than the results of tools")
        # There is no other word for it.
        parts = result.parts or ((Text(text="error"),) if result.is_error else ())
        written = _said("tool", message, parts)
        if result.call_id in calls:
            written["tool_name"] = calls[result.call_id]
        said.append(written)
    return said


def _said(role: str, message: Message, blocks: tuple[Block, ...]) -> dict[str, Any]:
    texts, images, calls, thoughts = [], [], [], []
    for block in blocks:
        match block:
            case Text(text=text) | Refusal(text=text):
                texts.append(text)
            case Thinking(text=text):
                thoughts.append(text)
            case Call():
                arguments = members.raw_arguments(block)
                calls.append({"function": {"name": block.name, "arguments": arguments}})
            case Attachment(kind="image", data=data) if data:
                images.append(data)
            case Attachment(text=text, name=name) if text:
                texts.append(f"{name}\n{text}" if name else text)
            case _:
                raise InvalidRequest.at(
                    block.at or message.at,
                    "Ollama takes text, and pictures as data URLs only",
                    "send the data itself",
                )
    said: dict[str, Any] = {"role": role, "content": "\n\n".join(texts)}
    if thinking := "".join(thoughts):
        said["thinking"] = thinking
    if images:
        said["images"] = images
    if calls:
        said["tool_calls"] = calls
    return said
