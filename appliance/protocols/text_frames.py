"""Reads the text out of a stream's events without decoding the rest of them.

Nearly every event of a stream says one more piece of text in the same frame:
``{"id":…,"choices":[{"delta":{"content":`` before it, ``}}]}`` after it. One
that is known to say nothing but its text teaches the frame; what fits it
differs in that one JSON string and in nothing else.
"""

import re

import msgspec

_STRING = rb'"(?:[^"\\]|\\.)*"'
_decode = msgspec.json.Decoder(str).decode


class TextFrame:
    """The frame of the events of one stream, whose text stands under ``key``."""

    __slots__ = ("_place", "_prefix", "_suffix")

    def __init__(self, key: str) -> None:
        self._place = re.compile(rb'"%s"\s*:\s*(%s)' % (key.encode(), _STRING))
        self._prefix = b""  # empty: nothing learnt yet
        self._suffix = b""

    def learn(self, event: bytes, text: str) -> None:
        """Take the frame of ``event``, which says ``text`` and nothing else that counts."""
        if self._prefix == event[: len(self._prefix)] != b"":
            return  # it did not fit for its text, not for its frame
        places = [match.span(1) for match in self._place.finditer(event)]
        if len(places) != 1:
            return
        start, end = places[0]
        try:
            is_it = _decode(event[start:end]) == text
        except ValueError:
            return
        if is_it:
            self._prefix, self._suffix = event[:start], event[end:]

    def text(self, event: bytes) -> str | None:
        """The text of an event that fits the frame; None for any other."""
        prefix, suffix = self._prefix, self._suffix
        if not prefix or not event.startswith(prefix) or not event.endswith(suffix):
            return None
        try:
            # One JSON string, or it is not what it looks like.
            return _decode(event[len(prefix) : len(event) - len(suffix)])
        except ValueError:
            return None


def utf8_size(text: str) -> int:
    """Bytes of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
