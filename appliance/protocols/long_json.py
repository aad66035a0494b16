"""JSON of megabytes, read and written so that no step holds the interpreter for long.

The parser is one call, in which no other thread runs: 20 MB of text with many
escapes take it 50 ms, and 150 ms to be written. So long strings are taken out
first, a mark in place of each, and go by themselves, a piece at a time. What is
left is bounded by how many values a body may have.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

AT_ONCE: Final = 2 * 1024 * 1024  # bytes that the parser may have in one call: 5 ms at most
STEP: Final = 256 * 1024  # bytes of a longer text at a time
# Bytes of a string that is taken out. It costs a microsecond, which pays for
# the short ones only where the parser is slow: with many escapes.
_LONG = 64
_LONG_AND_PLAIN = 1024
_MANY_ESCAPES = 1 / 16
_BLANKS = b" \t\r\n"
# A mark is a string that begins with NUL. A caller's own, which is written like
# that too, is taken out as if it were long.
_NUL = rb"\u0000"
_MARK = b'"' + _NUL
# An escape, or the first half of a surrogate pair, that goes on behind the end.
_HALF = re.compile(rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")
_LONGEST_HALF = 12
_MOST_OF_A_CHARACTER = 4  # bytes in UTF-8

_text = msgspec.json.Decoder(str)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Unterminated(msgspec.DecodeError):
    """A string does not end."""


class TooManyQuotes(Exception):
    """There are more strings than the caller wants to know of."""


@dataclass(frozen=True, slots=True)
class Hollow:
    """JSON without its long strings and rows of blanks.

    ``spans`` are where the strings are in ``body``, by their marks.
    """

    body: bytes
    text: bytes
    spans: list[tuple[int, int]]
    skeleton: bytes  # what is outside of strings

    @classmethod
    def of(cls, body: bytes, *, most_quotes: int) -> "Hollow":
        """Raises :exc:`Unterminated` and :exc:`TooManyQuotes`."""
        is_plain = body.count(b"\\") < _MANY_ESCAPES * len(body)
        long = _LONG_AND_PLAIN if is_plain else _LONG
        texts: list[bytes] = []
        spans: list[tuple[int, int]] = []
        outside: list[bytes] = []
        taken = opened = closed = 0  # where the hollow text goes on, a string began, one ended
        is_inside = False
        for number, quote in enumerate(_quotes(body)):
            if number >= most_quotes:
                raise TooManyQuotes
            is_inside = not is_inside
            if not is_inside:
                closed = quote + 1
                if quote - opened > long or body.startswith(_NUL, opened):
                    texts.append(body[taken:opened])
                    texts.append(b"%b%d" % (_NUL, len(spans)))
                    spans.append((opened, quote))
                    taken = quote
                continue
            between = body[closed:quote]
            if len(between) > _LONG:
                texts.append(body[taken:closed])
                texts.append(between := _without_blanks(between))
                taken = quote
            outside.append(between)
            opened = quote + 1
        if is_inside:
            raise Unterminated
        outside.append(_without_blanks(body[closed:]))
        texts += [body[taken:closed], outside[-1]]
        return cls(body, b"".join(texts), spans, b"".join(outside))

    def value(self) -> Any:
        """The value; raise as ``msgspec.json.decode`` does, with positions that mean nothing."""
        value = msgspec.json.decode(self.text)
        return self._filled(value) if self.spans else value

    def members(self) -> dict[str, bytes]:
        """The members of an object, each value as the text it has in the body, but for blanks."""
        return {
            self._string(name): self._inflated(bytes(raw))
            for name, raw in _members.decode(self.text).items()
        }

    def _filled(self, value: Any) -> Any:
        """``value`` with strings in place of their marks."""
        kind = value.__class__
        if kind is str:
            return self._string(value)
        if kind is list:
            return [self._filled(each) for each in value] if value else value
        if kind is dict:
            return {self._string(name): self._filled(each) for name, each in value.items()}
        return value

    def _string(self, text: str) -> str:
        return _decoded(self.body, *self.spans[int(text[1:])]) if text[:1] == "\0" else text

    def _inflated(self, text: bytes) -> bytes:
        pieces = []
        start, at = 0, text.find(_MARK)
        while at >= 0:
            # A quote within a string comes after a backslash, one that begins it never does.
            if text[at - 1 : at] != b"\\":
                end = text.index(b'"', at + 1)
                opened, closed = self.spans[int(text[at + len(_MARK) : end])]
                pieces += [text[start : at + 1], self.body[opened:closed]]
                start = end
            at = text.find(_MARK, at + 1)
        pieces.append(text[start:])
        return b"".join(pieces)


def decode(text: bytes) -> Any:
    """The value of ``text``, which is known to be good JSON of a bounded number of values."""
    if len(text) <= AT_ONCE:
        return msgspec.json.decode(text)
    return Hollow.of(text, most_quotes=len(text)).value()


def shape(text: bytes) -> bytes:
    """JSON of the same types throughout as good JSON in ``text``, without its long strings."""
    return text if len(text) <= AT_ONCE else Hollow.of(text, most_quotes=len(text)).text


def encode(value: Any) -> bytes:
    """The JSON of ``value``, as ``msgspec.json.encode`` writes it."""
    if _fits(value, AT_ONCE) < 0:
        value = _written(value)
    return msgspec.json.encode(value)


def _fits(value: Any, room: int) -> int:
    """How much of ``room`` characters is left beside the strings in ``value``."""
    kind = value.__class__
    if kind is str:
        return room - len(value)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return room
    for each in value:
        room = _fits(each, room)
        if room < 0:
            break
    return room


def _written(value: Any) -> Any:
    """``value`` with its long strings written."""
    kind = value.__class__
    if kind is str and len(value) > _LONG:
        steps = (value[at : at + STEP] for at in range(0, len(value), STEP))
        return msgspec.Raw(b'"%b"' % b"".join(msgspec.json.encode(each)[1:-1] for each in steps))
    if kind is list or kind is tuple:
        return [_written(each) for each in value]
    if kind is dict:
        return {name: _written(each) for name, each in value.items()}
    return value


def _without_blanks(text: bytes) -> bytes:
    """``text``, in which no long row of blanks is left."""
    pieces = (text[at : at + _LONG] for at in range(0, len(text), _LONG))
    return b"".join(piece if piece.strip(_BLANKS) else b" " for piece in pieces)


def _quotes(body: bytes) -> Iterator[int]:
    """Where strings begin and end."""
    for start, masked in _pieces(body, 0, len(body)):
        masked = masked.replace(b'\\"', b"__")
        quote = masked.find(b'"')
        while quote >= 0:
            yield start + quote
            quote = masked.find(b'"', quote + 1)


def _decoded(body: bytes, start: int, end: int) -> str:
    """The string that is in ``body`` from ``start`` to ``end``."""
    if end - start <= STEP:
        return _text.decode(body[start - 1 : end + 1])
    return "".join(
        _text.decode(b'"%b"' % body[at : at + len(masked)])
        for at, masked in _pieces(body, start, end)
    )


def _pieces(body: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """``body`` in pieces that end where a character does, each with where it begins.

    Escaped backslashes are masked: a backslash begins an escape.
    """
    while start < end:
        masked = body[start : min(start + STEP, end)].replace(b"\\\\", b"__")
        if start + len(masked) < end:
            masked = masked[: _whole(masked)]
        yield start, masked
        start += len(masked)


def _whole(masked: bytes) -> int:
    """How many bytes of ``masked`` are whole characters and escapes."""
    half = _HALF.search(masked, len(masked) - _LONGEST_HALF)
    end = len(masked) if half is None else half.start()
    for _ in range(_MOST_OF_A_CHARACTER):
        if masked[end - 1] < 0x80:
            return end
        end -= 1
        if masked[end] >= 0xC0:
            return end
    return end  # no UTF-8, as the parser will say
