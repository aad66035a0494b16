"""Reads the head of an HTTP/1 request strictly, before anything else may.

What leaves room for two readings is refused: a request that we and a server
would cut apart differently is how one request is smuggled inside another.
Bodies are read with h11 once the head has passed.
"""

import re
from dataclasses import dataclass

LONGEST_HEAD = 32 * 1024
_MOST_HEADERS = 100
_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([\x21-\x7e]+) HTTP/1\.([01])")
# No space before the colon, no line that begins with one, no control character.
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\t\x20-\x7e\x80-\xff])*)")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
_LENGTH = re.compile(rb"[0-9]{1,15}")

Headers = tuple[tuple[bytes, bytes], ...]


class RequestRefused(Exception):
    """A request that is not passed on; the text is safe to show to who sent it."""

    def __init__(self, reason: str, *, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class RequestHead:
    method: str
    target: str
    is_http_1_0: bool
    headers: Headers  # names as they were sent
    raw: bytes  # the head itself, its empty line included

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]

    def tokens(self, name: bytes) -> set[bytes]:
        """The words of a header that is a list, in lower case."""
        listed = b",".join(self.values(name)).split(b",")
        return {token for each in listed if (token := each.strip(b" \t").lower())}


class HeadReader:
    """``receive`` what comes until it returns a head; ``rest`` is what came after it.

    Raises :exc:`RequestRefused`.
    """

    __slots__ = ("_data", "rest")

    def __init__(self) -> None:
        self._data = bytearray()
        self.rest = b""

    @property
    def has_begun(self) -> bool:
        return bool(self._data)

    def receive(self, data: bytes) -> RequestHead | None:
        # Only what is new, and as much before it as an end may reach back.
        seen = max(0, len(self._data) - len(_END) + 1)
        self._data += data
        end = self._data.find(_END, seen)
        if (end if end >= 0 else len(self._data)) > LONGEST_HEAD:
            raise RequestRefused("the head of the request is too long", status=431)
        if end < 0:
            # Judged at once: who waits for an answer to this would wait for nothing.
            if _BARE_LINE_END.search(self._data, max(0, seen - 1)):
                raise RequestRefused("not an HTTP/1.1 request")
            return None
        end += len(_END)
        self.rest = bytes(self._data[end:])
        return parse_head(bytes(self._data[:end]))


def parse_head(raw: bytes) -> RequestHead:
    """Read a whole head; raise :exc:`RequestRefused`."""
    first, *lines = raw.removesuffix(_END).split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise RequestRefused("not an HTTP/1.1 request")
    if len(lines) > _MOST_HEADERS:
        raise RequestRefused("too many headers", status=431)
    headers = []
    for each in lines:
        header = _HEADER.fullmatch(each)
        if header is None:
            raise RequestRefused("a header is malformed")
        headers.append((header[1], header[2].rstrip(b" \t")))
    head = RequestHead(line[1].decode(), line[2].decode(), line[3] == b"0", tuple(headers), raw)
    _check_framing(head)
    return head


def _check_framing(head: RequestHead) -> None:
    lengths, codings = head.values(b"content-length"), head.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise RequestRefused("the length of the body is given twice")
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        raise RequestRefused("the content-length is not a number")
    if codings and (codings[0].lower() != b"chunked" or head.is_http_1_0):
        raise RequestRefused("the transfer-encoding is not understood", status=501)
    if len(head.values(b"host")) > 1:
        raise RequestRefused("the host is given twice")
