"""OpenAI chat completions as we write them: to a provider, and to a caller.

A request is put together anew at its top level only; what stands in the
members is the caller's business and is passed on as text. An answer in another
dialect is written as a caller of OpenAI's expects it, from deltas.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from appliance.model.calls import (
    Annotation,
    Aside,
    Delta,
    Dialect,
    Finished,
    FinishReason,
    LogprobsDelta,
    ModelCall,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.model.usage import TokenUsage

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]

_LIMIT_FIELDS = ("max_completion_tokens", "max_tokens")  # the first wins where both are given
_OURS = frozenset({"model", "stream", "stream_options", *_LIMIT_FIELDS})
_AFTER_DELTA = b',"logprobs":null,"finish_reason":null}]}\n\n'
_AFTER_TEXT = b"}" + _AFTER_DELTA
_TEXT_OF = {"function": "arguments", "custom": "input"}  # by kind of a call


def encode_request(call: ModelCall, *, max_tokens_field: MaxTokensField | None = None) -> bytes:
    """Return the request body for ``call``: the caller's values untouched but for ours.

    Usage is always asked for in a stream: without it there is nothing to bill.
    ``max_tokens_field`` is the name this provider wants for the limit; None
    keeps the caller's.
    """
    body = call.body
    members = [b'{"model":' + msgspec.json.encode(call.model)]
    members += [_key(key) + value for key, value in body.items() if key not in _OURS]
    if call.stream:
        members.append(b'"stream":true,"stream_options":' + _stream_options(body))
    given = next((name for name in _LIMIT_FIELDS if body.get(name, b"null") != b"null"), None)
    if call.output_limit is not None:
        members.append(_key(max_tokens_field or given or "max_tokens") + b"%d" % call.output_limit)
    elif given is not None:
        members.append(_key(max_tokens_field or given) + body[given])
    return b",".join(members) + b"}"


def _key(name: str) -> bytes:
    return msgspec.json.encode(name) + b":"


def _stream_options(body: Mapping[str, bytes]) -> bytes:
    if "stream_options" not in body:
        return b'{"include_usage":true}'
    options = msgspec.json.decode(body["stream_options"])
    given = options if isinstance(options, dict) else {}
    return msgspec.json.encode({**given, "include_usage": True})


class ChunkEncoder:
    """Writes one answer for a caller, as ``chat.completion.chunk`` events or as one object.

    ``[DONE]`` is not written here: it follows only when everything is settled.
    """

    __slots__ = ("_blocks", "_custom", "_fields", "_head", "_of_functions", "_text", "_thought")

    def __init__(self, *, id: str, created: int, model: str, of_functions: bool = False) -> None:  # noqa: A002 - its name on the wire
        """``of_functions``: the caller asked with ``functions``, before there were tools."""
        self._fields = {"id": id, "created": created, "model": model}
        self._of_functions = of_functions
        self._custom: set[int] = set()  # calls of custom tools, by index
        self._thought: list[str] = []
        self._blocks = 0
        fields = {"object": "chat.completion.chunk", **self._fields}
        self._head = b"data: " + msgspec.json.encode(fields)[:-1] + b',"choices":['
        self._text = self._head + b'{"index":0,"delta":{"content":'

    def start(self) -> bytes:
        """The first chunk. Only it names the role: the official client joins doubled strings."""
        return self._said(b'{"role":"assistant","content":""}')

    def delta(self, delta: Delta) -> bytes:
        match delta:
            case TextDelta(text):
                # The hot path: nearly every delta of nearly every answer.
                return self._text + msgspec.json.encode(text) + _AFTER_TEXT
            case ReasoningDelta(text):
                self._thought.append(text)
                return self._said(b'{"reasoning_content":' + msgspec.json.encode(text) + b"}")
            case ToolCallDelta():
                return self._called(delta)
            case RefusalDelta(text):
                return self._said(b'{"refusal":' + msgspec.json.encode(text) + b"}")
            case LogprobsDelta(tokens):
                return self._likely(tokens)
            case Annotation(value):
                annotation = msgspec.json.encode(nested(value))
                return self._said(b'{"annotations":[' + annotation + b"]}")
            case Aside():
                return b""  # there is no word for it
            case ReasoningSeal():
                return self._sealed(delta)
            case Finished(reason):
                end = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"%s"}]}\n\n'
                return self._head + end % self._reason(reason).encode()

    def usage(self, usage: TokenUsage) -> bytes:
        """The last chunk, for a caller who asked for usage: it alone has no choices."""
        return self._head + b'],"usage":' + msgspec.json.encode(usage_object(usage)) + b"}\n\n"

    def completion(
        self,
        *,
        message: dict[str, Any],
        reason: FinishReason,
        usage: TokenUsage | None,
        logprobs: Sequence[Mapping[str, Any]] = (),
    ) -> bytes:
        """The whole answer as one ``chat.completion``."""
        if self._of_functions and (calls := message.pop("tool_calls", None)):
            message["function_call"] = _as_function(calls[0])
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
            "finish_reason": self._reason(reason),
        }
        completion = {"object": "chat.completion", **self._fields, "choices": [choice]}
        if usage is not None:
            completion["usage"] = usage_object(usage)
        return msgspec.json.encode(completion)

    def _reason(self, reason: FinishReason) -> str:
        if self._of_functions and reason is FinishReason.TOOL_CALLS:
            return "function_call"
        return reason.value

    def _called(self, delta: ToolCallDelta) -> bytes:
        if delta.is_custom and not self._of_functions:
            self._custom.add(delta.index)
        piece = _tool_piece(delta, is_custom=delta.index in self._custom)
        if not self._of_functions:
            return self._said(msgspec.json.encode({"tool_calls": [piece]}))
        if delta.index > 0:
            return b""  # there is room for one call, and one at a time was asked for
        return self._said(msgspec.json.encode({"function_call": piece["function"]}))

    def _sealed(self, seal: ReasoningSeal) -> bytes:
        """The whole block, numbered: the official client joins what lists hold by ``index``."""
        block = {"index": self._blocks, **thinking_block("".join(self._thought), seal)}
        self._blocks += 1
        if not seal.hidden:
            self._thought.clear()
        return self._said(msgspec.json.encode({"thinking_blocks": [block]}))

    def _likely(self, tokens: Sequence[Mapping[str, Any]]) -> bytes:
        choice = {
            "index": 0,
            "delta": {},
            "logprobs": {"content": tokens, "refusal": None},
            "finish_reason": None,
        }
        return self._head + msgspec.json.encode(choice) + b"]}\n\n"

    def _said(self, delta: bytes) -> bytes:
        return self._head + b'{"index":0,"delta":' + delta + _AFTER_DELTA


def _tool_piece(delta: ToolCallDelta, *, is_custom: bool) -> dict[str, Any]:
    """``id``, ``type`` and ``name`` belong to the first piece of a call only."""
    kind = "custom" if is_custom else "function"
    text = {_TEXT_OF[kind]: delta.arguments}
    if not delta.id:
        return {"index": delta.index, kind: text}
    return {"index": delta.index, "id": delta.id, "type": kind, kind: {"name": delta.name, **text}}


def _as_function(call: Mapping[str, Any]) -> dict[str, Any]:
    """What is called, for who knows no custom tools."""
    called = call[call["type"]]
    return {"name": called["name"], "arguments": called[_TEXT_OF[call["type"]]]}


def thinking_block(text: str, seal: ReasoningSeal) -> dict[str, str]:
    """A thought with its seal, to be sent back as it is."""
    if seal.hidden:
        return {"type": "redacted_thinking", "data": seal.hidden}
    return {"type": "thinking", "thinking": text, "signature": seal.signature}


def nested(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """An annotation as chat completions have it: its members below the name of its type."""
    kind = annotation.get("type", "")
    return {"type": kind, kind: {name: each for name, each in annotation.items() if name != "type"}}


class AnswerBuilder:
    """Collects the deltas of one answer, to be written as one object in the end."""

    __slots__ = (
        "_annotations",
        "_blocks",
        "_calls",
        "_logprobs",
        "_reasoning",
        "_refusal",
        "_sealed",
        "_text",
        "finished",
    )

    def __init__(self) -> None:
        self.finished: Finished | None = None
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._sealed = 0  # so many pieces of the reasoning stand in blocks
        self._blocks: list[dict[str, str]] = []
        self._logprobs: list[Mapping[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._calls: dict[int, list[ToolCallDelta]] = {}

    def add(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            match delta:
                case TextDelta(text):
                    self._text.append(text)
                case ReasoningDelta(text):
                    self._reasoning.append(text)
                case ReasoningSeal():
                    self._seal(delta)
                case RefusalDelta(text):
                    self._refusal.append(text)
                case LogprobsDelta(tokens):
                    self._logprobs += tokens
                case Annotation(value):
                    self._annotations.append(nested(value))
                case ToolCallDelta():
                    self._calls.setdefault(delta.index, []).append(delta)
                case Finished():
                    self.finished = delta

    def encode(self, encoder: ChunkEncoder, usage: TokenUsage | None = None) -> bytes:
        """Return the ``chat.completion``; the answer must have finished.

        ``usage`` replaces what the provider said at the end.
        """
        finished = self.finished
        if finished is None:
            raise ValueError("the answer has not finished")
        return encoder.completion(
            message=self._message(),
            reason=finished.reason,
            usage=usage or finished.usage,
            logprobs=self._logprobs,
        )

    def _seal(self, seal: ReasoningSeal) -> None:
        self._blocks.append(thinking_block("".join(self._reasoning[self._sealed :]), seal))
        if not seal.hidden:
            self._sealed = len(self._reasoning)

    def _message(self) -> dict[str, Any]:
        text, refusal = "".join(self._text), "".join(self._refusal)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not (self._calls or refusal) else None,
            "refusal": refusal or None,
        }
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._blocks:
            message["thinking_blocks"] = self._blocks
        if self._annotations:
            message["annotations"] = self._annotations
        if self._calls:
            message["tool_calls"] = [_whole_call(self._calls[i]) for i in sorted(self._calls)]
        return message


class ChatWriter:
    """Writes an answer as a chat completion; implements ``answers.AnswerWriter``."""

    __slots__ = ("_created", "_encoder", "_id", "_of_functions", "_whole", "include_usage")

    dialect = Dialect.OPENAI

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - its name on the wire
        created: int,
        include_usage: bool = False,
        of_functions: bool = False,
    ) -> None:
        """``of_functions``: the request has ``functions``, so calls are written the old way."""
        self.include_usage = include_usage
        self._of_functions = of_functions
        self._id = id
        self._created = created
        self._whole = AnswerBuilder()
        self._encoder: ChunkEncoder | None = None

    def start(self, model: str) -> bytes:
        self._encoder = self._made(model)
        return self._encoder.start()

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        if self._encoder is None:
            raise ValueError("the answer has not begun")
        return b"".join(map(self._encoder.delta, deltas))

    def end(self, usage: TokenUsage | None) -> bytes:
        if self._encoder is None or usage is None or not self.include_usage:
            return b""
        return self._encoder.usage(usage)

    def tail(self) -> bytes:
        return b"data: [DONE]\n\n"

    def collect(self, deltas: Sequence[Delta]) -> None:
        self._whole.add(deltas)

    def whole(self, model: str, usage: TokenUsage | None) -> bytes:
        return self._whole.encode(self._made(model), usage)

    def _made(self, model: str) -> ChunkEncoder:
        return ChunkEncoder(
            id=self._id, created=self._created, model=model, of_functions=self._of_functions
        )


def _whole_call(pieces: Sequence[ToolCallDelta]) -> dict[str, Any]:
    kind = "custom" if any(piece.is_custom for piece in pieces) else "function"
    return {
        "id": next((piece.id for piece in pieces if piece.id), ""),
        "type": kind,
        kind: {
            "name": next((piece.name for piece in pieces if piece.name), ""),
            _TEXT_OF[kind]: "".join(piece.arguments for piece in pieces),
        },
    }


def usage_object(usage: TokenUsage) -> dict[str, Any]:
    """``usage`` as OpenAI writes it: the prompt with the cache, the completion with reasoning."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
