"""The free list of connections: reuse, staleness, limits, and every way to leave."""

import h11
import pytest
import trio
from trio.testing import MockClock

from appliance.dialling import DialFailed
from appliance.protocols.answers import MalformedAnswer
from appliance.providers.connections import (
    IDLE,
    AnswerTooLarge,
    ConnectionLost,
    ConnectionPool,
    PoolBusy,
    TooSlow,
)
from tests.providers.conftest import Wiring

REQUEST = b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """Answers each request by the last word of its path."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def serve(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(4096)))
                elif type(event) is h11.Request:
                    self.paths.append(event.target.decode())
                elif type(event) is h11.EndOfMessage:
                    if not await self._answer(stream, self.paths[-1]):
                        return
                    connection = h11.Connection(h11.SERVER)
                else:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await stream.aclose()

    async def _answer(self, stream: trio.abc.Stream, path: str) -> bool:
        match path:
            case "/silent":
                await trio.sleep_forever()
            case "/die":
                return False
            case "/die-later" if len(self.paths) > 1:
                return False
            case "/half":
                await stream.send_all(HEAD + b"5\r\nhel")
                return False
            case "/pause":
                await stream.send_all(HEAD + b"5\r\nhello\r\n")
                await trio.sleep_forever()
            case "/drip":
                await stream.send_all(HEAD)
                for _ in range(10):
                    await trio.sleep(5)
                    await stream.send_all(b"1\r\nx\r\n")
            case "/late-end":
                await stream.send_all(HEAD + b"5\r\nhello\r\n")
                await trio.sleep(0.01)
            case "/nonsense":
                await stream.send_all(b"HELLO\r\n\r\n")
            case "/endless":
                await stream.send_all(HEAD)
                while True:
                    await stream.send_all(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
            case _:
                await stream.send_all(HEAD + b"5\r\nhello\r\n")
        await stream.send_all(b"0\r\n\r\n")
        return path != "/close-after"


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def wiring(server: Server, nursery: trio.Nursery) -> Wiring:
    return Wiring(nursery, server.serve)


@pytest.fixture
def pool(wiring: Wiring) -> ConnectionPool:
    return ConnectionPool(wiring.dial, limit=4, connect_timeout=10)


async def fetch(pool: ConnectionPool, path: str = "", *, limit: int = 10_000) -> bytes:
    response = await pool.exchange(REQUEST % path.encode(), patience=20)
    try:
        return await response.read_all(limit=limit, patience=20)
    finally:
        response.release()


async def test_one_connection_serves_one_request_after_the_other(
    pool: ConnectionPool, wiring: Wiring
) -> None:
    for _ in range(5):
        assert await fetch(pool) == b"hello"

    assert wiring.dialled == 1
    assert (pool.idle, pool.unused) == (1, 4)


async def test_the_warmest_connection_is_taken_first(pool: ConnectionPool, wiring: Wiring) -> None:
    first = await pool.exchange(REQUEST % b"a", patience=20)
    second = await pool.exchange(REQUEST % b"b", patience=20)
    for response in (first, second):
        await response.read_all(limit=100, patience=20)
        response.release()

    await fetch(pool, "c")

    assert pool.idle == 2
    assert wiring.dialled == 2


@pytest.mark.parametrize("path", ["die", "half", "close-after"])
async def test_a_connection_that_ended_is_not_kept(
    pool: ConnectionPool, wiring: Wiring, path: str
) -> None:
    try:
        await fetch(pool, path)
    except (ConnectionLost, MalformedAnswer):
        assert path != "close-after"

    assert await fetch(pool) == b"hello"
    assert pool.unused == 4


async def test_a_reused_connection_that_dies_unheard_is_replaced_once(
    pool: ConnectionPool, wiring: Wiring, server: Server
) -> None:
    await fetch(pool, "first")
    with pytest.raises(MalformedAnswer, match="closed before the answer"):
        await fetch(pool, "die-later")

    assert server.paths == ["/first", "/die-later", "/die-later"]
    assert wiring.dialled == 2
    assert (pool.idle, pool.unused) == (0, 4)


async def test_a_new_connection_that_dies_is_not_replaced(
    pool: ConnectionPool, server: Server
) -> None:
    with pytest.raises(MalformedAnswer):
        await fetch(pool, "die")

    assert server.paths == ["/die"]


async def test_once_a_byte_has_come_nothing_is_asked_twice(
    pool: ConnectionPool, server: Server
) -> None:
    await fetch(pool, "first")
    with pytest.raises(MalformedAnswer):
        await fetch(pool, "half")

    assert server.paths == ["/first", "/half"]


async def test_what_idled_for_long_is_closed(
    pool: ConnectionPool, wiring: Wiring, autojump_clock: MockClock
) -> None:
    await fetch(pool)
    await trio.sleep(IDLE + 1)
    await fetch(pool)

    assert wiring.dialled == 2
    assert pool.idle == 1


async def test_the_coldest_leave_when_a_warm_one_comes_back(
    pool: ConnectionPool, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(fetch, pool)
    assert pool.idle == 3
    await trio.sleep(IDLE / 2)
    await fetch(pool)
    await trio.sleep(IDLE / 2 + 1)

    await fetch(pool)

    assert pool.idle == 1


async def test_silence_before_the_answer_has_an_end(
    pool: ConnectionPool, autojump_clock: MockClock
) -> None:
    with pytest.raises(TooSlow):
        await fetch(pool, "silent")

    assert trio.current_time() == 20
    assert (pool.idle, pool.unused) == (0, 4)


async def test_silence_within_the_answer_has_an_end(
    pool: ConnectionPool, autojump_clock: MockClock
) -> None:
    response = await pool.exchange(REQUEST % b"pause", patience=20)
    assert await response.read_some(patience=7) == b"hello"
    with pytest.raises(TooSlow):
        await response.read_some(patience=7)
    response.release()

    assert trio.current_time() == 7
    assert (pool.idle, pool.unused) == (0, 4)


async def test_drops_now_and_then_do_not_hold_off_the_deadline_of_a_whole_answer(
    pool: ConnectionPool, autojump_clock: MockClock
) -> None:
    with pytest.raises(TooSlow):
        await fetch(pool, "drip")

    assert trio.current_time() == 20


async def test_an_answer_has_a_largest_size(pool: ConnectionPool) -> None:
    with pytest.raises(AnswerTooLarge):
        await fetch(pool, "endless", limit=100_000)

    assert (pool.idle, pool.unused) == (0, 4)


async def test_what_is_not_http_is_malformed(pool: ConnectionPool) -> None:
    with pytest.raises(MalformedAnswer, match="not HTTP"):
        await fetch(pool, "nonsense")

    assert pool.unused == 4


async def test_leaving_early_closes_the_connection(pool: ConnectionPool, wiring: Wiring) -> None:
    response = await pool.exchange(REQUEST % b"pause", patience=20)
    await response.read_some(patience=20)
    response.release()
    response.release()

    assert (pool.idle, pool.unused) == (0, 4)
    with pytest.raises(trio.ClosedResourceError):
        await wiring.streams[0].send_all(b"x")


@pytest.mark.parametrize("path", ["silent", "pause"])
async def test_being_cancelled_gives_everything_back(
    pool: ConnectionPool, autojump_clock: MockClock, path: str
) -> None:
    with trio.move_on_after(3):
        await fetch(pool, path)

    assert trio.current_time() == 3
    assert (pool.idle, pool.unused) == (0, 4)


async def test_the_end_of_a_body_may_come_a_moment_after_its_last_event(
    pool: ConnectionPool, autojump_clock: MockClock
) -> None:
    response = await pool.exchange(REQUEST % b"late-end", patience=20)
    await response.read_some(patience=20)
    await response.finish(patience=0.05)
    assert pool.idle == 1

    response = await pool.exchange(REQUEST % b"pause", patience=20)
    await response.read_some(patience=20)
    await response.finish(patience=0.05)
    assert (pool.idle, pool.unused) == (0, 4)


async def test_more_requests_than_connections_wait_their_turn(
    pool: ConnectionPool, wiring: Wiring, autojump_clock: MockClock
) -> None:
    wiring.patience = 1
    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(fetch, pool)

    assert wiring.dialled <= 4
    assert pool.unused == 4


async def test_nobody_waits_for_ever_for_a_connection(
    pool: ConnectionPool, autojump_clock: MockClock
) -> None:
    held = [await pool.exchange(REQUEST % b"pause", patience=20) for _ in range(4)]
    with pytest.raises(PoolBusy):
        await fetch(pool)
    assert trio.current_time() == 10

    for response in held:
        response.release()
    assert await fetch(pool) == b"hello"


async def test_connecting_has_an_end_too(
    pool: ConnectionPool, wiring: Wiring, autojump_clock: MockClock
) -> None:
    wiring.patience = 1000
    with pytest.raises(DialFailed, match="within 10 s"):
        await fetch(pool)

    assert trio.current_time() == 10
    assert pool.unused == 4


async def test_a_closed_pool_keeps_no_connection_but_lets_calls_end(
    pool: ConnectionPool,
) -> None:
    response = await pool.exchange(REQUEST % b"x", patience=20)
    pool.close()
    assert await response.read_all(limit=100, patience=20) == b"hello"
    response.release()

    assert (pool.idle, pool.unused) == (0, 4)


async def test_over_tcp_a_connection_the_server_closed_is_noticed(server: Server) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, server.serve, 0)
        port = listeners[0].socket.getsockname()[1]
        dialled = 0

        async def dial() -> trio.abc.Stream:
            nonlocal dialled
            dialled += 1
            return await trio.open_tcp_stream("127.0.0.1", port)

        pool = ConnectionPool(dial, limit=2)
        await fetch(pool, "close-after")
        stream = pool._idle[0].stream
        assert isinstance(stream, trio.SocketStream)
        with trio.fail_after(60):
            await trio.lowlevel.wait_readable(stream.socket)
        await fetch(pool)
        await fetch(pool)

        assert dialled == 2
        assert server.paths == ["/close-after", "/", "/"]
        pool.close()
        nursery.cancel_scope.cancel()
