"""What the choices of OpenAI's chat completions say, read defensively.

What calls itself compatible sends calls without an index or an id, arguments
as an object, an answer as parts, and words of its own for why it ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import (
    Annotation,
    Delta,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.protocols.answers import (
    LONGEST_ANNOTATION,
    MOST_ANNOTATIONS,
    ErrorBody,
    ErrorReported,
    count,
)

_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_call": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
}
# The provider gave up amid the answer, and has no better way to say so.
_FAILURES = frozenset({"error", "abort"})


def finish_reason(choice: Mapping[str, Any], *, usual: FinishReason) -> FinishReason | None:
    """Why the choice ended, None while it has not; ``usual`` stands for words nobody knows.

    Raises :exc:`ErrorReported` for an answer that the provider gave up.
    """
    given = choice.get("finish_reason")
    if not isinstance(given, str) or not given:
        return None
    word = given.lower()
    if word in _FAILURES:
        raise ErrorReported(ErrorBody(type=word))
    return _REASONS.get(word, usual)


class ToolIndexes:
    """Numbers the tool calls of one answer, also where the provider does not.

    Some send no ``index`` or the same one for all, some no ``id``, some a whole
    call in one piece.
    """

    __slots__ = ("_by_id", "_by_index", "_ids", "_last")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}  # theirs → ours, of the latest call
        self._ids: list[str] = []  # by our number
        self._last = -1

    @property
    def usual_reason(self) -> FinishReason:
        """Why an answer ended that did not say so."""
        return FinishReason.TOOL_CALLS if self._last >= 0 else FinishReason.STOP

    def read(self, piece: Mapping[str, Any], answer_id: str) -> ToolCallDelta:
        function, custom = piece.get("function"), piece.get("custom")
        is_custom = isinstance(custom, dict) and not isinstance(function, dict)
        said = custom if is_custom else function
        said = said if isinstance(said, dict) else {}
        name = said.get("name")
        given_id = piece.get("id")
        given_id = given_id if isinstance(given_id, str) else ""
        given = count(piece.get("index"))
        index = self._index(given, given_id, starts=bool(name))
        call_id = ""
        if is_new := index > self._last:
            call_id = given_id or f"call_{answer_id}_{index}"
            self._by_id[call_id] = self._last = index
            self._ids.append(call_id)
        if given is not None:
            self._by_index[given] = index
        return ToolCallDelta(
            index=index,
            id=call_id,
            name=name if is_new and isinstance(name, str) else "",
            arguments=_arguments(said.get("input" if is_custom else "arguments")),
            is_custom=is_new and is_custom,
        )

    def _index(self, given: int | None, call_id: str, *, starts: bool) -> int:
        known = None if given is None else self._by_index.get(given)
        if known is not None:
            # Some number each call 0: who names another one begins it.
            is_other = starts and call_id not in {"", self._ids[known]}
            return self._by_id.get(call_id, self._last + 1) if is_other else known
        if given is None and call_id in self._by_id:
            return self._by_id[call_id]
        return self._last + 1 if call_id or starts or self._last < 0 else self._last


def _arguments(value: object) -> str:
    """Arguments as JSON text; some providers send the object itself."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else ""


class ChoiceReader:
    """Reads what the first choice of each chunk (or of a whole completion) says."""

    __slots__ = ("_annotations", "_thinks_aloud", "_tools")

    def __init__(self) -> None:
        self._tools = ToolIndexes()
        self._thinks_aloud = False
        self._annotations = 0

    @property
    def usual_reason(self) -> FinishReason:
        return self._tools.usual_reason

    def deltas(self, chunk: Mapping[str, Any]) -> list[Delta]:
        choice = first_choice(chunk)
        said = choice.get("delta") or choice.get("message")
        deltas: list[Delta] = []
        if isinstance(said, dict):
            text = said.get("content")
            if len(said) == 1 and isinstance(text, str):  # nearly always
                if text:
                    deltas.append(TextDelta(text))
            else:
                deltas += self._thoughts(said)
                deltas += _words(said)
                deltas += self._citations(said.get("annotations"))
                deltas += self._calls(said, chunk.get("id"))
        if (logprobs := choice.get("logprobs")) is not None:
            deltas += _likely(logprobs)
        return deltas

    def _calls(self, said: Mapping[str, Any], answer_id: object) -> Iterator[Delta]:
        pieces = said.get("tool_calls")
        if not pieces and isinstance(function := said.get("function_call"), dict):
            # Who was asked with ``functions`` makes one call, and gives it no id.
            pieces = [{"index": 0, "function": function}]
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict):
                yield self._tools.read(piece, answer_id if isinstance(answer_id, str) else "")

    def _thoughts(self, said: Mapping[str, Any]) -> Iterator[Delta]:
        """Thoughts as text, and as blocks with a seal that hold the same text once more."""
        reasoning = said.get("reasoning_content") or said.get("reasoning")
        if isinstance(reasoning, str) and reasoning:
            self._thinks_aloud = True
            yield ReasoningDelta(reasoning)
        blocks = said.get("thinking_blocks") or said.get("reasoning_details")
        for block in blocks if isinstance(blocks, list) else []:
            match block:
                case {"format": str(whose)} if not whose.startswith("anthropic"):
                    continue  # a seal that nobody else reads
                case {"type": "redacted_thinking" | "reasoning.encrypted", "data": str(hidden)}:
                    if hidden:
                        yield ReasoningSeal(hidden=hidden)
                case {"type": "thinking" | "reasoning.text", **rest}:
                    text = rest.get("thinking") or rest.get("text")
                    if isinstance(text, str) and text and not self._thinks_aloud:
                        yield ReasoningDelta(text)
                    signature = rest.get("signature")
                    if isinstance(signature, str) and signature:
                        yield ReasoningSeal(signature=signature)

    def _citations(self, listed: object) -> Iterator[Delta]:
        for each in listed if isinstance(listed, list) else []:
            match each:
                case {"type": str(kind), **rest} if isinstance(cited := rest.get(kind), dict):
                    flat = {"type": kind, **cited}
                    self._annotations += 1
                    is_short = len(msgspec.json.encode(flat)) <= LONGEST_ANNOTATION
                    if is_short and self._annotations <= MOST_ANNOTATIONS:
                        yield Annotation(flat)


def _words(said: Mapping[str, Any]) -> Iterator[Delta]:
    content = said.get("content")
    if isinstance(content, list):
        yield from read_parts(content)
    elif isinstance(content, str) and content:
        yield TextDelta(content)
    refusal = said.get("refusal")
    if isinstance(refusal, str) and refusal:
        yield RefusalDelta(refusal)


def read_parts(parts: Sequence[object]) -> Iterator[TextDelta | ReasoningDelta]:
    """What an answer says that is written as parts, like a question; some think in them, too."""
    for part in parts:
        match part:
            case {"type": "thinking", "thinking": list(thoughts)}:
                yield from map(ReasoningDelta, _texts(thoughts))
            case {"type": "thinking", "thinking": str(text)} if text:
                yield ReasoningDelta(text)
            case _:
                yield from map(TextDelta, _texts([part]))


def _texts(parts: Sequence[object]) -> Iterator[str]:
    for part in parts:
        match part:
            case {"text": str(text)} if text:
                yield text


def _likely(logprobs: object) -> Iterator[Delta]:
    match logprobs:
        case {"content": [_, *_] as tokens} if all(isinstance(each, dict) for each in tokens):
            yield LogprobsDelta(tokens)


def first_choice(chunk: Mapping[str, Any]) -> dict[str, Any]:
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}
