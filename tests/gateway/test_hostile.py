"""What strangers send: none of it ends the gateway, or holds a connection for ever."""

import json
from contextlib import suppress

import pytest
import trio

from tests.gateway.conftest import Gateway, Tenant, said

PATIENCE = 30.0  # seconds; longer than a connection lingers
HOST = b"host: gateway\r\n"
LEFT_OPEN = b"<left open>"


async def sent(gateway: Gateway, *pieces: bytes) -> bytes:
    """What comes back for ``pieces``, sent a moment apart, until the gateway closes."""
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
        with trio.move_on_after(PATIENCE):
            # A reset is an end too, also while there was more to say.
            with suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await stream.send_all(piece)
                    await trio.sleep(0.02)
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    received += data
            return received
    return received + LEFT_OPEN


async def is_alive(gateway: Gateway) -> bool:
    answer = await gateway.http.get("/healthz")
    return answer.status_code == 200


UNEXPECTED = {
    "garbage": b"GARBAGE\r\n\r\n",
    "garbage after a request": b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\nGARBAGE\r\n\r\n",
    "a request after the last one": (
        b"GET /healthz HTTP/1.1\r\nconnection: close\r\n" + HOST + b"\r\n"
    )
    * 2,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "half a WebSocket handshake": (
        b"GET /ws HTTP/1.1\r\n" + HOST + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    ),
    "two lengths": (
        b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"content-length: 40\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a chunk of any size": (
        b"POST /nope HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"
        b"FFFFFFFFFFFFFFFFFFFFFFFFFFFF\r\nab"
    ),
    "a head without end": b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 200_000,
}


@pytest.mark.parametrize("request_bytes", UNEXPECTED.values(), ids=UNEXPECTED)
async def test_what_is_no_request_ends_its_connection_and_nothing_else(
    gateway: Gateway, request_bytes: bytes
) -> None:
    assert not (await sent(gateway, request_bytes)).endswith(LEFT_OPEN)

    assert await is_alive(gateway)


async def test_an_offer_to_speak_http2_is_answered_in_http1(gateway: Gateway) -> None:
    offer = b"upgrade: h2c\r\nconnection: upgrade, close\r\nhttp2-settings: x\r\n\r\n"

    answer = await sent(gateway, b"GET /healthz HTTP/1.1\r\n" + HOST + offer)

    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_length_given_twice_smuggles_no_second_request(gateway: Gateway) -> None:
    answer = await sent(
        gateway,
        b"POST /nope HTTP/1.1\r\n" + HOST + b"content-length: 4\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    )

    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("path", ["/nope", "/v1/usage", "/v1/tenants", "/v1/chat/completions"])
async def test_who_is_refused_before_the_body_is_there_is_told_and_let_go(
    gateway: Gateway, path: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: 2\r\n\r\n".encode()

    for pieces in ((head, b"{}"), (head,), (head, b"{", b"}")):
        answer = await sent(gateway, *pieces)
        assert answer.startswith((b"HTTP/1.1 40", b"HTTP/1.1 41"))
        assert b"\r\nconnection: close\r\n" in answer
        assert not answer.endswith(LEFT_OPEN)
    assert await is_alive(gateway)


async def test_a_body_may_arrive_at_any_moment_of_a_refusal(gateway: Gateway) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-length: 2\r\n\r\n"

    for microseconds in range(0, 3_000, 60):
        async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
            await stream.send_all(head)
            await trio.sleep(microseconds / 1_000_000)
            try:
                await stream.send_all(b"{}")
                assert b" 401 " in await stream.receive_some()
            except trio.BrokenResourceError:
                pass

    assert await is_alive(gateway)


async def test_a_refused_client_is_served_on_its_next_request(
    gateway: Gateway, acme: Tenant
) -> None:
    for _ in range(20):
        wrong = await gateway.http.post("/v1/nothing", content=json.dumps(said("hello")))
        assert wrong.status_code == 404
        assert (await gateway.chat(acme, said("hello"))).status_code == 200
