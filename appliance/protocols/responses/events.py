"""The events of one response: numbered, framed, and kept until they are sent."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from appliance.protocols.responses.items import Item
from appliance.protocols.responses.output import COMPLETED, Said

Observe = Callable[[int, bytes], None]  # sequence number, the event as JSON without framing

_TEXT = "response.output_text.delta"
_TEXT_FRAME = b"event: response.output_text.delta\ndata: "
_encode = msgspec.json.Encoder().encode


class EventLog:
    """``observe`` is told of each event before it is handed out.

    A silent one writes nothing: the answer is wanted whole.
    """

    __slots__ = ("_events", "_number", "_observe", "is_silent")

    def __init__(self, observe: Observe | None = None) -> None:
        self.is_silent = False
        self._observe = observe
        self._number = 0
        self._events: list[bytes] = []

    def add(self, kind: str, **fields: object) -> None:
        if self.is_silent:
            return
        number = self._number
        self._number += 1
        text = _encode({"type": kind, **fields, "sequence_number": number})
        if self._observe is not None:
            self._observe(number, text)
        self._events.append(b"event: %s\ndata: %s\n\n" % (kind.encode(), text))

    @staticmethod
    def text_head(place: dict[str, Any]) -> bytes:
        """What all deltas of a text begin with; for :meth:`add_text`."""
        return _TEXT_FRAME + _encode({"type": _TEXT, **place, "logprobs": []})[:-1]

    def add_text(self, head: bytes, text: str) -> None:
        """The hot path: nearly every event of nearly every answer."""
        number = self._number
        self._number = number + 1
        event = b'%s,"sequence_number":%d,"delta":%s}\n\n' % (head, number, _encode(text))
        if self._observe is not None:
            self._observe(number, event[len(_TEXT_FRAME) : -2])
        self._events.append(event)

    def take(self) -> bytes:
        """What was not handed out yet."""
        events = b"".join(self._events)
        self._events.clear()
        return events


class OutputItems:
    """The items of one response in their order; tells when they begin and end."""

    __slots__ = ("_items", "_log", "_shown")

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._items: list[Said] = []
        self._shown = 0

    def __iter__(self) -> Iterator[Said]:
        return iter(self._items)

    @property
    def last(self) -> Said | None:
        return self._items[-1] if self._items else None

    @property
    def shown(self) -> list[Item]:
        return [item.value() for item in self._items if item.index is not None]

    @property
    def kept(self) -> list[Item]:
        return [kept for item in self._items if (kept := item.kept()) is not None]

    def next_index(self) -> int:
        """The place of an item that is shown."""
        self._shown += 1
        return self._shown - 1

    def begin(self, item: Said) -> None:
        self._items.append(item)
        self._tell("added", item)

    def end(self, item: Said, status: str = COMPLETED) -> None:
        item.status = status
        self._tell("done", item)

    def _tell(self, what: str, item: Said) -> None:
        if item.index is not None and not self._log.is_silent:
            kind = f"response.output_item.{what}"
            self._log.add(kind, output_index=item.index, item=item.value())
