"""Many WebSocket clients in one thread: plain sockets and one epoll."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any

from tests.bench.greeting import EVENT, Device, Greeting
from tests.bench.processes import MeasurementFailed

_TIMEOUT = 20.0  # seconds that an answer may take
_READ = 262_144
_ABREAST = 8  # that come in at a time


class Peer:
    """One client's socket. Blocking, because epoll says when there is something to read."""

    def __init__(self, port: int, token: str | None = None, device: Device | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._greeting = Greeting(token, device)
        self._waiting: list[bytes] = []
        self.send(self._greeting.begin())

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def is_in(self) -> bool:
        return self._greeting.done

    def send(self, data: bytes) -> None:
        """``data`` are frames."""
        self._socket.sendall(data)

    def shake_hands(self) -> bool:
        """Read once and answer; whether the client is in now."""
        said = self._greeting.feed(self._read())
        if said:
            self.send(said)
        return self.is_in

    def messages(self) -> list[bytes]:
        """Read once; the messages that are whole now."""
        return self._greeting.reader.feed(self._read())

    def next(self) -> bytes:
        """Wait for the next message."""
        while not self._waiting:
            self._waiting = self.messages()
        return self._waiting.pop(0)

    def call(self, frame: bytes) -> Any:
        """The payload of the answer to the request in ``frame``; events meanwhile are dropped."""
        self.send(frame)
        while (message := self.next()).startswith(EVENT):
            pass
        answer = json.loads(message)
        if not answer["ok"]:
            raise MeasurementFailed(f"refused: {message[:300]!r}")
        return answer.get("payload")

    def _read(self) -> bytes:
        data = self._socket.recv(_READ)
        if not data:
            raise MeasurementFailed("the server closed a WebSocket")
        return data


class Crowd:
    """Clients that are in, all listening. To be closed."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *exc: object) -> None:
        for peer in self._peers.values():
            peer.close()
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def enter(self, port: int, token: str | None, count: int) -> None:
        """Bring ``count`` clients in, a few at a time.

        Those inside go on listening: what they did not read the server would have
        to keep, and that would count as the memory of a connection.
        """
        coming = 0
        patience = perf_counter() + _TIMEOUT + count / 50
        inside = {number for number, peer in self._peers.items() if peer.is_in}
        wanted = len(inside) + count
        while len(inside) < wanted:
            while coming < _ABREAST and len(self._peers) < wanted:
                self._add(Peer(port, token))
                coming += 1
            for number, _ in self._epoll.poll(1, 64):
                if number in inside:
                    self._peers[number].messages()
                elif self._peers[number].shake_hands():
                    inside.add(number)
                    coming -= 1
            if perf_counter() > patience:
                raise MeasurementFailed(f"only {len(inside)} of {wanted} clients came in")

    def _add(self, peer: Peer) -> None:
        self._peers[peer.fileno()] = peer
        self._epoll.register(peer, select.EPOLLIN)

    def ready(self, timeout: float) -> Iterator[Peer]:
        """Those that have something to read."""
        for number, _ in self._epoll.poll(max(0.0, timeout), 512):
            yield self._peers[number]

    def listen(self, seconds: float) -> int:
        """Read whatever comes; how many messages that were."""
        heard, until = 0, perf_counter() + seconds
        while (left := until - perf_counter()) > 0:
            for peer in self.ready(left):
                heard += len(peer.messages())
        return heard

    def ask(self, frame: bytes, *, seconds: float) -> tuple[int, float]:
        """Everybody asks, waits for the answer and asks again; answers and seconds."""
        answers = 0
        for peer in self:
            peer.send(frame)
        began = perf_counter()
        until = began + seconds
        while (now := perf_counter()) < until:
            for peer in self.ready(until - now):
                for message in peer.messages():
                    if not message.startswith(EVENT):
                        answers += 1
                        peer.send(frame)
        took = perf_counter() - began
        if not answers:
            raise MeasurementFailed("not one request was answered within a round")
        return answers, took


def come_and_go(
    port: int, token: str | None, devices: list[Device | None], *, seconds: float
) -> tuple[int, float]:
    """One client after the other for each of ``devices``; handshakes and seconds.

    A client leaves as soon as it is in, by closing its socket.
    """
    epoll = select.epoll()
    coming: dict[int, tuple[Peer, Device | None]] = {}

    def begin(device: Device | None) -> None:
        peer = Peer(port, token, device)
        coming[peer.fileno()] = peer, device
        epoll.register(peer, select.EPOLLIN)

    done, began = 0, perf_counter()
    try:
        for device in devices:
            begin(device)
        while perf_counter() - began < seconds:
            for number, _ in epoll.poll(1, 64):
                peer, device = coming[number]
                if peer.shake_hands():
                    done += 1
                    del coming[number]
                    peer.close()
                    begin(device)
        took = perf_counter() - began
    finally:
        with suppress(OSError):
            epoll.close()
        for peer, _ in coming.values():
            peer.close()
    if not done:
        raise MeasurementFailed("not one client came in within a round")
    return done, took
