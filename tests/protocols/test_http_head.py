"""Heads of requests, and what is not read as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.http_head import (
    LONGEST_HEAD,
    HeadReader,
    RequestHead,
    RequestRefused,
    parse_head,
)
from tests.protocols.cuts import at_every_position, one_by_one

PLAIN = b"POST /a?b HTTP/1.1\r\nHost: a.example\r\nX-Two:  words here \r\nConnection: A, b\r\n\r\n"


def test_a_head_is_read() -> None:
    head = parse_head(PLAIN)

    assert (head.method, head.target, head.is_http_1_0) == ("POST", "/a?b", False)
    assert head.values(b"x-two") == [b"words here"]
    assert head.tokens(b"connection") == {b"a", b"b"}
    assert head.raw == PLAIN


def test_a_head_may_come_in_pieces() -> None:
    for one, two in at_every_position(PLAIN + b"body"):
        reader = HeadReader()
        head = reader.receive(one)
        rest = reader.rest + (two if head else b"")
        if head is None:
            head = reader.receive(two)
            rest = reader.rest
        assert head == parse_head(PLAIN)
        assert rest == b"body"


def test_a_head_may_come_byte_by_byte() -> None:
    reader = HeadReader()
    assert not reader.has_begun
    found = [reader.receive(byte) for byte in one_by_one(PLAIN)]

    assert found[:-1] == [None] * (len(PLAIN) - 1)
    assert isinstance(found[-1], RequestHead)
    assert reader.has_begun


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.2\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 \r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"G@T / HTTP/1.1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nSpace : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n Folded: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: identity\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        HeadReader().receive(raw)


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\n", b"\n", b"GET / HTTP/1.1\rX", b"GET \x00"])
def test_what_can_be_no_head_is_refused_before_it_ends(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        HeadReader().receive(raw)

    reader = HeadReader()
    with pytest.raises(RequestRefused):  # noqa: PT012 - whichever byte it is
        for byte in one_by_one(raw):
            reader.receive(byte)


def test_a_head_has_a_longest_length() -> None:
    line = b"GET / HTTP/1.1\r\nX: " + b"x" * LONGEST_HEAD
    with pytest.raises(RequestRefused, match="too long"):
        HeadReader().receive(line)
    with pytest.raises(RequestRefused, match="too long"):
        HeadReader().receive(line + b"\r\n\r\n")
    with pytest.raises(RequestRefused, match="too many"):
        HeadReader().receive(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n")


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_a_head_or_refused_however_they_come(data: bytes, place: int) -> None:
    assert _outcome([data]) == _outcome([data[:place], data[place:]])


def _outcome(pieces: list[bytes]) -> object:
    reader = HeadReader()
    for place, piece in enumerate(pieces):
        try:
            head = reader.receive(piece)
        except RequestRefused:
            return "refused"
        if head is not None:
            return head, reader.rest + b"".join(pieces[place + 1 :])
    return None
