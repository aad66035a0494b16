"""What a text says, beside how it is spelled.

A rule looks at what is said: at an ``@`` that JSON spells ``\\u0040``, at a
number with an invisible mark in it, at a letter with its accent behind it.
What leaves is the spelling, byte for byte where nothing was found. In JSON its
syntax is told from its texts, so that what is taken out of it leaves JSON.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

_LONGEST_TOKEN = 64  # characters of a number in JSON, and of the blanks behind it
_MOST_MARKS = 64  # that are taken as one with the character before them

# Nobody sees them: soft hyphens, joiners, marks of direction, variation selectors, tags.
_INVISIBLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
)


def _combining() -> str:
    """The marks that belong to the letter before them, as ranges of a pattern.

    Only those of the basic plane, which takes one look for each character.
    """
    codes = [code for code in range(0x300, 0x10000) if unicodedata.combining(chr(code))]
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in ranges)


_CLUSTER = re.compile(rf"(?s).[{_INVISIBLE}{_combining()}]{{1,{_MOST_MARKS}}}")
_MARK = re.compile(rf"[{_INVISIBLE}{_combining()}]")
_UNSEEN = re.compile(f"[{_INVISIBLE}]+")
_BLANKS = re.compile(r"[ \t\n\r]*")
_SYNTAX = re.compile(r"[ \t\n\r{}\[\],:]+")
_SIMPLE = re.compile(r'([ \t\n\r,:]*")([ !#-\[\]-~]*)(?=")')  # a string without anything odd
_TOKEN = re.compile(
    rf'([^ \t\n\r{{}}\[\],:"]{{1,{_LONGEST_TOKEN + 1}}})[ \t\n\r]{{0,{_LONGEST_TOKEN}}}'
)
_LITERAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null|NaN|-?Infinity")
_AFTER_TOKEN = frozenset(",:]}")
_WORDS = re.compile(r'[^"\\]+')
_UNICODE = re.compile(r"\\u([0-9a-fA-F]{4})")
_ESCAPES = {
    '"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip


class Part(Enum):
    WORD = auto()  # spelled in another way, and taken out as a whole
    SYNTAX = auto()  # of JSON; stays whatever is taken out around it
    TOKEN = auto()  # a number in JSON; what takes its place is a string


class Spelled(NamedTuple):
    """A part of a text that is more than its characters; positions are those of what is said.

    ``raw`` is the spelling. ``seen`` are the characters behind it where marks
    among them were left out or joined with the letter before them.
    """

    start: int
    end: int
    raw: str
    part: Part
    seen: str = ""


class Said(NamedTuple):
    text: str
    parts: Sequence[Spelled]


class _State(Enum):
    START = auto()
    PLAIN = auto()
    SYNTAX = auto()
    STRING = auto()


class Reader:
    """Reads one text that comes in pieces; cutting it elsewhere changes nothing.

    What begins as JSON is read as JSON for as long as it is any.
    """

    def __init__(self) -> None:
        self.is_closed = False  # the JSON has come to its end
        self._state = _State.START
        self._depth = 0
        self._rest = ""  # the beginning of what cannot be read yet
        self._words: list[str] = []  # what is said, not folded yet
        self._length = 0  # characters of it
        self._escapes: deque[Spelled] = deque()  # in it
        self._text: list[str] = []
        self._size = 0
        self._parts: list[Spelled] = []

    def feed(self, piece: str) -> Said:
        text, self._rest = self._rest + piece, ""
        self._read(text, is_all=False)
        self._fold(is_all=False)
        return self._said()

    def flush(self) -> Said:
        """What was held back, without waiting for more of it."""
        text, self._rest = self._rest, ""
        self._read(text, is_all=True)
        self._fold(is_all=True)
        return self._said()

    def _said(self) -> Said:
        said = Said("".join(self._text), self._parts)
        self._text, self._size, self._parts = [], 0, []
        return said

    def _read(self, text: str, *, is_all: bool) -> None:
        at = 0
        while at < len(text):
            match self._state:
                case _State.START:
                    at = self._begin(text, at)
                case _State.PLAIN:
                    self._hear(text[at:])
                    return
                case _State.SYNTAX:
                    at = self._between(text, at, is_all=is_all)
                case _State.STRING:
                    at = self._in_string(text, at, is_all=is_all)
            if at < 0:
                return

    def _begin(self, text: str, at: int) -> int:
        blanks = _BLANKS.match(text, at)
        first = blanks.end() if blanks else at
        self._hear(text[at:first])
        if first < len(text):
            self._state = _State.SYNTAX if text[first] in "{[" else _State.PLAIN
        if self._state is _State.SYNTAX:
            self._fold(is_all=True)
        return first

    def _between(self, text: str, at: int, *, is_all: bool) -> int:
        """Read on between the strings; -1: the rest has to wait."""
        while found := _SIMPLE.match(text, at):
            self._add(found[1], Part.SYNTAX)
            self._say(found[2])
            self._add('"', Part.SYNTAX)
            at = found.end() + 1
        if at == len(text):
            return at
        if text[at] == '"':
            self._add('"', Part.SYNTAX)
            self._state = _State.STRING
            return at + 1
        if found := _SYNTAX.match(text, at):
            end = self._closes_at(text, at, found.end())
            self._add(text[at:end], Part.SYNTAX)
            return end
        return self._token(text, at, is_all=is_all)

    def _closes_at(self, text: str, at: int, end: int) -> int:
        """Where the JSON ends between ``at`` and ``end``; ``end`` if it does not."""
        for place in range(at, end):
            if text[place] in "{[":
                self._depth += 1
            elif text[place] in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.is_closed = True
                    self._state = _State.PLAIN
                    return place + 1
        return end

    def _token(self, text: str, at: int, *, is_all: bool) -> int:
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError("neither syntax, nor a string, nor a token")
        token, behind = found[1], found.end()
        is_short = len(token) <= _LONGEST_TOKEN
        if behind == len(text) and is_short and not is_all:
            self._rest = text[at:]
            return -1
        is_followed = behind < len(text) and text[behind] in _AFTER_TOKEN
        if not (is_followed and is_short and _LITERAL.fullmatch(token)):
            self._state = _State.PLAIN  # it is no JSON, or none any more
            return at
        self._add(token, Part.TOKEN)
        return at + len(token)

    def _in_string(self, text: str, at: int, *, is_all: bool) -> int:
        while at < len(text):
            found = _WORDS.match(text, at)
            if found is not None:
                self._hear(found[0])
                at = found.end()
            elif text[at] == '"':
                self._fold(is_all=True)
                self._add('"', Part.SYNTAX)
                self._state = _State.SYNTAX
                return at + 1
            else:
                size = _escape_size(text, at)
                if size == 0 and not is_all:
                    self._rest = text[at:]
                    return -1
                self._escape(text[at : at + max(size, 1)])
                at += max(size, 1)
        return at

    def _escape(self, raw: str) -> None:
        if len(raw) == 1:  # no escape that JSON knows: it stands for itself
            self._hear(raw)
            return
        self._escapes.append(Spelled(self._length, self._length + 1, raw, Part.WORD))
        self._hear(_unescaped(raw))

    def _hear(self, text: str) -> None:
        self._words.append(text)
        self._length += len(text)

    def _add(self, raw: str, part: Part) -> None:
        self._parts.append(Spelled(self._size, self._size + len(raw), raw, part))
        self._say(raw)

    def _say(self, text: str) -> None:
        self._text.append(text)
        self._size += len(text)

    def _fold(self, *, is_all: bool) -> None:
        """Say the words, each mark with the letter before it.

        The last character waits: a mark may follow.
        """
        if not self._length:
            return
        words = "".join(self._words)
        kept = len(words) if is_all else _last_cluster(words)
        at = 0
        for start, end in _clusters(words, kept):
            self._copy(words, at, start)
            self._join(words, start, end)
            at = end
        self._copy(words, at, kept)
        self._words, self._length = [words[kept:]], len(words) - kept
        self._escapes = deque(moved(each, -kept) for each in self._escapes)

    def _copy(self, words: str, start: int, end: int) -> None:
        move = self._size - start
        while self._escapes and self._escapes[0].start < end:
            self._parts.append(moved(self._escapes.popleft(), move))
        self._say(words[start:end])

    def _join(self, words: str, start: int, end: int) -> None:
        """Say a character and its marks as one."""
        raw = []
        for at in range(start, end):
            is_escape = bool(self._escapes) and self._escapes[0].start == at
            raw.append(self._escapes.popleft().raw if is_escape else words[at])
        seen = words[start:end]
        said = _joined(seen)
        part = Spelled(self._size, self._size + len(said), "".join(raw), Part.WORD, seen)
        self._parts.append(part)
        self._say(said)


def moved(part: Spelled, by: int) -> Spelled:
    if by == 0:
        return part
    # Several times as fast as _replace(), and there are many.
    return Spelled(part.start + by, part.end + by, part.raw, part.part, part.seen)


def _clusters(words: str, end: int) -> Iterator[tuple[int, int]]:
    if not words.isascii() and _MARK.search(words):
        yield from (found.span() for found in _CLUSTER.finditer(words, 0, end))


def _last_cluster(words: str) -> int:
    """Where the last character begins that may get more marks."""
    last = len(words) - 1
    for start, end in _clusters(words, len(words)):
        if end == len(words):
            last = start
    return last


def _escape_size(text: str, at: int) -> int:
    """How long the escape at ``at`` is; 1: it is none, 0: more has to come."""
    known = text[at + 1 : at + 2]
    if not known:
        return 0
    if known != "u":
        return 2 if known in _ESCAPES else 1
    found = _UNICODE.match(text, at)
    if found is None:
        digits = text[at + 2 : at + 6]
        return 0 if len(digits) < 4 and _is_hex(digits) else 1
    if not 0xD800 <= int(found[1], 16) < 0xDC00:
        return 6
    second = _UNICODE.match(text, at + 6)
    if second is not None:
        return 12 if 0xDC00 <= int(second[1], 16) < 0xE000 else 6
    return 0 if _may_become_escape(text[at + 6 : at + 12]) else 6


def _may_become_escape(text: str) -> bool:
    return "\\u".startswith(text[:2]) and len(text) < 6 and _is_hex(text[2:])


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)


def _unescaped(raw: str) -> str:
    """One character; half a pair is none."""
    if raw[1] != "u":
        return _ESCAPES[raw[1]]
    first = int(raw[2:6], 16)
    if len(raw) > 6:
        return chr(0x10000 + ((first - 0xD800) << 10) + int(raw[8:12], 16) - 0xDC00)
    return "\ufffd" if 0xD800 <= first < 0xE000 else chr(first)


_ANY_ESCAPE = re.compile(
    r'\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|["\\/bfnrt])'
)


def read_roughly(text: str) -> str:
    """What a :class:`Reader` would say at most: every escape is taken for one."""
    if "\\" in text:
        text = _ANY_ESCAPE.sub(lambda found: _unescaped(found[0]), text)
    if not text.isascii() and _MARK.search(text):
        text = _CLUSTER.sub(lambda found: _joined(found[0]), text)
    return text


def _joined(seen: str) -> str:
    """A character and its marks, without those that nobody sees."""
    return unicodedata.normalize("NFC", seen[0] + _UNSEEN.sub("", seen[1:]))
