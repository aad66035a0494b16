"""Reads the text out of a stream's events without decoding the rest of them.

Nearly every event of a stream says one more piece of text in the same frame:
``{"id":…,"choices":[{"delta":{"content":`` before it, ``}}]}`` after it. One
that is known to say nothing but its text teaches the frame; what fits it
differs in that one JSON string and in nothing else.
"""

import re
from collections.abc import Sequence

import msgspec

_STRING = rb'"(?:[^"\\]|\\.)*"'
# OpenAI pads its events with as many letters as hide how long their text is.
_PADDING = re.compile(rb'("obfuscation"\s*:\s*")[^"\\]*"')
_decode = msgspec.json.Decoder(str).decode
_decode_all = msgspec.json.Decoder(list[str]).decode


class TextFrame:
    """The frame of the events of one stream, whose text stands under ``key``."""

    __slots__ = ("_place", "_prefix", "_suffix", "_tail", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self._place = re.compile(rb'"%s"\s*:\s*(%s)' % (key.encode(), _STRING))
        self._prefix = b""  # empty: nothing learnt yet
        self._suffix = b""
        self._tail = b""  # what stands behind the padding, if there is any

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
            self._prefix, self._suffix, self._tail = event[:start], event[end:], b""
            if padding := _PADDING.search(event, end):
                self._suffix, self._tail = event[end : padding.end(1)], event[padding.end() - 1 :]

    def text(self, event: bytes) -> str | None:
        """The text of an event that fits the frame; None for any other."""
        prefix, suffix = self._prefix, self._suffix
        if not prefix or not event.startswith(prefix):
            return None
        if self._tail:
            end = self._unpadded(event)
        else:
            end = len(event) - len(suffix) if event.endswith(suffix) else -1
        if end < 0:
            return None
        try:
            # One JSON string, or it is not what it looks like.
            return _decode(event[len(prefix) : end])
        except ValueError:
            return None

    def texts(self, block: bytes) -> list[str] | None:
        """The texts of several events, if all of ``block`` is events that fit the frame."""
        if not self._prefix or not (self._tail or self._suffix).endswith(b"\n\n"):
            return None
        *events, rest = block.split(b"\n\n")
        strings = self._padded(events) if self._tail else self._plain(events)
        if rest or len(strings) < len(events):
            return None
        try:
            # No string can hold the line ends, so each of them is one, or this fails.
            texts = _decode_all(b"[" + b",\n".join(strings) + b"]")
        except ValueError:
            return None
        return texts if len(texts) == len(strings) else None

    def _plain(self, events: Sequence[bytes]) -> list[bytes]:
        prefix, suffix = self._prefix, self._suffix[:-2]
        start, end = len(prefix), -len(suffix)
        return [
            event[start:end]
            for event in events
            if event.startswith(prefix) and event.endswith(suffix)
        ]

    def _padded(self, events: Sequence[bytes]) -> list[bytes]:
        prefix, suffix, tail = self._prefix, self._suffix, self._tail[:-2]
        start, padding, rest = len(prefix), len(suffix), len(tail)
        strings = []
        for event in events:
            end = event.rfind(suffix)
            is_padded = event.find(b'"', end + padding) == len(event) - rest
            if is_padded and event.startswith(prefix) and event.endswith(tail):
                strings.append(event[start:end])
        return strings

    def _unpadded(self, event: bytes) -> int:
        """Where the text of an event with padding ends; -1 if it does not fit."""
        end, tail = event.rfind(self._suffix), self._tail
        quote = event.find(b'"', end + len(self._suffix))
        return end if event.endswith(tail) and quote == len(event) - len(tail) else -1


def utf8_size(text: str) -> int:
    """Bytes of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
