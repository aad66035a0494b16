"""Short cuts around trio's streams: they do what the stream would have done."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from appliance.sockets import receive_some, send_nowait


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Both ends of a TCP connection over loopback."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = await trio.open_tcp_stream(*listener.getsockname())
        assert type(near) is trio.SocketStream
        far, _ = await listener.accept()
        async with near, trio.SocketStream(far) as there:
            yield near, there


async def test_what_is_sent_arrives_without_passing_the_scheduler() -> None:
    async with connected() as (near, far):
        with trio.testing.assert_no_checkpoints():
            assert send_nowait(near, b"hello") == 5

        assert await receive_some(far, 100) == b"hello"


async def test_receiving_passes_the_scheduler_even_if_there_is_data() -> None:
    async with connected() as (near, far):
        await near.send_all(b"hello")
        with trio.testing.assert_checkpoints():
            assert await receive_some(far, 2) == b"he"
        assert await receive_some(far, 100) == b"llo"


async def test_a_full_buffer_takes_nothing_and_a_nearly_full_one_a_part() -> None:
    async with connected() as (near, far):
        sent, chunk = 0, b"x" * 1_000_000
        while taken := send_nowait(near, chunk):
            sent += taken
        assert send_nowait(near, b"y") == 0

        received = 0
        while received < sent:
            received += len(await receive_some(far, 10_000_000))
        assert received == sent


async def test_the_end_is_empty() -> None:
    async with connected() as (near, far):
        await near.send_eof()

        assert await receive_some(far, 100) == b""


async def test_a_peer_that_resets_breaks_the_stream() -> None:
    async with connected() as (near, far):
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await near.aclose()

        with pytest.raises(trio.BrokenResourceError):
            await receive_some(far, 100)
        with pytest.raises(trio.BrokenResourceError):
            send_nowait(far, b"hello")


async def test_a_stream_that_was_closed_says_so() -> None:
    async with connected() as (near, _):
        await near.aclose()

        with pytest.raises(trio.ClosedResourceError):
            await receive_some(near, 100)
        with pytest.raises(trio.BrokenResourceError):
            send_nowait(near, b"hello")


async def test_closing_wakes_whoever_receives() -> None:
    async with connected() as (near, _):

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await receive_some(near, 100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await near.aclose()


async def test_receiving_can_be_cancelled() -> None:
    async with connected() as (near, _):
        with trio.move_on_after(0) as scope:
            await receive_some(near, 100)

        assert scope.cancelled_caught


async def test_any_other_stream_is_used_as_it_is() -> None:
    near, far = memory_stream_pair()

    assert send_nowait(near, b"hello") == 0
    await near.send_all(b"hello")
    received = await receive_some(far, 100)

    assert (received, type(received)) == (b"hello", bytes)
