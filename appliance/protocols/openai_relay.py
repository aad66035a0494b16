"""What readers of chat completions rely on, made true of those that are passed on.

An answer of a provider that keeps to the API is handed on as it came. What the
official clients stumble over is put right in the event that has it: a call
without its number, id or type, arguments as an object, a role that is missing
or repeated, words of a provider's own for why it ended. Why an answer ended is
held back until the provider says that this was all, so half of one never looks
whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from appliance.model.calls import ReasoningDelta, TextDelta
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import MalformedAnswer, count
from appliance.protocols.openai_chat import usage_object
from appliance.protocols.openai_choices import ToolIndexes, finish_reason, read_parts
from appliance.protocols.text_frames import utf8_size

_WORDS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_ENVELOPE = ("id", "object", "created", "model", "system_fingerprint")
# A stream says one of these after the other, each in hundreds of chunks.
_TEXTS = frozenset({"content", "reasoning_content", "reasoning"})
_MOST_CHOICES = 128  # as many as the API makes
_MOST_HELD = 4 * 1024 * 1024  # bytes


class Piece(NamedTuple):
    """What a chunk says."""

    name: str = ""  # of the only member of a delta that holds a text; "" if it says more
    text: str = ""
    size: int = 0  # bytes of all texts


_NOTHING = Piece()


class _Choice:
    """One choice of an answer, and what has been told of it."""

    __slots__ = ("has_begun", "has_ended", "named", "tools")

    def __init__(self) -> None:
        self.has_begun = False
        self.has_ended = False
        self.tools = ToolIndexes()
        self.named: set[int] = set()  # calls whose name was told


class ChunkRelay:
    """The chunks of one stream, on their way to a caller."""

    __slots__ = ("_choices", "_endings", "_envelope", "_held_bytes", "_last")

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._envelope: dict[str, Any] | None = None  # what all chunks say
        self._endings: list[tuple[bytes, dict[str, Any]]] = []  # held back
        self._last: list[bytes] = []  # chunks that only tell the usage
        self._held_bytes = 0

    @property
    def has_ended(self) -> bool:
        """Whether every choice has said why it ended: nothing more has to come."""
        choices = self._choices
        return bool(choices) and all(each.has_ended for each in choices.values())

    def passed(self, event: bytes, chunk: dict[str, Any]) -> tuple[bytes, Piece]:
        """What of ``event``, which holds ``chunk``, may leave now, and what the chunk says.

        The text in it always may. Raises :exc:`AnswerFailed` for what nobody
        can put right.
        """
        if (piece := self._plain(chunk)) is not None:
            return event, piece
        self._envelope = {name: chunk[name] for name in _ENVELOPE if name in chunk}
        is_right = self._put_right(chunk)
        event = event if is_right else _event(chunk)
        choices = chunk["choices"]
        if not choices:
            if not chunk.get("usage"):
                return event, _NOTHING
            self._last.append(self._held(event))
            return b"", _NOTHING
        ends = any(choice.get("finish_reason") for choice in choices)
        piece = Piece(size=sum(_size(choice["delta"]) for choice in choices))
        says = piece.size > 0 or any(map(_says, choices))
        if ends and says:
            event, chunk, words = self._parted(chunk)
            self._endings.append((self._held(event), chunk))
            return words, piece
        if says or not (ends or self._endings):
            return event, _arguments(choices, piece) if is_right else piece
        self._endings.append((self._held(event), chunk))
        return b"", piece

    def _plain(self, chunk: Mapping[str, Any]) -> Piece | None:
        """One more text of a choice that has begun, and nothing to put right or to note."""
        choices = chunk.get("choices")
        if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
            return None
        index, delta = choices[0].get("index"), choices[0].get("delta")
        if choices[0].get("finish_reason") is not None or type(delta) is not dict:
            return None
        if type(index) is not int or index not in self._choices:
            return None
        said = [item for item in delta.items() if item[1] is not None]
        if len(said) != 1 or said[0][0] not in _TEXTS or type(said[0][1]) is not str:
            return None
        name, text = said[0]
        return Piece(name, text, utf8_size(text))

    def ending(self, usage: TokenUsage | None, *, include_usage: bool) -> bytes:
        """What was held back, and what is missing at the end of a whole answer.

        ``usage`` is what the call is taken to have used: told instead of what
        the provider says if it is an estimate.
        """
        estimate = usage if usage is not None and usage.estimated else None
        events = [
            _event({**chunk, "usage": None}) if estimate and chunk.get("usage") else event
            for event, chunk in self._endings
        ]
        events += self._missing()
        if include_usage:
            events += self._last if estimate is None else [self._usage_chunk(estimate)]
        return b"".join(events)

    def _held(self, event: bytes) -> bytes:
        self._held_bytes += len(event)
        if self._held_bytes > _MOST_HELD:
            raise MalformedAnswer("it went on and on after the end of its answer")
        return event

    def _parted(self, chunk: dict[str, Any]) -> tuple[bytes, dict[str, Any], bytes]:
        """The end of a chunk (as event and chunk) apart from its words."""
        choices = chunk["choices"]
        words = [{**choice, "finish_reason": None} for choice in choices]
        ends = [
            {**choice, "delta": {}, "logprobs": None}
            for choice in choices
            if choice.get("finish_reason")
        ]
        end = {**chunk, "choices": ends}
        return _event(end), end, _event({**chunk, "choices": words, "usage": None})

    def _missing(self) -> Iterator[bytes]:
        """An end for each choice that has none, where anything came at all."""
        if self._envelope is None:
            return
        for index, state in self._choices.items() or [(0, _Choice())]:
            if not state.has_ended:
                delta = {} if state.has_begun else {"role": "assistant", "content": ""}
                reason = state.tools.usual_reason.value
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
                yield _event({**self._envelope, "choices": [choice]})

    def _usage_chunk(self, usage: TokenUsage) -> bytes:
        return _event({**(self._envelope or {}), "choices": [], "usage": usage_object(usage)})

    def _put_right(self, chunk: dict[str, Any]) -> bool:
        """Put ``chunk`` right; return whether it was."""
        given = chunk.get("choices")
        choices = [each for each in given if isinstance(each, dict)] if type(given) is list else []
        is_right = type(given) is list and len(choices) == len(given)
        chunk["choices"] = choices
        answer_id = chunk.get("id")
        answer_id = answer_id if isinstance(answer_id, str) else ""
        for place, choice in enumerate(choices):
            is_right &= _numbered(choice, place)
            state = self._choices.setdefault(choice["index"], _Choice())
            if len(self._choices) > _MOST_CHOICES:
                raise MalformedAnswer(f"it sent more than {_MOST_CHOICES} choices")
            is_right &= _with_delta(choice)
            is_right &= _with_role(choice, state)
            is_right &= _with_text(choice["delta"])
            is_right &= _with_calls(choice["delta"], state, answer_id)
            is_right &= _with_reason(choice, state.tools)
            state.has_ended |= bool(choice.get("finish_reason"))
        return is_right


def put_right(completion: dict[str, Any]) -> bool:
    """Put an answer in one piece right; return whether it was.

    Raises :exc:`MalformedAnswer` for one that says nothing at all.
    """
    answer_id = completion.get("id")
    answer_id = answer_id if isinstance(answer_id, str) else ""
    is_right = True
    for place, choice in enumerate(completion["choices"]):
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise MalformedAnswer("a choice of the answer holds no message")
        message, state = choice["message"], _Choice()
        is_right &= _numbered(choice, place)
        if message.get("role") != "assistant":
            message["role"] = "assistant"
            is_right = False
        is_right &= _with_text(message)
        is_right &= _with_calls(message, state, answer_id, in_one_piece=True)
        is_right &= _with_reason(choice, state.tools)
        if not choice.get("finish_reason"):
            choice["finish_reason"] = state.tools.usual_reason.value
            is_right = False
    return is_right


def _numbered(choice: dict[str, Any], place: int) -> bool:
    given = choice.get("index")
    if type(given) is int and given >= 0:
        return True
    number = count(given)
    choice["index"] = place if number is None else number
    return False


def _with_delta(choice: dict[str, Any]) -> bool:
    if isinstance(choice.get("delta"), dict):
        return True
    message = choice.pop("message", None)
    choice["delta"] = message if isinstance(message, dict) else {}
    return False


def _with_role(choice: dict[str, Any], state: _Choice) -> bool:
    """The role stands in the first delta only: the official clients join doubled strings."""
    delta = choice["delta"]
    if not state.has_begun:
        state.has_begun = True
        if delta.get("role") != "assistant":
            choice["delta"] = {**delta, "role": "assistant"}
            return False
    elif delta.get("role") is not None:
        del delta["role"]
        return False
    return True


def _with_text(said: dict[str, Any]) -> bool:
    """What is said is one text. Some write parts, and what they think into the same list."""
    parts = said.get("content")
    if not isinstance(parts, list):
        return True
    found = list(read_parts(parts))
    said["content"] = "".join(each.text for each in found if isinstance(each, TextDelta))
    thought = "".join(each.text for each in found if isinstance(each, ReasoningDelta))
    if thought and not said.get("reasoning_content"):
        said["reasoning_content"] = thought
    return False


def _with_calls(
    said: dict[str, Any], state: _Choice, answer_id: str, *, in_one_piece: bool = False
) -> bool:
    given = said.get("tool_calls")
    if given is None:
        return True
    if not isinstance(given, list):
        del said["tool_calls"]
        return False
    calls = [call for call in given if isinstance(call, dict)]
    said["tool_calls"] = calls
    is_right = len(calls) == len(given)
    for call in calls:
        piece = state.tools.read(call, answer_id)
        if not in_one_piece:
            is_right &= _set(call, "index", piece.index)
        if piece.id:
            is_right &= _set(call, "id", piece.id)
        elif call.get("id") not in (None, ""):
            del call["id"]
            is_right = False
        if _is_function(call):
            if piece.id or "type" in call:  # null would be joined to the word before it
                is_right &= _set(call, "type", "function")
            is_right &= _with_function(call, state.named, piece.index, piece.arguments)
            if in_one_piece:
                is_right &= _complete(call["function"])
    return is_right


def _is_function(call: Mapping[str, Any]) -> bool:
    """There are other kinds of calls; they are left as they are."""
    kind = call.get("type")
    names_none = not isinstance(kind, str) or kind in {"", "function"}
    return "function" in call or (names_none and "custom" not in call)


def _with_function(call: dict[str, Any], named: set[int], index: int, arguments: str) -> bool:
    function = call.get("function")
    if not isinstance(function, dict):
        call["function"] = {"arguments": arguments}
        return False
    is_right = True
    name = function.get("name")
    if not isinstance(name, str | None) or (name and index in named):
        del function["name"]
        is_right = False
    elif name:
        named.add(index)
    if not isinstance(function.get("arguments"), str | None):
        is_right = _set(function, "arguments", arguments)
    return is_right


def _complete(function: dict[str, Any]) -> bool:
    """A call in one piece has both members, as text."""
    is_right = True
    for name in ("name", "arguments"):
        if not isinstance(function.get(name), str):
            function[name] = ""
            is_right = False
    return is_right


def _with_reason(choice: dict[str, Any], tools: ToolIndexes) -> bool:
    given = choice.get("finish_reason")
    if given is None or (type(given) is str and given in _WORDS):
        return True
    reason = finish_reason(choice, usual=tools.usual_reason)
    choice["finish_reason"] = None if reason is None else reason.value
    return False


def _set(members: dict[str, Any], name: str, value: object) -> bool:
    """Return whether it was so already; True is not 1 here."""
    given = members.get(name)
    if type(given) is type(value) and given == value:
        return True
    members[name] = value
    return False


def _size(delta: Mapping[str, Any]) -> int:
    texts = [value for name, value in delta.items() if name != "role"]
    called = [delta.get("function_call")]
    for call in delta.get("tool_calls") or ():
        called += [call.get("function"), call.get("custom")]
    for each in called:
        if isinstance(each, dict):
            texts += [each.get("name"), each.get("arguments"), each.get("input")]
    return sum(utf8_size(text) for text in texts if isinstance(text, str))


def _arguments(choices: Sequence[Mapping[str, Any]], piece: Piece) -> Piece:
    """``piece`` with what it says if that is more of the arguments of one call."""
    said = [item for item in choices[0]["delta"].items() if item[1] is not None]
    if len(said) == len(choices) == 1 and said[0][0] == "tool_calls" and len(said[0][1]) == 1:
        call = said[0][1][0]
        function = call.get("function")
        if call.keys() == {"index", "function"} and function.keys() == {"arguments"}:
            return Piece("arguments", function["arguments"] or "", piece.size)
    return piece


def _says(choice: Mapping[str, Any]) -> bool:
    return any(choice["delta"].values())


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
