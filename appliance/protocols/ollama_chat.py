"""Ollama's own chat API (``POST /api/chat``): JSON objects, one a line.

Reference: Ollama's ``docs/api.md``, "Generate a chat completion".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import (
    Delta,
    Finished,
    FinishReason,
    ModelCall,
    ReasoningDelta,
    TextDelta,
)
from appliance.model.errors import InvalidRequest
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import (
    AnswerFailed,
    ErrorReported,
    MalformedAnswer,
    count,
    decode_object,
    read_error,
)
from appliance.protocols.openai_answers import ToolIndexes, text_bytes
from appliance.protocols.openai_messages import (
    Attachment,
    Message,
    read_member,
    read_messages,
    read_stops,
    read_tools,
    refuse_unknown,
)

_LONGEST_LINE = 4 * 1024 * 1024

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_TRANSLATED = frozenset(
    {
        *_OPTIONS,
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "reasoning_effort",
        "response_format",
        "stop",
        "stream",
        "stream_options",
        "tool_choice",
        "tools",
    }
)
_HINTS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
_HARMLESS: Mapping[str, frozenset[bytes]] = {
    "n": frozenset({b"1"}),
    "logprobs": frozenset({b"false"}),
    "top_logprobs": frozenset({b"0"}),
    "logit_bias": frozenset({b"{}"}),
    "modalities": frozenset({b'["text"]'}),
}
_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


def encode_request(call: ModelCall) -> bytes:
    """Return the body of a request for a stream; raise :exc:`InvalidRequest` naming the field."""
    body = call.body
    refuse_unknown(body, known=_TRANSLATED | _HINTS, harmless=_HARMLESS)
    messages = read_messages(body)
    names = {made.id: made.name for message in messages for made in message.calls}
    request: dict[str, Any] = {
        "model": call.model,
        "stream": True,
        "messages": [_message(message, names) for message in messages],
    }
    if options := _options(call):
        request["options"] = options
    if tools := _tools(body):
        request["tools"] = tools
    if (wanted := _format(body)) is not None:
        request["format"] = wanted
    effort = read_member(body, "reasoning_effort")
    if effort is not None:
        request["think"] = False if effort == "none" else effort
    return msgspec.json.encode(request)


def _options(call: ModelCall) -> dict[str, Any]:
    body = call.body
    options = {
        theirs: value
        for ours, theirs in _OPTIONS.items()
        if (value := read_member(body, ours)) is not None
    }
    if stops := read_stops(body):
        options["stop"] = stops
    limits = (
        call.output_limit,
        read_member(body, "max_completion_tokens"),
        read_member(body, "max_tokens"),
    )
    limit = next((each for each in limits if each is not None), None)
    if limit is not None:
        options["num_predict"] = limit
    return options


def _tools(body: Mapping[str, bytes]) -> list[dict[str, Any]]:
    choice = read_member(body, "tool_choice")
    if choice == "none":
        return []
    if choice is not None and choice != "auto":
        raise InvalidRequest.at("tool_choice", "Ollama knows auto and none only")
    return [{"type": "function", "function": function} for function in read_tools(body)]


def _format(body: Mapping[str, bytes]) -> Any:
    match read_member(body, "response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
    raise InvalidRequest.at("response_format", "is text, json_object or json_schema")


def _message(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.text}
    images = [_image(message.field, p) for p in message.parts if isinstance(p, Attachment)]
    if images:
        said["images"] = images
    if message.calls:
        said["tool_calls"] = [
            {"function": {"name": call.name, "arguments": call.arguments}} for call in message.calls
        ]
    if message.role == "tool" and message.answers in names:
        said["tool_name"] = names[message.answers]
    return said


def _image(field: str, part: Attachment) -> str:
    if part.kind != "image" or not part.data:
        raise InvalidRequest.at(
            f"{field}.content", "Ollama takes pictures as data URLs only", "send the data itself"
        )
    return part.data


class StreamReader:
    """Reads the lines of one answer up to ``"done": true``."""

    __slots__ = ("_rest", "_tools", "failure", "finished", "text_bytes", "usage")

    def __init__(self) -> None:
        self.usage: TokenUsage | None = None
        self.finished = False
        self.text_bytes = 0
        self.failure: AnswerFailed | None = None
        self._rest = bytearray()
        self._tools = ToolIndexes()

    def deltas(self, data: bytes) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            for line in self._lines(data):
                if self.finished or self.failure is not None:
                    break
                deltas += self._read(decode_object(line))
        except AnswerFailed as exc:
            self.failure = exc
        self.text_bytes += sum(map(text_bytes, deltas))
        return deltas

    def _lines(self, data: bytes) -> list[bytes]:
        self._rest += data
        if b"\n" not in data:
            if len(self._rest) > _LONGEST_LINE:
                raise MalformedAnswer(f"a line of more than {_LONGEST_LINE} bytes")
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return [line for line in lines if line.strip()]

    def _read(self, line: Mapping[str, Any]) -> list[Delta]:
        if error := read_error(line):
            raise ErrorReported(error)
        deltas = self._message(line.get("message"), answer_id=_answer_id(line))
        if line.get("done") is True:
            self.finished = True
            self.usage = read_usage(line)
            reason = line.get("done_reason")
            known = _REASONS.get(reason) if isinstance(reason, str) else None
            if known is not FinishReason.LENGTH:
                known = self._tools.usual_reason  # it says "stop" after tool calls too
            deltas.append(Finished(known, self.usage))
        return deltas

    def _message(self, message: object, *, answer_id: str) -> list[Delta]:
        if not isinstance(message, dict):
            return []
        deltas: list[Delta] = []
        thinking, text = message.get("thinking"), message.get("content")
        if isinstance(thinking, str) and thinking:
            deltas.append(ReasoningDelta(thinking))
        if isinstance(text, str) and text:
            deltas.append(TextDelta(text))
        calls = message.get("tool_calls")
        # A call comes whole, without an id; the answer's and its number in it make one.
        deltas += [
            self._tools.read(call, answer_id)
            for call in (calls if isinstance(calls, list) else [])
            if isinstance(call, dict)
        ]
        return deltas


def _answer_id(line: Mapping[str, Any]) -> str:
    """What tells this answer from others of a conversation: it was written at another time."""
    created = line.get("created_at")
    return "".join(filter(str.isalnum, created))[:40] if isinstance(created, str) else "0"


def read_usage(line: Mapping[str, Any]) -> TokenUsage | None:
    """The counts in the last line; the prompt's is missing when it was all in the cache."""
    completion = count(line.get("eval_count"))
    if completion is None:
        return None
    return TokenUsage(input=count(line.get("prompt_eval_count")) or 0, output=completion)
