"""Reads one HTTP/1.1 response: a plain head and the body by itself, any other head with h11.

The head is where the traps are (folded lines, doubled lengths), so a library
reads every head that is not of the plainest form. That form, which is what
providers send, takes 5 µs by hand and 130 µs with h11, most of it for making a
connection object that has to see a request go out first.

The body of a stream comes as one chunk an event, for which h11 takes 6 µs
each, more than all the rest of a relay together; RFC 9112 §7.1 by hand takes a
sixth of that. The tests hold the two against each other.
"""

import re
from typing import Final

import h11

from appliance.protocols.answers import MalformedAnswer

Headers = list[tuple[bytes, bytes]]

LONGEST_HEAD = 64 * 1024
_LONGEST_LINE = 4096  # of a chunk's size and extensions
_LONGEST_TRAILER = 16 * 1024
_NO_BODY = frozenset({204, 304})
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")

# A head whose every line is a name, a colon and a value without control
# characters. What is not that, or frames the body twice, is left to h11.
_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n){1,100})\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

# h11 reads no response before it has seen a request go out. What it would
# write is not used: our requests are put together faster by hand.
_REQUEST: Final = h11.Request(method="POST", target="/", headers=[("host", "-")])
_REQUEST_END: Final = h11.EndOfMessage()


