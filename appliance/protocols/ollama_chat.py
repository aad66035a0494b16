"""Ollama's own chat API (``POST /api/chat``): JSON objects, one a line.

Reference: Ollama's ``docs/api.md``, "Generate a chat completion".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import (
    Delta,
    Dialect,
    Finished,
    FinishReason,
    ModelCall,
    ReasoningDelta,
    TextDelta,
)
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import (
    AnswerFailed,
    ErrorReported,
    MalformedAnswer,
    count,
    decode_object,
    read_error,
)
from appliance.protocols.openai_answers import text_bytes
from appliance.protocols.openai_choices import ToolIndexes
from appliance.protocols.translation import translated

_LONGEST_LINE = 4 * 1024 * 1024

_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


def encode_request(call: ModelCall) -> bytes:
    """Return the body of a request for a stream; raise :exc:`InvalidRequest` naming the field."""
    asked = translated(call, Dialect.OLLAMA)
    body = dict(asked.body)
    if asked.output_limit is not None:
        options = msgspec.json.decode(body.get("options", b"{}"))
        body["options"] = msgspec.json.encode({**options, "num_predict": asked.output_limit})
    members = [b'{"model":' + msgspec.json.encode(call.model), b'"stream":true']
    members += [msgspec.json.encode(name) + b":" + value for name, value in body.items()]
    return b",".join(members) + b"}"


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
