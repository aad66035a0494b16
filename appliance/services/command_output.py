"""What a command has printed: its beginning and its end, as text that a model can read."""

import re
from collections import deque

_MERGED = 4_096  # characters; smaller pieces are joined, or they cost more than they hold

# Sequences that move a cursor, set colours or titles; an unfinished one ends with its piece.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c]*(?:\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def readable(text: str) -> str:
    """``text`` without what only a terminal understands."""
    if text.isascii() and text.isprintable():
        return text
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", text)


class OutputLog:
    """At most ``limit`` characters: the first half of them, and the latest."""

    def __init__(self, limit: int) -> None:
        self._room = limit // 2  # left at the beginning
        self._most = limit - limit // 2
        self._head: list[str] = []
        self._head_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self.total = 0  # characters that were ever added

    @property
    def left_out(self) -> int:
        """How many characters are no longer here."""
        return self.total - self._head_size - self._tail_size

    def add(self, text: str) -> None:
        self.total += len(text)
        if self._room:
            first, text = text[: self._room], text[self._room :]
            self._room -= len(first)
            self._head_size += len(first)
            self._head.append(first)
            if len(self._head) > _MERGED:
                self._head = ["".join(self._head)]
        if not text:
            return
        if self._tail and len(self._tail[-1]) < _MERGED:
            self._tail[-1] += text
        else:
            self._tail.append(text)
        self._tail_size += len(text)
        self._cut()

    def text(self) -> str:
        return self.since(0)

    def since(self, position: int) -> str:
        """What was added after the first ``position`` characters, as far as it is here."""
        tail_begins = self.total - self._tail_size
        if position >= tail_begins:
            return "".join(self._tail)[position - tail_begins :]
        head = "".join(self._head)[position:]
        missing = tail_begins - max(position, self._head_size)
        gap = f"\n[… {missing} characters left out …]\n" if missing else ""
        return f"{head}{gap}{''.join(self._tail)}"

    def _cut(self) -> None:
        while self._tail_size > self._most:
            over = self._tail_size - self._most
            first = self._tail[0]
            if len(first) <= over:
                self._tail.popleft()
                self._tail_size -= len(first)
            elif over >= _MERGED or len(self._tail) == 1:
                self._tail[0] = first[over:]
                self._tail_size -= over
            else:
                return  # a little more than promised costs less than cutting each time
