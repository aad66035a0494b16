"""The items of a provider's answer, and what of them was told already.

What was not streamed piece by piece is taken from the items once they are
whole, and what was left out of those from the list that the answer ends with:
some servers send few events. Nothing is told twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import (
    Annotation,
    Delta,
    Dialect,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from appliance.protocols.answers import LONGEST_ANNOTATION, MOST_ANNOTATIONS, MalformedAnswer
from appliance.protocols.responses import seals
from appliance.protocols.responses.asides import (
    HOSTED,
    HostedCall,
    NewMessage,
    NewPart,
)

Json = Mapping[str, Any]

_PHASES = frozenset({"commentary", "final_answer"})
_CALLS = frozenset({"function_call", "custom_tool_call"})
_MOST_HOSTED = 64 * 1024 * 1024  # bytes about tools that the provider runs, in one answer
# Of an event: what is written anew, or stands for itself.
_REWRITTEN = frozenset({"type", "item_id", "output_index", "sequence_number"})


class AnswerItems:
    """What has been told of one answer, by item: each thing is told once."""

    def __init__(self) -> None:
        self._told: set[object] = set()  # items of which pieces came
        self._seen: dict[object, str] = {}  # items that were spoken of, with their kinds
        self._names: dict[str, object] = {}  # their keys, by all ids that they have
        self._whole: set[object] = set()  # items that have ended
        self._calls: dict[object, int] = {}
        self._messages: set[object] = set()
        self._part_kinds: dict[object, object] = {}  # of the latest part, by item
        self._annotated: dict[tuple[object, int], int] = {}  # by item and part: so many are told
        self._annotations = 0
        self._hosted: set[object] = set()  # tools that the provider runs, and that are under way
        self._hosted_bytes = 0

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def note(self, key: object, kind: str, event: Json) -> None:
        """A piece of the item at ``key`` has come with ``event``."""
        if key not in self._told:
            self._told.add(key)
            self._see(key, kind, event.get("item_id"))

    def _see(self, key: object, kind: object, *names: object) -> None:
        if isinstance(kind, str):
            self._seen.setdefault(key, _family(kind))
        for name in names:
            if isinstance(name, str) and name:
                self._names.setdefault(name, key)

    def say(self, key: object, delta: Delta) -> Iterator[Delta]:
        self._told.add(key)
        yield delta

    def begin_call(self, key: object, item: Json) -> Iterator[Delta]:
        if key in self._calls:
            return
        number = self._calls[key] = len(self._calls)
        call_id, name = text_in(item.get("call_id")), text_in(item.get("name"))
        is_custom = item.get("type") == "custom_tool_call"
        yield ToolCallDelta(number, id=call_id or f"call_{number}", name=name, is_custom=is_custom)

    def argue(self, key: object, arguments: str) -> Iterator[Delta]:
        if key not in self._calls:
            raise MalformedAnswer("it sent arguments for no tool call")
        if arguments:
            yield from self.say(key, ToolCallDelta(self._calls[key], arguments=arguments))

    def begin_item(self, key: object, item: Json) -> Iterator[Delta]:
        self._see(key, item.get("type"), item.get("id"), item.get("call_id"))
        match item.get("type"):
            case "function_call" | "custom_tool_call":
                yield from self.begin_call(key, item)
            case "message":
                yield from self._begin_message(key, item)
            case str(kind) if kind in HOSTED and key not in self._hosted:
                self._hosted.add(key)
                yield self._hosted_call(HostedCall(key=key, item=item))

    def _begin_message(self, key: object, item: Json) -> Iterator[Delta]:
        """Only where it tells something: a first message without a phase is as any other's."""
        if key in self._messages:
            return
        phase = text_in(item.get("phase"))
        phase = phase if phase in _PHASES else ""
        if phase or self._messages:
            yield NewMessage(phase=phase)
        self._messages.add(key)

    def end_item(self, key: object, item: Json) -> Iterator[Delta]:
        """What of a whole item was not told before."""
        self._see(key, item.get("type"), item.get("id"), item.get("call_id"))
        self._whole.add(key)
        is_new = key not in self._told
        match item.get("type"):
            case "function_call":
                yield from self.begin_call(key, item)
                if is_new:
                    yield from self.argue(key, text_in(item.get("arguments")))
            case "custom_tool_call":
                yield from self.begin_call(key, item)
                if is_new:
                    yield from self.argue(key, text_in(item.get("input")))
            case "message":
                yield from self._end_message(key, item, is_new=is_new)
            case str(kind) if kind in HOSTED:
                self._hosted.discard(key)
                yield self._hosted_call(HostedCall(key=key, item=item, is_done=True))
            case "reasoning":
                if is_new:
                    texts = objects_in(item.get("summary")) or objects_in(item.get("content"))
                    if text := "\n\n".join(text_in(part.get("text")) for part in texts):
                        yield from self.say(key, ReasoningDelta(text))
                yield from _seal(text_in(item.get("encrypted_content")))

    def rest(self, items: Sequence[Json]) -> Iterator[Delta]:
        """What was not told before of the items that the whole answer has."""
        self._messages |= {key for key, kind in self._seen.items() if kind == "message"}
        for key, item in self._keyed(items):
            if key not in self._whole:
                yield from self.end_item(key, item)

    def _keyed(self, items: Sequence[Json]) -> list[tuple[object, Json]]:
        """The items with the keys that they were told by, or with new ones.

        An item is the one that has its id, else the one of its kind at its place, else
        the next of its kind that is left: some servers count anew at the end, or make
        new ids, and what was said must not be said again.
        """
        left = dict(self._seen)
        found: dict[int, object] = {}
        for number, item in enumerate(items):
            for name in (text_in(item.get("id")), text_in(item.get("call_id"))):
                if number not in found and (key := self._names.get(name)) in left:
                    found[number] = key
                    del left[key]
        kinds = [_family(text_in(item.get("type"))) for item in items]
        for number, kind in enumerate(kinds):
            if number not in found and left.get(number) == kind:
                found[number] = number
                del left[number]
        others: dict[str, list[object]] = {}
        for key, kind in reversed(left.items()):
            others.setdefault(kind, []).append(key)
        for number, kind in enumerate(kinds):
            if number not in found:
                same = others.get(kind)
                found[number] = same.pop() if same else ("at the end", number)
        return [(found[number], item) for number, item in enumerate(items)]

    def _end_message(self, key: object, item: Json, *, is_new: bool) -> Iterator[Delta]:
        parts = objects_in(item.get("content"))
        if is_new:
            yield from self._begin_message(key, item)
            self._part_kinds.pop(key, None)  # one that was begun and said nothing is this one
            for number, part in enumerate(parts):
                yield from self.begin_part(key, part)
                yield from self._part(key, part)
                yield from self.annotate(key, number, part.get("annotations"))
        elif parts:
            # Those of a part before it would be taken for its own.
            last = len(parts) - 1
            yield from self.annotate(key, last, parts[last].get("annotations"))

    def begin_part(self, key: object, part: Json) -> Iterator[Delta]:
        """Only what follows its like has to be told from it."""
        kind = part.get("type")
        if self._part_kinds.get(key) == kind:
            yield NewPart()
        self._part_kinds[key] = kind

    def annotate(self, key: object, part: int, listed: object) -> Iterator[Delta]:
        """Those of the annotations of a whole part that were not told before."""
        for annotation in objects_in(listed)[self._annotated.get((key, part), 0) :]:
            yield from self.add_annotation(key, part, annotation)

    def add_annotation(self, key: object, part: int, annotation: Json) -> Iterator[Delta]:
        self._annotated[key, part] = self._annotated.get((key, part), 0) + 1
        self._annotations += 1
        if self._annotations > MOST_ANNOTATIONS:
            raise MalformedAnswer("it has more annotations than an answer may hold")
        if len(msgspec.json.encode(annotation)) <= LONGEST_ANNOTATION:
            yield Annotation(value=annotation)

    def progress(self, key: object, event: Json) -> Iterator[Delta]:
        """How a tool that the provider runs is getting on."""
        if key in self._hosted:
            own = {name: value for name, value in event.items() if name not in _REWRITTEN}
            own["type"] = event["type"]
            yield self._hosted_call(HostedCall(key=key, event=own))

    def _hosted_call(self, call: HostedCall) -> HostedCall:
        self._hosted_bytes += len(msgspec.json.encode(call.item or call.event))
        if self._hosted_bytes > _MOST_HOSTED:
            raise MalformedAnswer("its tools found more than an answer may hold")
        return call

    def _part(self, key: object, part: Json) -> Iterator[Delta]:
        match part:
            case {"type": "output_text", "text": str(text)} if text:
                yield from self.say(key, TextDelta(text))
                if tokens := objects_in(part.get("logprobs")):
                    yield LogprobsDelta(tokens)
            case {"type": "refusal", "refusal": str(text)} if text:
                yield from self.say(key, RefusalDelta(text))


def _seal(sealed: str) -> Iterator[Delta]:
    """The provider may be a gateway such as this; then it says whose the thought is."""
    if not sealed:
        return
    match seals.unseal(sealed):
        case {"signature": str(signature)}:
            yield ReasoningSeal(signature=signature)
        case {"hidden": str(hidden), "dialect": str(whose)} if whose != Dialect.RESPONSES:
            yield ReasoningSeal(hidden=hidden)
        case {}:
            yield ReasoningSeal(hidden=seals.seal_hidden(sealed, Dialect.RESPONSES))


def _family(kind: str) -> str:
    return "call" if kind in _CALLS else kind


def text_in(value: object) -> str:
    return value if isinstance(value, str) else ""


def objects_in(value: object) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else []
    return [each for each in found if isinstance(each, dict)]
