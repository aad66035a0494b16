"""Undoes the compression of an HTTP body, however much a few bytes would become."""

import zlib

from appliance.protocols.answers import MalformedAnswer

_TAKEN = 64 * 1024  # bytes at a time, since zlib copies what it has not used
_PIECE = 256 * 1024
_MOST_MEMBERS = 100
_EITHER = 32 + zlib.MAX_WBITS  # a gzip or a zlib header
_COMPRESSED = frozenset({"gzip", "x-gzip", "deflate"})
_PLAIN = frozenset({"", "identity"})


def decoded_body(body: bytes, coding: str, *, limit: int) -> tuple[bytes, bool]:
    """At most ``limit`` bytes of what ``body`` holds, and whether there was more.

    A body that stops short yields what it holds. Raises :exc:`MalformedAnswer`
    for a coding we do not know and for what is not in it.
    """
    coding = coding.strip().lower()
    if coding in _PLAIN:
        return body[:limit], len(body) > limit
    if coding not in _COMPRESSED:
        raise MalformedAnswer("it is compressed in a way that nobody asked for")
    found = bytearray()
    at = 0
    for _ in range(_MOST_MEMBERS):
        if at >= len(body) or len(found) > limit:
            break
        at = _inflate_member(body, at, found, limit)
    return bytes(found[:limit]), len(found) > limit


def _inflate_member(body: bytes, at: int, found: bytearray, limit: int) -> int:
    """Append what the member that begins ``at`` holds; return where the next one begins."""
    inflater = zlib.decompressobj(_EITHER)
    while not inflater.eof and len(found) <= limit:
        piece = inflater.unconsumed_tail or body[at : at + _TAKEN]
        if not piece:
            return len(body)
        if not inflater.unconsumed_tail:
            at += len(piece)
        try:
            found += inflater.decompress(piece, min(_PIECE, limit + 1 - len(found)))
        except zlib.error:
            if found:
                return len(body)  # some servers put padding behind the last member
            raise MalformedAnswer("it is not compressed as it says") from None
    return at - len(inflater.unused_data)
