"""Both ends of a stream at once: the upstream sends an event when the last one has come out.

That is how a model that thinks between tokens looks to a relay: every read
carries exactly one event, and every event has to be sent on its own, however
busy the relay is. With enough streams in parallel the relay is saturated and
the frames that come out in a second are all it can do.

One thread, epoll and plain sockets: under 40 µs a frame, about half of
what the leanest server here needs for it, and on the other core.
"""

import re
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

from tests.bench.answers import EVENTS, MESSAGES_EVENTS
from tests.bench.frames import EventCounter, FrameChecker, FrameReport
from tests.bench.processes import MeasurementFailed
from tests.bench.wire import AnswerReader

_MARKER = re.compile(rb"lockstep-(\d+)-")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STALL = 0.25  # seconds without a frame until the next one is sent regardless
_DRAIN = 5.0  # seconds the streams under way get to end after a round
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def marker(slot: int) -> str:
    """What a request must contain somewhere in its body, so that both ends find each other."""
    return f" lockstep-{slot}-"


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


@dataclass(frozen=True, slots=True)
class Script:
    """What the upstream sends step by step.

    ``exact``: the very events come out, and the next step waits for all of them.
    Otherwise they are translated on the way, and it waits for any event at all.
    """

    steps: tuple[bytes, ...]
    out_after: tuple[int, ...]  # how many events were sent after each step
    exact: bool

    @classmethod
    def of(cls, events: Sequence[bytes], *, first: int = 1, last: int, exact: bool) -> "Script":
        """Each event is a step, but for the ``first`` ones and the ``last`` ones together.

        Why an answer ended, its usage and its end come together, as providers
        send them: a gateway may keep them until it knows that this was all, and
        until the call is settled.
        """
        chunks = [_chunk(event) for event in events]
        middle = chunks[first:-last]
        steps = (
            _HEAD + b"".join(chunks[:first]),
            *middle,
            b"".join(chunks[-last:]) + b"0\r\n\r\n",
        )
        return cls(steps, (*range(first, first + len(middle) + 1), len(events)), exact)


CHAT = Script.of(EVENTS, last=3, exact=True)
TRANSLATED_CHAT = Script.of(EVENTS, last=3, exact=False)
TRANSLATED_MESSAGES = Script.of(MESSAGES_EVENTS, first=2, last=3, exact=False)


@dataclass(slots=True)
class LockstepResult:
    """What came out within the time; a delay is the seconds from sending to arrival."""

    frames: int = 0
    streams: int = 0
    seconds: float = 0.0
    begun: int = 0  # streams that were answered to their end, also after the time was up
    stalls: int = 0  # events that only came out when the next one was sent, or late
    cpu_us: float | None = None  # of the server, a frame
    delays: list[float] = field(default_factory=list)  # of tokens after the first
    report: FrameReport = field(default_factory=FrameReport)

    @property
    def rate(self) -> float:
        return self.frames / self.seconds


class _Upstream:
    """A connection from the server under test; answers its requests."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = peer
        self._buffer = b""

    def request(self) -> int | None:
        """The slot whose request is complete now, or None; raise ConnectionError at the end."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return None
        self._buffer = b""
        found = _MARKER.search(body)
        if found is None:
            raise MeasurementFailed("a request reached the upstream without its marker")
        return int(found[1])


class _Slot:
    """One caller: asks, checks what comes, asks again."""

    def __init__(self, port: int, request: bytes, script: Script) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._script = script
        self._reader = AnswerReader()
        self.upstream: _Upstream | None = None
        self.ask()

    def ask(self) -> None:
        self._reader.restart()
        self.checker = FrameChecker(EVENTS) if self._script.exact else EventCounter()
        self.upstream = None
        self._sent = 0
        self._arrived_before = 0  # when the last step was sent
        self.moved_at = perf_counter()
        self.next_at: float | None = None  # when the next event is sent, if that has a time
        self.socket.sendall(self._request)

    def advance(self) -> None:
        """Send the next step, if there is one."""
        steps = self._script.steps
        if self.upstream is not None and self._sent < len(steps):
            self._arrived_before = self.checker.arrived
            self.upstream.socket.sendall(steps[self._sent])
            self._sent += 1
            self.moved_at = perf_counter()

    def receive(self) -> int:
        """Take what has come; return how many events of the upstream that were."""
        data = self.socket.recv(65536)
        if not data:
            raise MeasurementFailed("a stream was closed before its end")
        before = self.checker.arrived
        for piece in self._reader.feed(data):
            self.checker.feed(piece)
        if self._reader.status not in (0, 200):
            raise MeasurementFailed(f"a stream was refused with status {self._reader.status}")
        if self._script.exact:
            return self.checker.arrived - before
        # Of what is translated, the first sign of a step stands for all of it.
        if before > self._arrived_before or self.checker.arrived == before:
            return 0
        out = self._script.out_after
        return out[self._sent - 1] - (out[self._sent - 2] if self._sent > 1 else 0)

    @property
    def is_due(self) -> bool:
        """Everything that was sent has come out."""
        if self._script.exact:
            return self._sent == 0 or self.checker.arrived >= self._script.out_after[self._sent - 1]
        return self._sent == 0 or self.checker.arrived > self._arrived_before

    @property
    def says_more(self) -> bool:
        """What was sent last is a token after the first: the end waits for the books."""
        return 1 < self._sent < len(self._script.steps)

    @property
    def is_done(self) -> bool:
        return self._reader.done


