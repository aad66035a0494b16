"""Just enough HTTP/1.1 to read an answer and keep its chunk boundaries."""


class BadAnswer(Exception):
    """The peer said something that is not the answer a benchmark expects."""


class AnswerReader:
    """Reads answers off one connection, one after the other. Does no IO.

    :meth:`feed` hands back the pieces of the body: whole chunks of a chunked
    answer, or what has arrived of one with a content length. After
    :attr:`done` the next answer needs :meth:`restart`.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self.restart()

    def restart(self) -> None:
        if self._buffer:
            raise BadAnswer("bytes after the end of an answer")
        self.status = 0
        self.done = False
        self._chunked = False
        self._left = 0

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        if not self.status and not self._read_head():
            return []
        return self._chunks() if self._chunked else self._plain()

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        first, _, lines = head.partition(b"\r\n")
        if not first.startswith(b"HTTP/1.1 ") or not first[9:12].isdigit():
            raise BadAnswer(f"not an HTTP/1.1 answer: {first[:60]!r}")
        self.status = int(first[9:12])
        self._buffer = rest
        headers = lines.lower().replace(b" ", b"").split(b"\r\n")
        self._chunked = b"transfer-encoding:chunked" in headers
        lengths = [line[15:] for line in headers if line.startswith(b"content-length:")]
        if not self._chunked and not lengths:
            raise BadAnswer("an answer without a length")
        self._left = int(lengths[0]) if lengths else 0
        return True

    def _plain(self) -> list[bytes]:
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        self.done = self._left == 0
        return [piece] if piece else []

    def _chunks(self) -> list[bytes]:
        pieces: list[bytes] = []
        while not self.done:
            size_text, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                break
            size = int(size_text.split(b";")[0], 16)
            if len(rest) < size + 2:
                break
            piece, self._buffer = rest[:size], rest[size + 2 :]
            if size:
                pieces.append(piece)
            self.done = size == 0
        return pieces
