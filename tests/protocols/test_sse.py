"""Event streams: whole events, whatever the network made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols import sse
from appliance.protocols.answers import MalformedAnswer
from tests.protocols.cuts import at_every_position, one_by_one, pieces

EVENTS = [b"data: one", b"data: two\ndata: more", b": keep-alive", b"event: x\ndata:three"]
PAYLOADS = [b"one", b"two\nmore", b"three"]
LINE_ENDS = [b"\n", b"\r\n", b"\r"]


def stream(line_end: bytes) -> bytes:
    return b"".join(event.replace(b"\n", line_end) + 2 * line_end for event in EVENTS)


def read(parts: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = sse.EventSplitter()
    blocks = [splitter.feed(part) for part in parts]
    return blocks, splitter.rest


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_a_cut_anywhere_changes_nothing(line_end: bytes) -> None:
    data = stream(line_end)
    for cut in at_every_position(data):
        blocks, rest = read(list(cut))

        assert b"".join(blocks) + rest == data
        # A CR that comes last may be half a CRLF, so its event waits for more.
        joined = b"".join(blocks) + (rest if line_end == b"\r" else b"")
        assert list(sse.payloads(joined)) == PAYLOADS


@given(st.sampled_from(LINE_ENDS[:2]).flatmap(lambda end: pieces(stream(end))))
def test_every_piece_that_comes_out_holds_whole_events(parts: list[bytes]) -> None:
    blocks, rest = read(parts)

    assert rest == b""
    found = [payload for block in blocks for payload in sse.payloads(block)]
    assert found == PAYLOADS
    for block in blocks:
        assert b"".join(sse.split(block)) == block


@pytest.mark.parametrize("line_end", LINE_ENDS[:2])
def test_an_event_leaves_with_its_last_byte(line_end: bytes) -> None:
    splitter = sse.EventSplitter()
    *start, last = one_by_one(b"data: x" + 2 * line_end)

    assert [splitter.feed(byte) for byte in start] == [b""] * len(start)
    assert splitter.feed(last) == b"data: x" + 2 * line_end


def test_one_whole_event_is_not_copied() -> None:
    event = b"data: x\n\n"

    assert sse.EventSplitter().feed(event) is event


def test_an_event_without_end_is_not_kept_for_ever() -> None:
    splitter = sse.EventSplitter(limit_bytes=100)
    for _ in range(10):
        splitter.feed(b"data: xxxx")

    with pytest.raises(MalformedAnswer, match="more than 100 bytes"):
        splitter.feed(b"x")


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (b"event: e\ndata: x\n\n", b"x"),
        (b"event: e\ndata: x\ndata: y\n\n", b"x\ny"),
        (b"event: e\ndata: x\nid: 1\n\n", b"x"),
        (b"event: data: no\ndata: x\n\n", b"x"),
        (b"event: data: no\n\n", b""),
        (b": data: no\n\n", b""),
        (b"data: x\n\n", b"x"),
        (b"data:x\n\n", b"x"),
        (b"data:  x\n\n", b" x"),
        (b"data: x\r\n\r\n", b"x"),
        (b"id: 1\ndata: x\n\n", b"x"),
        (b"data: x\nretry: 5\n\n", b"x"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: x\rdata: y\r\r", b"x\ny"),
        (b": comment\n\n", b""),
        (b"data\n\n", b""),
        (b"\n", b""),
    ],
)
def test_the_payload_is_what_the_data_lines_say(event: bytes, payload: bytes) -> None:
    assert sse.payload(event) == payload
