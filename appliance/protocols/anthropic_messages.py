"""Anthropic's Messages API: how a chat-completions request is said there.

Reference: "Create a Message", version 2023-06-01. What has no counterpart is
refused by name; pure hints are dropped.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import ModelCall
from appliance.model.errors import InvalidRequest
from appliance.protocols.openai_messages import (
    Attachment,
    Message,
    Part,
    Text,
    read_member,
    read_messages,
    read_stops,
    read_tools,
    refuse_unknown,
)

VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 4096  # Anthropic requires a limit; a caller may have set none

_TRANSLATED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user",
    }
)
_HINTS = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "seed",
        "service_tier",
        "store",
        "verbosity",
    }
)
_HARMLESS: Mapping[str, frozenset[bytes]] = {
    "n": frozenset({b"1"}),
    "logprobs": frozenset({b"false"}),
    "top_logprobs": frozenset({b"0"}),
    "frequency_penalty": frozenset({b"0", b"0.0"}),
    "presence_penalty": frozenset({b"0", b"0.0"}),
    "logit_bias": frozenset({b"{}"}),
    "modalities": frozenset({b'["text"]'}),
}
_PASSED_ON = ("top_p", "top_k", "thinking")
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


def encode_request(call: ModelCall) -> bytes:
    """Return the body of a request for a stream; raise :exc:`InvalidRequest` naming the field.

    An answer in one piece is put together from the stream: there is then one
    way to read an answer, and what a cancelled call used is known.
    """
    body = call.body
    refuse_unknown(body, known=_TRANSLATED | _HINTS, harmless=_HARMLESS)
    messages = read_messages(body)
    request: dict[str, Any] = {
        "model": call.model,
        "max_tokens": _max_tokens(call),
        "stream": True,
        "messages": _conversation(messages),
    }
    if system := [m.text for m in messages if m.role == "system" and m.text]:
        request["system"] = "\n\n".join(system)
    if stops := read_stops(body):
        request["stop_sequences"] = stops
    if (temperature := _temperature(body)) is not None:
        request["temperature"] = temperature
    for name in _PASSED_ON:
        if (value := read_member(body, name)) is not None:
            request[name] = value
    if (user := read_member(body, "user")) is not None:
        request["metadata"] = {"user_id": user}
    if output := _output_config(body):
        request["output_config"] = output
    request |= _tools(body)
    return msgspec.json.encode(request)


def _max_tokens(call: ModelCall) -> int:
    if call.output_limit is not None:
        return call.output_limit
    for name in ("max_completion_tokens", "max_tokens"):
        limit = read_member(call.body, name)
        if isinstance(limit, int) and not isinstance(limit, bool):
            return limit
    return DEFAULT_MAX_TOKENS


def _temperature(body: Mapping[str, bytes]) -> float | None:
    temperature = read_member(body, "temperature")
    if temperature is None:
        return None
    if not isinstance(temperature, int | float) or not 0 <= temperature <= 1:
        raise InvalidRequest.at("temperature", "lies between 0 and 1 for this model's provider")
    return float(temperature)


def _output_config(body: Mapping[str, bytes]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    effort = read_member(body, "reasoning_effort")
    if effort not in {None, "none"}:
        if not isinstance(effort, str) or effort not in _EFFORTS:
            raise InvalidRequest.at("reasoning_effort", "is none, low, medium or high here")
        config["effort"] = _EFFORTS[effort]
    match read_member(body, "response_format"):
        case None | {"type": "text"}:
            pass
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            config["format"] = {"type": "json_schema", "schema": schema}
        case _:
            raise InvalidRequest.at(
                "response_format", "this model's provider knows text and json_schema only"
            )
    return config


def _tools(body: Mapping[str, bytes]) -> dict[str, Any]:
    functions = read_tools(body)
    choice, allowed = _tool_choice(read_member(body, "tool_choice"))
    if allowed is not None:
        functions = [function for function in functions if function["name"] in allowed]
    if not functions:
        return {}
    if read_member(body, "parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    tools = [_tool(function) for function in functions]
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    tool = {
        "name": function["name"],
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if isinstance(function.get("description"), str):
        tool["description"] = function["description"]
    return tool


def _tool_choice(choice: object) -> tuple[dict[str, Any] | None, frozenset[str] | None]:
    """Return Anthropic's word for ``tool_choice``, and the tools it leaves to choose from."""
    match choice:
        case None:
            return None, None
        case "auto" | "none":
            return {"type": choice}, None
        case "required":
            return {"type": "any"}, None
        case {"type": "function", "function": {"name": str(name)}}:
            return {"type": "tool", "name": name}, None
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}:
            names = frozenset(
                tool["function"]["name"]
                for tool in tools
                if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
            )
            return {"type": "any" if mode == "required" else "auto"}, names
    raise InvalidRequest.at("tool_choice", "is none, auto, required, a function or allowed_tools")


def _conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The turns, alternating: neighbours of one role become one message.

    All results of a round of tool calls must stand in one user message, before
    any text in it.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    blocks = [_block(message.field, part) for part in message.parts]
    if message.role == "tool":
        result = {
            "type": "tool_result",
            "tool_use_id": _tool_id(message.answers),
            "content": blocks,
        }
        return [result]
    return blocks + [
        {"type": "tool_use", "id": _tool_id(call.id), "name": call.name, "input": call.arguments}
        for call in message.calls
    ]


def _tool_id(text: str) -> str:
    """Other providers' ids may hold what Anthropic's may not; each changes the same way always."""
    return _NOT_IN_AN_ID.sub("_", text) or "_"


def _block(field: str, part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Attachment(kind="image", url=url) if url:
            return {"type": "image", "source": {"type": "url", "url": url}}
        case Attachment(media_type=media_type, data=data):
            kind = "image" if media_type in _IMAGES else "document"
            if kind == "document" and media_type != "application/pdf":
                raise InvalidRequest.at(
                    f"{field}.content",
                    f"{media_type} cannot be read by this model's provider",
                    "send JPEG, PNG, GIF, WebP or PDF",
                )
            source = {"type": "base64", "media_type": media_type, "data": data}
            return {"type": kind, "source": source}
