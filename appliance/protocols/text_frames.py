"""Reads the text out of a stream's events without decoding the rest of them.

Nearly every event of a stream says one more piece of text in the same frame:
``{"id":…,"choices":[{"delta":{"content":`` before it, ``}}]}`` after it. One
that is known to say nothing but its text teaches the frame; what fits it
differs in that one JSON string and in nothing else.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from appliance.protocols import sse

_STRING = rb'"(?:[^"\\]|\\.)*"'
# OpenAI pads its events with as many letters as hide how long their text is.
_PADDING = re.compile(rb'("obfuscation"\s*:\s*")[^"\\]*"')
_LONGEST_RUN = 16 * 1024  # bytes of events whose texts are decoded at once
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

    def read(self, block: bytes) -> Iterator[list[str] | bytes]:
        """Cut whole events apart: the texts of those that fit, and each other event as it came.

        What is learnt from one of the others counts for those behind it.
        """
        if b"\r" in block:
            for event in sse.split(block):
                text = self.text(event)
                yield event if text is None else [text]
            return
        start = 0
        while start < len(block):
            texts, end = self._run(block, start)
            if not texts:
                end = block.index(b"\n\n", start) + 2
                event = block[start:end]
                text = self.text(event)
                if text is None:
                    start = end
                    yield event
                    continue
                texts = [text]
            start = end
            yield texts

    def _run(self, block: bytes, start: int) -> tuple[list[str], int]:
        """The texts of events from ``start`` on that fit one after another, and where they end.

        None where that one does not, or one behind it is not what it looks like.
        """
        prefix, suffix = self._prefix, self._suffix
        if self._tail or not prefix or not block.startswith(prefix, start):
            return [], start
        # Between two texts stands always the same; only so far, because one may spoil all.
        strings = block[start + len(prefix) : start + _LONGEST_RUN].split(suffix + prefix)
        last = strings.pop()
        end = last.find(suffix)
        if end >= 0:
            strings.append(last[:end])
        texts = _decoded(strings) or []
        frames = len(texts) * (len(prefix) + len(suffix))
        return texts, start + frames + sum(map(len, strings))

    def texts(self, block: bytes) -> list[str] | None:
        """The texts of several events, if all of ``block`` is events that fit the frame."""
        if not self._prefix or not (self._tail or self._suffix).endswith(b"\n\n"):
            return None
        *events, rest = block.split(b"\n\n")
        strings = self._padded(events) if self._tail else self._plain(events)
        if rest or len(strings) < len(events):
            return None
        return _decoded(strings)

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


def _decoded(strings: Sequence[bytes]) -> list[str] | None:
    """Each of them a JSON string, or None."""
    try:
        # No string can hold the line ends, so each of them is one, or this fails.
        texts = _decode_all(b"[" + b",\n".join(strings) + b"]")
    except ValueError:
        return None
    return texts if len(texts) == len(strings) else None


def utf8_size(text: str) -> int:
    """Bytes of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
