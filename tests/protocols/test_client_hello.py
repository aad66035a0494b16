"""The name in the first bytes of TLS."""

import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.client_hello import LONGEST_HELLO, ClientHelloReader, NotTls
from tests.protocols.cuts import at_every_position, one_by_one


def hello(host: str | None = "api.example.org") -> bytes:
    sent = ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


HELLO = hello()


def made(extensions: bytes, *, more: bytes = b"") -> bytes:
    """A ClientHello of our own, with these extensions."""
    content = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    content += len(extensions).to_bytes(2) + extensions + more
    handshake = b"\x01" + len(content).to_bytes(3) + content
    return b"\x16\x03\x01" + len(handshake).to_bytes(2) + handshake


def named(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + len(name).to_bytes(2) + name for name in names)
    content = len(entries).to_bytes(2) + entries
    return b"\x00\x00" + len(content).to_bytes(2) + content


def test_the_name_is_read() -> None:
    assert ClientHelloReader().receive(HELLO) == "api.example.org"
    assert ClientHelloReader().receive(made(named(b"API.Example"))) == "api.example"
    assert ClientHelloReader().receive(HELLO + b"\x14\x03\x03\x00\x01\x01") == "api.example.org"


def test_no_name_is_read_where_there_is_none() -> None:
    assert ClientHelloReader().receive(hello(None)) == ""
    assert ClientHelloReader().receive(made(b"")) == ""


def test_it_may_come_in_pieces() -> None:
    for one, two in at_every_position(HELLO):
        reader = ClientHelloReader()
        found = reader.receive(one)
        assert (found or reader.receive(two)) == "api.example.org"
        assert found is None or not two
    reader = ClientHelloReader()
    assert [reader.receive(byte) for byte in one_by_one(HELLO)][-1] == "api.example.org"


@pytest.mark.parametrize("size", [1, 3, 4, 5, 50, 300])
def test_it_may_be_spread_over_records(size: int) -> None:
    handshake = HELLO[5:]
    parts = [handshake[at : at + size] for at in range(0, len(handshake), size)]
    records = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2) + part for part in parts)

    assert ClientHelloReader().receive(records) == "api.example.org"
    for one, two in at_every_position(records[:400]):
        reader = ClientHelloReader()
        found = reader.receive(one) or reader.receive(two) or reader.receive(records[400:])
        assert found == "api.example.org"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0",
        b"\x80\x2e\x01\x03\x01",  # SSL 2
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x17\x03\x03\x00\x01\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # a ServerHello
        b"\x16\x03\x01\x00\x04\x01\x01\x00\x00",  # of 64 KiB
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        made(named(b"a.example") + named(b"b.example")),
        made(named(b"a.example", b"b.example")),
        made(named(b"a.example", kind=1)),
        made(named(b"a.example"), more=b"x"),
        made(b"\x00\x00\x00\x00"),
        made(b"\x00\x00\x00\xff"),
        made(named(b"a.example") + b"\x00"),
    ],
)
def test_what_is_no_hello_we_can_judge_is_refused(data: bytes) -> None:
    with pytest.raises(NotTls):
        ClientHelloReader().receive(data)


def test_something_after_the_hello_in_its_record_is_refused() -> None:
    record = HELLO[5:] + b"\x00"
    with pytest.raises(NotTls, match="follows"):
        ClientHelloReader().receive(b"\x16\x03\x01" + len(record).to_bytes(2) + record)


def test_it_has_a_longest_length() -> None:
    reader = ClientHelloReader()
    start = b"\x16\x03\x01\x00\x04\x01" + LONGEST_HELLO.to_bytes(3)
    assert reader.receive(start) is None
    with pytest.raises(NotTls, match="too long"):  # noqa: PT012 - whichever piece it is
        for _ in range(LONGEST_HELLO):
            reader.receive(b"\x16\x03\x01\x00\x01\x00")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(NotTls):
        ClientHelloReader().receive(data)


@given(st.integers(5, len(HELLO) - 1), st.integers(0, 255))
def test_a_damaged_hello_is_read_or_refused(place: int, value: int) -> None:
    damaged = HELLO[:place] + bytes([value]) + HELLO[place + 1 :]
    with suppress(NotTls):
        ClientHelloReader().receive(damaged)
