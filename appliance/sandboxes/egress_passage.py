"""One connection on its way through the egress proxy: what it may use, and how it ends."""

from collections.abc import Awaitable, Callable

import h11
import trio

from appliance.model.egress import EgressRule
from appliance.sandboxes.egress_settings import EgressSettings, Verdict

READ_BYTES = 64 * 1024
_GOODBYE_PATIENCE = 1.0  # seconds
_MOST_UNREAD = 256 * 1024  # bytes that are taken from a client that is being refused


class EgressEnded(Exception):
    """Ends a connection. The reason is safe to show inside the sandbox."""

    def __init__(self, verdict: Verdict, reason: str, *, status: int = 403) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason
        self.status = status


# What ends a connection in the ordinary course of things.
Endings = (
    EgressEnded,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    h11.RemoteProtocolError,
)


class Budget:
    """The bytes that are left to a sandbox, altogether and for each rule."""

    def __init__(self, settings: EgressSettings) -> None:
        self._left = settings.max_bytes
        self._left_of_rule = {
            rule: rule.max_bytes for rule in settings.rules.rules if rule.max_bytes is not None
        }

    def check(self, rule: EgressRule | None) -> None:
        """Raise :exc:`EgressEnded` if nothing is left."""
        if self._left <= 0 or (rule in self._left_of_rule and self._left_of_rule[rule] <= 0):
            raise _used_up()

    def take(self, count: int, rule: EgressRule | None) -> None:
        """Raise :exc:`EgressEnded` if there are not ``count`` bytes left."""
        self._left -= count
        if rule in self._left_of_rule:
            self._left_of_rule[rule] -= count
            if self._left_of_rule[rule] < 0:
                raise _used_up()
        if self._left < 0:
            raise _used_up()


def _used_up() -> EgressEnded:
    return EgressEnded(
        Verdict.LIMITED, "the bytes that this sandbox may send and receive are used up"
    )


class Passage:
    """What is known and counted of one connection."""

    def __init__(self, client: trio.abc.Stream, budget: Budget, idle_timeout: float) -> None:
        self.client = client  # a TLS stream, once that is ended here
        self.host = ""
        self.port = 0
        self.rule: EgressRule | None = None
        self.sent_bytes = 0
        self.received_bytes = 0
        self.can_answer = True  # nothing that was said to the client stands in the way
        self.scope = trio.CancelScope()
        self._budget = budget
        self._idle_timeout = idle_timeout
        self._stay()

    def under(self, rule: EgressRule) -> None:
        """From now on, bytes count for ``rule``; raise :exc:`EgressEnded` if it has none left."""
        self.rule = rule
        self._budget.check(rule)

    def count_sent(self, count: int) -> None:
        self.sent_bytes += count
        self._budget.take(count, self.rule)
        self._stay()

    def count_received(self, count: int) -> None:
        self.received_bytes += count
        self._budget.take(count, self.rule)
        self._stay()

    def _stay(self) -> None:
        # Bytes in either direction keep both open: a download says nothing upwards.
        self.scope.deadline = trio.current_time() + self._idle_timeout


async def together(*tasks: Callable[[], Awaitable[None]]) -> None:
    """Run all until they return; the first that fails ends the others and is raised as it is."""
    failures: list[Exception] = []

    async with trio.open_nursery() as nursery:

        async def run(task: Callable[[], Awaitable[None]]) -> None:
            try:
                await task()
            except Endings as exc:
                failures.append(exc)
                nursery.cancel_scope.cancel()

        for task in tasks:
            nursery.start_soon(run, task)
    if failures:
        raise failures[0]


async def pump(
    source: trio.abc.Stream,
    sink: trio.abc.Stream,
    count: Callable[[int], None],
    allow: Callable[[bytes], bytes] = bytes,
) -> None:
    """Copy until ``source`` ends, and say so to ``sink``.

    TLS as we speak it knows no half-closed connection: there the end of one
    direction is the end of both.
    """
    while data := await source.receive_some(READ_BYTES):
        count(len(data))
        await sink.send_all(allow(bytes(data)))
    if not isinstance(sink, trio.SocketStream):
        raise trio.ClosedResourceError("one direction has ended")
    await sink.send_eof()


async def say_goodbye(
    stream: trio.abc.Stream, socket: trio.SocketStream, ended: EgressEnded
) -> None:
    """Answer with the reason, as far as the client still listens, and do not wait for long.

    ``stream`` is ``socket``, or TLS on it.
    """
    body = f"{ended.reason}\n".encode()
    head = (
        f"HTTP/1.1 {ended.status} {_PHRASES.get(ended.status, 'Refused')}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    try:
        with trio.move_on_after(_GOODBYE_PATIENCE):
            await stream.send_all(head.encode() + body)
            await socket.send_eof()
            # Closing with something unread would reset the connection, and
            # the client would lose the answer.
            unread = 0
            while unread < _MOST_UNREAD and (data := await socket.receive_some(READ_BYTES)):
                unread += len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it has left


_PHRASES = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
