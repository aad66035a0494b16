"""Server-sent events: cuts a byte stream into whole events without decoding them.

A relay must neither split an event nor join its bytes anew, so what comes out
are the very bytes that went in, cut only after blank lines. LF, CRLF and CR
all end a line (WHATWG HTML §9.2.6).
"""

import re
from collections.abc import Iterator

from appliance.protocols.answers import MalformedAnswer

LONGEST_EVENT = 4 * 1024 * 1024
_LONGEST_END = 4  # b"\r\n\r\n"
_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LF = 0x0A
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventSplitter:
    """Hands back whole events, all those of one piece joined, and keeps the rest.

    Raises :exc:`MalformedAnswer` once an unfinished event passes ``limit_bytes``.
    """

    __slots__ = ("_limit", "_rest")

    def __init__(self, *, limit_bytes: int = LONGEST_EVENT) -> None:
        self._limit = limit_bytes
        self._rest = bytearray()

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not whole yet."""
        return bytes(self._rest)

    def feed(self, data: bytes) -> bytes:
        rest = self._rest
        if not rest and b"\r" not in data:
            # Nearly every read of a live stream: one whole event, LF only.
            end = data.rfind(b"\n\n") + 2
            if end == len(data) and end > 1:
                return data
            if end == 1:
                end = 0
            self._keep(data[end:])
            return data[:end]
        # Only what is new, and as much before it as an end may reach back.
        seen = max(0, len(rest) - (_LONGEST_END - 1))
        end = _last_end(bytes(rest[seen:]) + data)
        self._keep(data)
        if not end:
            return b""
        whole = bytes(rest[: seen + end])
        del rest[: seen + end]
        return whole

    def _keep(self, data: bytes) -> None:
        self._rest += data
        # A read may end with the start of a next event; a whole one is never this long.
        if len(self._rest) > self._limit and not _last_end(bytes(self._rest)):
            raise MalformedAnswer(f"an event of more than {self._limit} bytes")


def _last_end(data: bytes) -> int:
    """Return where the last whole event in ``data`` ends; 0 if none does."""
    # A CR that is the last byte may be half a CRLF: the next byte will tell.
    if data.endswith(b"\r"):
        data = data[:-1]
    if b"\r" not in data:
        return max(0, data.rfind(b"\n\n") + 2) if b"\n\n" in data else 0
    end = 0
    for match in _END.finditer(data):
        end = match.end()
    return end


def split(block: bytes) -> list[bytes]:
    """Cut whole events (as :meth:`EventSplitter.feed` returns them) apart, bytes unchanged."""
    if b"\r" not in block:
        return [event + b"\n\n" for event in block.split(b"\n\n")[:-1]]
    events, start = [], 0
    for match in _END.finditer(block):
        events.append(block[start : match.end()])
        start = match.end()
    return events


def payload(event: bytes) -> bytes:
    """Return the data of one event; empty for comments and other events without any."""
    # Nearly always one line of data is the last of the event, or all of it.
    start = event.find(b"data: ")
    is_line = start == 0 or (start > 0 and event[start - 1] == _LF)
    if is_line and event.find(b"\n", start) >= len(event) - 2 and b"\r" not in event:
        return event[start + 6 : -2]
    return b"\n".join(
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in _LINE_END.split(event)
        if line.startswith(b"data:")
    )


def payloads(block: bytes) -> Iterator[bytes]:
    """The data of each event of ``block`` that carries any."""
    for event in split(block):
        if data := payload(event):
            yield data
