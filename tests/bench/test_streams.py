"""How answers are read and frames are checked, byte for byte."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.answers import ANSWER, EVENTS, STREAM, request_body, request_bytes
from tests.bench.frames import FrameChecker, FrameReport
from tests.bench.lockstep import CHAT, TRANSLATED_CHAT, Lockstep, marker
from tests.bench.processes import MeasurementFailed
from tests.bench.wire import AnswerReader, BadAnswer

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


# What the upstream says


def test_a_stream_is_104_different_events_of_100_tokens() -> None:
    assert len(EVENTS) == len(set(EVENTS)) == 104
    assert EVENTS[-1] == b"data: [DONE]\n\n"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in EVENTS[:-1]]
    texts = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
    assert len([text for text in texts if text]) == 100
    assert chunks[-1]["usage"]["completion_tokens"] == 100
    assert 15_000 < len(STREAM) < 25_000


def test_an_answer_is_a_small_completion_with_usage() -> None:
    assert json.loads(ANSWER)["usage"]["total_tokens"] == 120
    assert 250 < len(ANSWER) < 350


def test_a_request_says_how_long_it_is() -> None:
    body = request_body("json/mock", stream=True, marker=" here")
    request = request_bytes("/v1/x", body, token="t", close=True)

    assert b" here" in body
    assert json.loads(body)["stream_options"] == {"include_usage": True}
    assert b"content-length: %d\r\n" % len(body) in request
    assert request.endswith(b"\r\n\r\n" + body)


# Reading answers


@pytest.mark.parametrize("cut", range(1, len(CHUNKED + chunked(b"one", b"three"))))
def test_a_chunked_answer_cut_anywhere_keeps_its_chunks(cut: int) -> None:
    whole = CHUNKED + chunked(b"one", b"three")
    reader = AnswerReader()

    pieces = reader.feed(whole[:cut]) + reader.feed(whole[cut:])

    assert (reader.status, reader.done, pieces) == (200, True, [b"one", b"three"])


def test_one_reader_reads_one_answer_after_the_other() -> None:
    reader = AnswerReader()
    answer = b"HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\n\r\n"

    assert reader.feed(answer + b"n") == [b"n"]
    assert not reader.done
    assert reader.feed(b"o") == [b"o"]
    assert (reader.done, reader.status) == (True, 429)
    reader.restart()
    assert reader.feed(CHUNKED + chunked(b"yes")) == [b"yes"]


def test_an_answer_without_a_body_is_done_at_once() -> None:
    reader = AnswerReader()

    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") == []
    assert reader.done


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n"])
def test_what_is_no_answer_is_refused(said: bytes) -> None:
    with pytest.raises(BadAnswer):
        AnswerReader().feed(said)


def test_more_than_was_asked_for_is_noticed() -> None:
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab")

    with pytest.raises(BadAnswer, match="after the end"):
        reader.restart()


# Frames


def checked(*pieces: bytes, expected: tuple[bytes, ...] = EVENTS) -> FrameReport:
    checker = FrameChecker(expected)
    for piece in pieces:
        checker.feed(piece)
    return checker.finish()


@given(st.sets(st.integers(1, len(EVENTS) - 1)))
def test_whole_events_may_arrive_in_any_number_of_pieces(cuts: set[int]) -> None:
    ends = [*sorted(cuts), len(EVENTS)]
    starts = [0, *sorted(cuts)]
    pieces = [b"".join(EVENTS[a:b]) for a, b in zip(starts, ends, strict=True)]

    found = checked(*pieces)

    assert (found.events, found.faults, found.chunks) == (104, 0, len(pieces))


def test_a_keep_alive_comment_is_no_fault() -> None:
    found = checked(EVENTS[0], b": keep-alive\n\n", *EVENTS[1:])

    assert (found.comments, found.faults) == (1, 0)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (EVENTS[:50] + EVENTS[51:], {"lost": 1}),
        ((), {"lost": 104}),
        ((*EVENTS[:9], EVENTS[8], *EVENTS[9:]), {"repeated": 1}),
        ((*EVENTS[:5], EVENTS[6], EVENTS[5], *EVENTS[7:]), {"reordered": 1}),
        ((EVENTS[0][:-1] + EVENTS[1], *EVENTS[2:]), {"merged": 1, "lost": 2}),
        ((EVENTS[0].replace(b"mock", b"m0ck"), *EVENTS[1:]), {"changed": 1, "lost": 1}),
        ((EVENTS[0][:20], EVENTS[0][20:], *EVENTS[1:]), {"split": 1}),
        ((*EVENTS[:-1], EVENTS[-1][:-1]), {"split": 1, "changed": 1, "lost": 1}),
        ((*EVENTS, b"data: {}\n\n"), {"changed": 1}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_each_kind_of_fault_is_counted(
    pieces: tuple[bytes, ...], expected: Mapping[str, int]
) -> None:
    found = checked(*pieces)

    kinds = ("lost", "repeated", "reordered", "merged", "changed", "split")
    assert {kind: getattr(found, kind) for kind in kinds if getattr(found, kind)} == expected
    assert found.faults == sum(expected.values())


@given(st.permutations(list(range(6))))
def test_an_order_is_right_or_reported(order: list[int]) -> None:
    found = checked(*(EVENTS[place] for place in order), expected=EVENTS[:6])

    assert (found.faults == 0) == (order == sorted(order))
    assert found.lost == 0


def test_reports_add_up() -> None:
    total = checked(*EVENTS) + checked(*EVENTS[1:])

    assert (total.events, total.lost, total.chunks) == (207, 1, 207)
    assert "lost 1" in str(total)


def test_events_that_look_alike_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="differ"):
        FrameChecker([b"data: a\n\n", b"data: a\n\n"])


# Lock-step


def test_the_steps_of_a_stream_are_its_events_and_its_end() -> None:
    steps, out_after = CHAT.steps, CHAT.out_after
    reader = AnswerReader()

    pieces = [reader.feed(step) for step in steps]

    assert reader.done
    assert [piece for found in pieces for piece in found] == list(EVENTS)
    assert [len(found) for found in pieces] == [1] * 101 + [3]
    assert out_after == (*range(1, 102), 104)


class Relay(threading.Thread):
    """A relay of one stream at a time, in plain sockets; joins what one read brings."""

    def __init__(self, feed: int) -> None:
        super().__init__(daemon=True)
        self._feed = feed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.status = 200

    def run(self) -> None:
        with closing(self._listener):
            caller, _ = self._listener.accept()
        # A caller that has seen enough leaves in the middle: that is an OSError here.
        with closing(caller), suppress(OSError):
            while request := caller.recv(65536):
                with closing(socket.create_connection(("127.0.0.1", self._feed))) as feed:
                    feed.sendall(request)
                    self._relay(feed, caller)

    def _relay(self, feed: socket.socket, caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 %d OK\r\ntransfer-encoding: chunked\r\n\r\n" % self.status)
        reader = AnswerReader()
        while not reader.done:
            joined = b"".join(reader.feed(feed.recv(65536)))
            caller.sendall(b"%x\r\n%b\r\n" % (len(joined), joined))
        caller.sendall(b"0\r\n\r\n")


@pytest.fixture
def lockstep() -> Iterator[Lockstep]:
    with closing(Lockstep()) as made:
        yield made


def lockstep_request(slot: int) -> bytes:
    return request_bytes("/", request_body("m", stream=True, marker=marker(slot)))


def test_lock_step_streams_come_out_whole_and_one_event_at_a_time(lockstep: Lockstep) -> None:
    relay = Relay(lockstep.port)
    relay.start()

    result = lockstep.run(relay.port, [lockstep_request(0)], seconds=0.05, cpu_seconds=lambda: 1.0)
    relay.join(60)

    assert result.frames > 0
    assert result.rate > 0
    assert result.cpu_us == 0.0
    assert result.report.events % len(EVENTS) == 0
    assert result.report.faults == result.stalls == 0
    # The last three come in one read, every other event in one of its own.
    assert result.report.chunks * len(EVENTS) == result.report.events * (len(EVENTS) - 2)


def test_streams_that_are_translated_on_their_way_are_counted_by_what_went_in(
    lockstep: Lockstep,
) -> None:
    relay = Relay(lockstep.port)
    relay.start()

    result = lockstep.run(relay.port, [lockstep_request(0)], seconds=0.05, script=TRANSLATED_CHAT)
    relay.join(60)

    assert result.streams > 0
    assert result.frames >= result.streams * len(EVENTS)
    assert result.report.faults == result.stalls == 0


def test_a_refused_stream_fails_the_measurement(lockstep: Lockstep) -> None:
    relay = Relay(lockstep.port)
    relay.status = 429
    relay.start()

    with pytest.raises(MeasurementFailed, match="429"):
        lockstep.run(relay.port, [lockstep_request(0)], seconds=1)
    lockstep.close()
    relay.join(60)
