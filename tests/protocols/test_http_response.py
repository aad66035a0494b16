"""One HTTP response: read by hand where it is plain, and as h11 reads it everywhere."""

from contextlib import suppress

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.answers import MalformedAnswer
from appliance.protocols.http_response import ResponseReader
from tests.protocols.cuts import at_every_position, one_by_one, pieces

COUNTED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;name=value\r\n0123456789\r\n01\r\n\r\r\n0\r\nTrailer: x\r\n\r\n"
)
FOLDED = b"HTTP/1.1 200 OK\r\nX-Long: a\r\n b\r\nContent-Length: 2\r\n\r\nok"
INTERIM = (
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)
EMPTY = b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n"
WHOLE = [COUNTED, CHUNKED, FOLDED, INTERIM, EMPTY]


def read(parts: list[bytes]) -> tuple[ResponseReader, bytes]:
    reader = ResponseReader()
    body = b""
    for part in parts:
        reader.receive(part)
        body += reader.take()
    return reader, body


def by_h11(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    status, headers, body = 0, [], b""
    while type(event := connection.next_event()) is not h11.EndOfMessage:
        if isinstance(event, h11.Response):
            status, headers = event.status_code, list(event.headers)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    return status, headers, body


@pytest.mark.parametrize("data", WHOLE)
def test_a_response_is_read_as_h11_reads_it_wherever_it_is_cut(data: bytes) -> None:
    status, headers, expected = by_h11(data)
    for parts in [*map(list, at_every_position(data)), one_by_one(data)]:
        reader, body = read([part for part in parts if part])

        assert (reader.status, reader.headers, body) == (status, headers, expected)
        assert reader.complete
        assert reader.reusable


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.sampled_from([b"", b";a=b", b" "]),
    st.data(),
)
def test_chunks_come_out_as_they_went_in(
    chunks: list[bytes], extension: bytes, data: st.DataObject
) -> None:
    lines = (b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = head + b"".join(lines) + b"0\r\n\r\n"

    reader, body = read(data.draw(pieces(whole)))

    assert body == b"".join(chunks)
    assert reader.complete
    assert reader.reusable


@pytest.mark.parametrize(
    "line",
    [b"Connection: close", b"connection: Keep-Alive, Close", b"Connection: x\r\nConnection: close"],
)
def test_a_connection_that_says_it_closes_is_not_used_again(line: bytes) -> None:
    reader, _ = read([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line + b"\r\n\r\n"])

    assert reader.complete
    assert not reader.reusable


@pytest.mark.parametrize("data", [COUNTED, CHUNKED])
def test_bytes_after_the_answer_spoil_the_connection(data: bytes) -> None:
    for parts in ([data + b"x"], [data, b"x"]):
        reader, _ = read(parts)

        assert reader.complete
        assert not reader.reusable


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    reader, body = read([b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"])
    assert not reader.complete

    reader.receive(b"")

    assert reader.complete
    assert not reader.reusable
    assert body == b"hello"


def test_the_answer_to_a_head_has_no_body() -> None:
    reader = ResponseReader(has_body=False)
    reader.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")

    assert reader.complete
    assert reader.reusable


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"HTTP/1.1 200 OK\r\nConte", b""],
        [COUNTED[:-1], b""],
        [CHUNKED[:-1], b""],
        [b"SSH-2.0-OpenSSH\r\n\r\n"],
        [b"<html>\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"x" * 20_000],
    ],
)
def test_what_is_no_response_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(MalformedAnswer):
        read(parts)


@given(st.binary(max_size=200))
def test_whatever_comes_it_is_a_response_or_malformed(noise: bytes) -> None:
    for start in (
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        with suppress(MalformedAnswer):
            read([start + noise])