class Lockstep:
    """The upstream's port stays open between rounds; a round is :meth:`run`.

    Not for two threads at once. :meth:`stop` ends a round from another thread.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(0)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._upstreams: dict[int, _Upstream] = {}
        self._slots: dict[int, _Slot] = {}
        self._by_number: list[_Slot] = []
        self._stopped = False
        self._pause = 0.0

    def close(self) -> None:
        for upstream in self._upstreams.values():
            upstream.socket.close()
        self._upstreams.clear()
        self._listener.close()
        self._epoll.close()

    def stop(self) -> None:
        self._stopped = True

    def run(
        self,
        port: int,
        requests: Sequence[bytes],
        *,
        seconds: float,
        cpu_seconds: Callable[[], float] | None = None,
        pause: float = 0.0,
        script: Script = CHAT,
    ) -> LockstepResult:
        """One stream after the other for each of ``requests``, all in parallel.

        Counts for ``seconds``, then lets the streams under way end. With a
        ``pause`` an event waits so many seconds after the one before it was
        sent, as a model does. On the harness's own port there is no server
        between, and the delays are its own.
        Raises :exc:`MeasurementFailed` and :exc:`OSError`.
        """
        self._stopped = False
        self._pause = pause
        result = LockstepResult()
        try:
            for request in requests:
                slot = _Slot(port, request, script)
                self._by_number.append(slot)
                self._slots[slot.socket.fileno()] = slot
                self._epoll.register(slot.socket, select.EPOLLIN)
            self._count(result, seconds, cpu_seconds)
            self._drain(result)
        finally:
            self._leave()
        return result

    def _count(
        self, result: LockstepResult, seconds: float, cpu_seconds: Callable[[], float] | None
    ) -> None:
        spent = cpu_seconds() if cpu_seconds else 0.0
        began = perf_counter()
        while perf_counter() - began < seconds and not self._stopped:
            self._turn(result, again=True)
        result.seconds = perf_counter() - began
        if not result.frames:
            raise MeasurementFailed("not one event came out within a round")
        if cpu_seconds:
            result.cpu_us = (cpu_seconds() - spent) / result.frames * 1e6

    def _drain(self, result: LockstepResult) -> None:
        """Let every stream end; what comes now is checked but not counted."""
        frames, streams, delays = result.frames, result.streams, list(result.delays)
        patience = perf_counter() + _DRAIN
        while self._slots and perf_counter() < patience and not self._stopped:
            self._turn(result, again=False)
        if self._slots and not self._stopped:
            raise MeasurementFailed(f"{len(self._slots)} streams did not end")
        result.frames, result.streams, result.delays = frames, streams, delays

    def _turn(self, result: LockstepResult, *, again: bool) -> None:
        ready = self._epoll.poll(self._patience(), 64)
        for number, _ in ready:
            slot = self._slots.get(number)
            if slot is not None:
                self._downstream(slot, result, again=again)
            elif number in self._upstreams:
                self._from_server(number)
            elif number == self._listener.fileno():
                self._accept()
        if self._pause:
            self._send_due()
        elif not ready:
            self._push(result)

    def _patience(self) -> float:
        """Seconds until something has to be sent."""
        times = [slot.next_at for slot in self._slots.values() if slot.next_at is not None]
        return min(_STALL, max(0.0, min(times) - perf_counter())) if times else _STALL

    def _send_due(self) -> None:
        now = perf_counter()
        for slot in self._slots.values():
            if slot.next_at is not None and slot.next_at <= now:
                slot.next_at = None
                slot.advance()

    def _downstream(self, slot: _Slot, result: LockstepResult, *, again: bool) -> None:
        came = slot.receive()
        if came:
            result.frames += came
            if slot.says_more:
                result.delays.append(perf_counter() - slot.moved_at)
        if slot.is_done:
            result.streams += 1
            result.begun += 1
            result.report += slot.checker.finish()
            if again:
                slot.ask()
            else:
                self._close(slot)
        elif came and slot.is_due and self._pause:
            slot.next_at = slot.moved_at + self._pause
        elif came and slot.is_due:
            slot.advance()

    def _from_server(self, number: int) -> None:
        upstream = self._upstreams[number]
        try:
            found = upstream.request()
        except ConnectionError:
            self._epoll.unregister(number)
            self._upstreams.pop(number).socket.close()
            return
        if found is None:
            return
        if found >= len(self._by_number):
            return  # left over from a round that failed
        slot = self._by_number[found]
        slot.upstream = upstream
        slot.advance()

    def _accept(self) -> None:
        peer, _ = self._listener.accept()
        self._upstreams[peer.fileno()] = _Upstream(peer)
        self._epoll.register(peer, select.EPOLLIN)

    def _push(self, result: LockstepResult) -> None:
        """Nothing moves: someone waits for more before letting go of an event."""
        now = perf_counter()
        for slot in self._slots.values():
            if now - slot.moved_at > _STALL:
                result.stalls += 1
                slot.advance()

    def _close(self, slot: _Slot) -> None:
        number = slot.socket.fileno()
        with suppress(OSError):
            self._epoll.unregister(number)
        self._slots.pop(number, None)
        slot.socket.close()

    def _leave(self) -> None:
        for slot in list(self._slots.values()):
            self._close(slot)
        self._by_number.clear()
