"""Connections to one server, used again and again.

A free list, last in first out: the warmest connection is taken, the coldest
ages out. httpx's pool looks at every connection several times a request, which
with 200 idle ones costs 17 ms; this costs the same whatever else is open.

Rules. A connection goes back to the list only when the answer ended where
HTTP says it ends. One that became readable while idle was closed by the
server and is dropped. A reused one that dies before the first byte of an
answer was closed under our hands, so the request is sent once more, on a new
one; any other loss is the caller's to judge. At most ``limit`` are in use;
more wait their turn, for as long as connecting may take.
"""

from typing import Protocol

import trio

from appliance.dialling import Dial, DialFailed
from appliance.protocols.answers import MalformedAnswer
from appliance.protocols.http_response import Headers, ResponseReader
from appliance.sockets import receive_some, send_nowait

READ_BYTES = 65536
IDLE = 55.0  # seconds; most servers keep an idle connection for 60 or more


class ConnectionLost(Exception):
    """The connection failed while an exchange was under way."""


class TooSlow(Exception):
    """The server did not speak in time."""


class PoolBusy(Exception):
    """All connections were in use for too long."""


class AnswerTooLarge(Exception):
    """The answer passed the size the caller set."""


class _Socket(Protocol):
    def is_readable(self) -> bool: ...
    def close(self) -> None: ...


class _Connection:
    __slots__ = ("idle_since", "socket", "stream")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.socket = _socket_of(stream)
        self.idle_since = 0.0

    def is_stale(self) -> bool:
        # What a server says unasked is its goodbye.
        return self.socket is not None and self.socket.is_readable()

    def close(self) -> None:
        """Close at once. Not async, so that it also works while being cancelled."""
        if self.socket is not None:
            self.socket.close()
        elif isinstance(self.stream, trio.StapledStream):  # in memory: tests
            self.stream.send_stream.close()
            self.stream.receive_stream.close()


def _socket_of(stream: trio.abc.Stream) -> _Socket | None:
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


class ConnectionPool:
    """The connections to one server. Used within one event loop."""

    def __init__(self, dial: Dial, *, limit: int = 64, connect_timeout: float = 10.0) -> None:
        self._dial = dial
        self._connect_timeout = connect_timeout
        self._free = trio.Semaphore(limit, max_value=limit)
        self._idle: list[_Connection] = []
        self._closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def unused(self) -> int:
        """How many more exchanges may begin at once."""
        return self._free.value

    async def exchange(
        self,
        request: bytes,
        *,
        patience: float,
        has_body: bool = True,
    ) -> "Response":
        """Send ``request`` and return the answer once its head is there.

        ``patience`` is in seconds, for sending and for the head. The response must
        be released. Raises :exc:`DialFailed`, :exc:`PoolBusy`, :exc:`TooSlow`,
        :exc:`ConnectionLost` or :exc:`MalformedAnswer`.
        """
        await self._take_turn()
        try:
            connection = self._reuse()
            if connection is not None:
                reader = ResponseReader(has_body=has_body)
                try:
                    await _ask(connection, request, reader, patience)
                except (ConnectionLost, MalformedAnswer):
                    if reader.received:
                        raise
                else:
                    return Response(self, connection, reader)
            reader = ResponseReader(has_body=has_body)
            connection = await self._connect()
            await _ask(connection, request, reader, patience)
        except BaseException:
            self._free.release()
            raise
        return Response(self, connection, reader)

    def close(self) -> None:
        """Close what is idle, and whatever is in use as soon as it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    async def _take_turn(self) -> None:
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(self._connect_timeout):
                await self._free.acquire()
                return
            raise PoolBusy from None

    def _reuse(self) -> _Connection | None:
        now = trio.current_time()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < IDLE and not connection.is_stale():
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        try:
            with trio.fail_after(self._connect_timeout):
                return _Connection(await self._dial())
        except trio.TooSlowError:
            raise DialFailed(f"no connection within {self._connect_timeout:g} s") from None

    def give_back(self, connection: _Connection, *, reusable: bool) -> None:
        """For :class:`Response`: end an exchange."""
        self._free.release()
        if not reusable or self._closed:
            connection.close()
            return
        connection.idle_since = trio.current_time()
        self._idle.append(connection)
        # The coldest leave first; without this they would stay for ever.
        while connection.idle_since - self._idle[0].idle_since >= IDLE:
            self._idle.pop(0).close()


async def _ask(
    connection: _Connection,
    request: bytes,
    reader: ResponseReader,
    patience: float,
) -> None:
    try:
        with trio.CancelScope(deadline=trio.current_time() + patience) as scope:
            rest = memoryview(request)[send_nowait(connection.stream, request) :]
            if rest:
                await connection.stream.send_all(rest)
            while not reader.status:
                reader.receive(await receive_some(connection.stream, READ_BYTES))
        if scope.cancelled_caught:
            raise TooSlow
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        connection.close()
        raise ConnectionLost from exc
    except BaseException:
        connection.close()
        raise


class Response:
    """An answer whose head is there. Whoever has it releases it."""

    __slots__ = ("_connection", "_pool", "_reader")

    def __init__(
        self, pool: ConnectionPool, connection: _Connection, reader: ResponseReader
    ) -> None:
        self._pool = pool
        self._connection: _Connection | None = connection
        self._reader = reader

    @property
    def status(self) -> int:
        return self._reader.status

    @property
    def headers(self) -> Headers:
        return self._reader.headers

    def header(self, name: bytes) -> bytes | None:
        return self._reader.header(name)

    async def receive(self) -> bytes:
        """Return more of the body, ``b""`` at its end; wait for it as long as it takes.

        Raises :exc:`ConnectionLost` or :exc:`MalformedAnswer`.
        """
        reader = self._reader
        while not (data := reader.take()) and not reader.complete:
            if self._connection is None:
                raise ConnectionLost
            try:
                reader.receive(await receive_some(self._connection.stream, READ_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise ConnectionLost from exc
        return data

    async def read_some(self, *, patience: float) -> bytes:
        """As :meth:`receive`, for at most ``patience`` seconds; then raise :exc:`TooSlow`."""
        if data := self._reader.take():
            return data  # it came with the head
        # A scope for each read: one around a loop that yields would be left on
        # trio's stack by a consumer that breaks off.
        with trio.CancelScope(deadline=trio.current_time() + patience):
            return await self.receive()
        raise TooSlow

    async def read_all(self, *, limit: int, patience: float) -> bytes:
        """Return the rest of the body; raise as :meth:`read_some`, or :exc:`AnswerTooLarge`."""
        if self._reader.complete:  # it came with the head
            if len(data := self._reader.take()) > limit:
                raise AnswerTooLarge
            return data
        pieces, size = [], 0
        with trio.CancelScope(deadline=trio.current_time() + patience):
            while data := await self.receive():
                size += len(data)
                if size > limit:
                    raise AnswerTooLarge
                pieces.append(data)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        raise TooSlow

    async def finish(self, *, patience: float) -> None:
        """Give the connection back, waiting a moment for an end that must be near.

        After a stream's last event only the end of the body is missing, mostly
        a few bytes in the same packet; without them the connection is lost.
        """
        try:
            if self._connection is not None and not self._reader.complete:
                await self.read_some(patience=patience)
        except (TooSlow, ConnectionLost, MalformedAnswer):
            pass  # the answer is whole; only the connection is not good any more
        finally:
            self.release()

    def release(self) -> None:
        """Give the connection back, or close it if the answer did not end. May be repeated."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        reusable = self._reader.complete and self._reader.reusable
        self._pool.give_back(connection, reusable=reusable)