class ResponseReader:
    """``receive`` what the connection says, ``b""`` for its end; ``take`` what came of the body.

    Raises :exc:`MalformedAnswer` for what is not HTTP and for an end too early.
    """

    __slots__ = (
        "_body",
        "_h11",
        "_has_body",
        "complete",
        "headers",
        "received",
        "reusable",
        "status",
    )

    def __init__(self, *, has_body: bool = True) -> None:
        """``has_body`` is False for the answer to a HEAD."""
        self._h11: h11.Connection | None = None  # once the head turns out not to be plain
        self._has_body = has_body
        self._body: _Counted | _Chunked | _UntilClosed | None = None
        self.status = 0  # 0: the head is not complete yet
        self.headers: Headers = []  # names in lower case
        self.received = False  # whether anything has come at all
        self.complete = False
        self.reusable = False  # whether the connection is good for another request; once complete

    def receive(self, data: bytes) -> None:
        self.received = self.received or bool(data)
        if self._body is None:
            self._receive_head(data)
        elif self.complete:
            self.reusable = False  # nobody asked for more: the two sides disagree
        elif data:
            self._body.receive(data)
            self._note_end()
        else:
            self._body.close()
            self._note_end()

    def take(self) -> bytes:
        """What has come of the body since the last call."""
        return b"" if self._body is None else self._body.take()

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    def _receive_head(self, data: bytes) -> None:
        if not data:
            raise MalformedAnswer("the connection closed before the answer")
        if self._h11 is not None or not self._receive_plain_head(data):
            self._receive_any_head(data)

    def _receive_plain_head(self, data: bytes) -> bool:
        """Read a whole, plain head; return whether ``data`` begins with one."""
        head = _PLAIN_HEAD.match(data)
        if head is None:
            return False
        headers = [_header(line) for line in head[2].split(b"\r\n")[:-1]]
        framing = [value for name, value in headers if name in _FRAMING]
        if len(framing) != 1 or not (_LENGTH.fullmatch(framing[0]) or framing[0] == b"chunked"):
            return False
        self._begin_body(int(head[1]), headers, b"1.1", data[head.end() :])
        return True

    def _receive_any_head(self, data: bytes) -> None:
        if self._h11 is None:
            self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
            self._h11.send(_REQUEST)
            self._h11.send(_REQUEST_END)
        try:
            self._h11.receive_data(data)
            event = self._h11.next_event()
            while type(event) is h11.InformationalResponse:
                event = self._h11.next_event()
        except h11.RemoteProtocolError:
            raise MalformedAnswer("what it sent is not HTTP/1.1") from None
        if type(event) is h11.Response:  # otherwise more is needed
            headers = list(event.headers)
            rest = self._h11.trailing_data[0]
            self._begin_body(event.status_code, headers, event.http_version, rest)

    def _begin_body(self, status: int, headers: Headers, version: bytes, data: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = self._framing()
        self.reusable = not (
            version < b"1.1"
            or isinstance(self._body, _UntilClosed)
            or any(b"close" in value.lower() for key, value in headers if key == b"connection")
        )
        self._body.receive(data)
        self._note_end()

    def _framing(self) -> "_Counted | _Chunked | _UntilClosed":
        """RFC 9112 §6.3; h11 has refused doubled and unknown framing already."""
        if not self._has_body or self.status in _NO_BODY:
            return _Counted(0)
        if self.header(b"transfer-encoding") is not None:
            return _Chunked()
        if (length := self.header(b"content-length")) is not None:
            return _Counted(int(length))
        return _UntilClosed()

    def _note_end(self) -> None:
        if self._body is not None and self._body.complete:
            self.complete = True
            # Bytes after the end belong to no answer of ours.
            self.reusable = self.reusable and not self._body.excess


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


_ENDED_EARLY = "the connection closed in the middle of the answer"


class _Counted:
    """A body with a content-length."""

    __slots__ = ("_left", "_pieces", "complete", "excess")

    def __init__(self, length: int) -> None:
        self._left = length
        self._pieces: list[bytes] = []
        self.complete = length == 0
        self.excess = False

    def receive(self, data: bytes) -> None:
        self.excess = len(data) > self._left
        if piece := data[: self._left]:
            self._pieces.append(piece)
            self._left -= len(piece)
            self.complete = self._left == 0

    def close(self) -> None:
        raise MalformedAnswer(_ENDED_EARLY)

    def take(self) -> bytes:
        return _joined(self._pieces)


class _UntilClosed:
    """A body that ends with the connection."""

    __slots__ = ("_pieces", "complete", "excess")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.complete = False
        self.excess = False

    def receive(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)

    def close(self) -> None:
        self.complete = True

    def take(self) -> bytes:
        return _joined(self._pieces)


class _Chunked:
    """A chunked body. What is kept between reads is less than a line."""

    __slots__ = ("_in_trailer", "_left", "_pieces", "_rest", "complete", "excess")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # bytes to come of the chunk begun, its line end included
        self._in_trailer = False
        self._pieces: list[bytes] = []
        self.complete = False
        self.excess = False

    def receive(self, data: bytes) -> None:
        if not self._rest and not self._left and not self._in_trailer and self._is_one(data):
            return
        data, position = self._rest + data, 0
        while not self._in_trailer:
            if self._left:
                position = self._read_data(data, position)
                if self._left:
                    self._rest = data[position:]
                    return
            size = _SIZE.match(data, position)
            if size is None:
                self._rest = _unfinished_line(data[position:])
                return
            position = size.end()
            length = int(size[1], 16)
            self._in_trailer = length == 0
            self._left = length + 2 if length else 0
        self._read_trailer(data[position:])

    def _is_one(self, data: bytes) -> bool:
        """Take ``data`` if it is one whole chunk: an event of a live stream."""
        size = _SIZE.match(data)
        if size is None:
            return False
        start = size.end()
        end = start + int(size[1], 16)
        if end == start or len(data) != end + 2 or not data.endswith(b"\r\n"):
            return False
        self._pieces.append(data[start:end])
        return True

    def _read_data(self, data: bytes, position: int) -> int:
        """Take what ``data`` holds of the chunk; return where to read on."""
        end = position + self._left - 2
        if position < end:
            piece = data[position:end]
            self._pieces.append(piece)
            position += len(piece)
            self._left -= len(piece)
        if self._left <= 2 and len(data) >= position + 2:
            if data[position : position + 2] != b"\r\n":
                raise MalformedAnswer("a chunk is longer than it says")
            self._left = 0
            position += 2
        return position

    def _read_trailer(self, data: bytes) -> None:
        if data.startswith(b"\r\n"):
            end = 2
        elif (end := data.find(b"\r\n\r\n") + 4) == 3:
            if len(data) > _LONGEST_TRAILER:
                raise MalformedAnswer("the trailer is too long")
            self._rest = data
            return
        self.complete = True
        self.excess = len(data) > end

    def close(self) -> None:
        raise MalformedAnswer(_ENDED_EARLY)

    def take(self) -> bytes:
        return _joined(self._pieces)


def _unfinished_line(data: bytes) -> bytes:
    if b"\r\n" in data or len(data) > _LONGEST_LINE:
        raise MalformedAnswer("a chunk's size is no number")
    return data


def _joined(pieces: list[bytes]) -> bytes:
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()
    return data
