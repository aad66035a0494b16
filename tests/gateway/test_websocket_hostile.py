"""What strangers and tenants send over a WebSocket: none of it harms anybody but themselves."""

import gc
import json
import random
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import pytest
import trio

from appliance.transports import hypercorn_websocket
from appliance.transports.hypercorn_websocket import DoorWebSocket
from tests.gateway.conftest import Gateway, Tenant
from tests.gateway.raw_websocket import (
    BINARY,
    CLOSE,
    CONTINUED,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    frame,
    head,
    raw,
)
from tests.gateway.vitals import is_failure, resident, wait_quiet
from tests.gateway.websocket import CLIENT, Refused, connected

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
async def unharmed(
    gateway: Gateway, acme: Tenant, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[None]:
    """Afterwards the gateway serves, nothing is left running, and the log has no failure."""
    yield
    with trio.fail_after(60):
        async with connected(gateway.port, acme.token) as client:
            assert (await client.call("health"))["ok"] is True
        await wait_quiet()
    assert [record.getMessage() for record in caplog.records if is_failure(record)] == []


async def close_code(gateway: Gateway, *data: bytes, token: str = "") -> int:
    """How a connection ends that sends ``data``, after the greeting if there is a token."""
    with trio.fail_after(60):
        async with raw(gateway.port) as client:
            if token:
                await client.connect(token)
            for piece in data:
                await client.send(piece)
            return await client.closed()


def text(message: object) -> bytes:
    return frame(TEXT, message if isinstance(message, bytes) else json.dumps(message).encode())


# -- what is no frame --------------------------------------------------------

DEEP = b'{"type":"req","id":"1","method":"health","params":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
NO_MESSAGES: dict[str, tuple[bytes, int, int]] = {
    # what is sent, how it ends before the greeting, and after it
    "binary": (frame(BINARY, b"\0\1\2"), 1003, 1003),
    "not UTF-8": (frame(TEXT, b'{"a":"\xff"}'), 1007, 1007),
    "truncated": (text(b'{"type":"req","id":"1"'), 1000, 1008),
    "nothing": (text(b""), 1000, 1008),
    "nested deeply": (text(DEEP), 1000, 1008),
    "NaN": (text(b'{"type":"req","id":"1","method":"health","params":NaN}'), 1000, 1008),
    "half a surrogate": (text(b'{"type":"req","id":"\\ud800","method":"health"}'), 1000, 1008),
    "a key twice": (text(b'{"type":"req","id":"1","id":"2","method":"health"}'), 1000, 1008),
    "a huge number": (text(b'{"type":"req","id":"1","method":"x","params":1e999}'), 1000, 1008),
    "an unknown opcode": (frame(3, b"?"), 1002, 1002),
    "a continuation of nothing": (frame(CONTINUED, b"?"), 1002, 1002),
    "a text inside a text": (frame(TEXT, b"{", final=False) + frame(TEXT, b"}"), 1002, 1002),
    "reserved bits": (frame(0x40 | TEXT, b"x"), 1002, 1002),
    "no mask": (b"\x81\x01x", 1002, 1002),
    "a long ping": (head(PING, 126) + b"x" * 126, 1002, 1002),
    "a goodbye of one byte": (frame(CLOSE, b"\x03"), 1002, 1002),
    "a length of 2^63": (b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0", 1002, 1002),
}


@pytest.mark.parametrize(("data", "before", "after"), NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_what_cannot_be_read_ends_its_connection(
    gateway: Gateway, acme: Tenant, data: bytes, before: int, after: int
) -> None:
    assert await close_code(gateway, data) == before
    assert await close_code(gateway, data, token=acme.token) == after


@pytest.mark.parametrize("authenticated", [False, True])
@pytest.mark.parametrize("pieces", [1, 50])
async def test_fifty_megabytes_are_refused_and_not_kept(
    gateway: Gateway, acme: Tenant, *, authenticated: bool, pieces: int
) -> None:
    await close_code(gateway, frame(CLOSE, b"\x03\xe8"), token=acme.token)
    before = resident()
    most = 0
    with trio.fail_after(60):
        async with raw(gateway.port) as client, trio.open_nursery() as nursery:
            if authenticated:
                await client.connect(acme.token)

            async def pour() -> None:
                nonlocal most
                size = 50 * MIB // pieces
                for number in range(pieces):
                    opcode = TEXT if number == 0 else CONTINUED
                    await client.send(head(opcode, size, final=number == pieces - 1))
                    for _ in range(size // 65_536):
                        if not await client.send(bytes(65_536).replace(b"\0", b"x")):
                            return
                        most = max(most, resident())

            nursery.start_soon(pour)
            assert await client.closed() == 1009
            nursery.cancel_scope.cancel()
    kept = 25 * MIB * 3 if authenticated else MIB  # what is allowed is collected, then joined
    assert most - before < kept + 8 * MIB


async def test_the_limit_before_the_greeting_counts_bytes(gateway: Gateway) -> None:
    fits_as_characters = json.dumps("é" * 40_000, ensure_ascii=False).encode()
    assert await close_code(gateway, text(fits_as_characters)) == 1009


def half_said() -> list[str]:
    """What is kept of each message that has not all come."""
    gc.collect()  # what connections that are over had kept
    sockets = [each for each in gc.get_objects() if isinstance(each, DoorWebSocket)]
    return [each._pieces.getvalue() for each in sockets if each._pieces is not None]


async def test_pieces_without_content_take_no_memory(gateway: Gateway, acme: Tenant) -> None:
    async with raw(gateway.port) as client:
        await client.connect(acme.token)
        await client.send(frame(TEXT, b"", final=False))
        await client.send(frame(CONTINUED, b"", final=False) * 20_000)
        begun = '{"type":"req","id":"1","method":"health"'
        for byte in begun.encode():
            await client.send(frame(CONTINUED, bytes((byte,)), final=False))
        with trio.fail_after(60):
            while (kept := half_said()) != [begun]:
                assert all(begun.startswith(each) for each in kept)
                await trio.sleep(0.01)
        await client.send(frame(CONTINUED, b"}"))
        with trio.fail_after(60):
            assert (await client.answer("1"))["ok"]


# -- frames with mistakes ----------------------------------------------------

MISTAKES: list[Any] = [
    [],
    7,
    None,
    "connect",
    {},
    {"type": "req"},
    {"type": ["req"], "id": "1", "method": "health"},
    {"type": "req", "id": 7, "method": "health"},
    {"type": "req", "id": "", "method": "health"},
    {"type": "req", "id": "i" * 257, "method": "health"},
    {"type": "req", "id": "1", "method": None},
    {"type": "req", "id": "1", "method": {"a": 1}},
    {"type": "req", "id": "1", "method": "m" * 129},
    {"type": "req", "id": "1", "method": "health", "params": [1]},
    {"type": "req", "id": "1", "method": "health", "params": "x"},
    {"type": "req", "id": "1", "method": "health", "zzz": 1},
    {"type": "req", "id": "1", "method": "health", "__proto__": {"admin": True}},
    {"type": "req", "id": "1", "method": "health", "params": {"__proto__": {}}},
    {"type": "req", "id": "1", "method": "__proto__"},
    {"type": "req", "id": "1", "method": "constructor"},
    {"type": "req", "id": "1", "method": "tenants.create", "params": {"id": "x"}},
]


async def test_mistakes_are_answered_and_end_nothing(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        for mistake in MISTAKES:
            await client.send(json.dumps(mistake))
            answer = await client.receive()
            while answer.get("event"):
                answer = await client.receive()
            assert answer["ok"] is False, mistake
            assert answer["error"]["code"] in {"INVALID_REQUEST", "FORBIDDEN"}
        assert (await client.call("health"))["ok"] is True


async def test_mistakes_before_the_greeting_end_the_connection(gateway: Gateway) -> None:
    for mistake in MISTAKES:
        assert await close_code(gateway, text(mistake)) == 1008


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("minProtocol", "3"),
        ("maxProtocol", -1),
        ("maxProtocol", 1.5),
        ("client", None),
        ("client", "cli"),
        ("client", {**CLIENT, "id": "\0"}),
        ("client", {**CLIENT, "mode": 7}),
        ("client", {**CLIENT, "version": ["1"]}),
        ("role", "admin"),
        ("role", {}),
        ("scopes", "operator.admin"),
        ("scopes", [None]),
        ("caps", [["tool-events"]]),
        ("commands", {"a": 1}),
        ("permissions", {"camera": "yes"}),
        ("auth", "token"),
        ("auth", {"token": 7}),
        ("device", {"id": "x"}),
        ("device", {"id": 1, "publicKey": 2, "signature": 3, "signedAt": "now"}),
        ("resume", {"connId": 1, "seq": "x"}),
        ("resume", {"connId": "x", "seq": -1}),
        ("resume", {"connId": "x", "seq": 2**60}),
        ("userAgent", {}),
        ("locale", 1),
    ],
)
async def test_a_greeting_with_a_wrong_type_is_refused(
    gateway: Gateway, acme: Tenant, member: str, value: object
) -> None:
    params = {
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": CLIENT,
        "auth": {"token": acme.token},
        member: value,
    }
    request = {"type": "req", "id": "c", "method": "connect", "params": params}
    with trio.fail_after(60):
        async with raw(gateway.port) as client:
            await client.say(request)
            answer = await client.answer("c")
            assert answer["error"]["code"] == "INVALID_REQUEST"
            assert await client.closed() in {1002, 1008}


async def test_the_greeting_is_said_once(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        with pytest.raises(Refused, match="only valid as the first request"):
            await client.call("connect", minProtocol=3, maxProtocol=4, client=CLIENT)
        assert (await client.call("health"))["ok"] is True


async def test_answers_to_requests_never_made_are_passed_over(
    gateway: Gateway, acme: Tenant
) -> None:
    async with connected(gateway.port, acme.token) as client:
        for stray in (
            {"type": "res", "id": "r1", "ok": True, "payload": {}},
            {"type": "res"},
            {"type": "event", "event": "shutdown", "payload": {"reason": "x"}, "seq": 99},
            {"type": "event"},
        ):
            await client.send(stray)
        assert (await client.call("health"))["ok"] is True


@pytest.mark.parametrize(
    "key",
    ["tenant:other:main", "tenant:acme:tenant:other:main", "agent:main:tenant:other:main", "a\0b"],
)
async def test_a_session_key_cannot_name_another_tenant(
    gateway: Gateway, acme: Tenant, key: str
) -> None:
    await gateway.create("other")
    refusals = set()
    async with connected(gateway.port, acme.token) as client:
        for foreign in (key, key.replace("other", "nobody")):
            with pytest.raises(Refused) as caught:
                await client.call("chat.history", sessionKey=foreign)
            refusals.add(caught.value.message.replace("nobody", "other"))
    assert len(refusals) == 1  # whether it exists is not told


async def test_an_idempotency_key_is_for_one_request(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        send = partial(client.call, "chat.send", sessionKey="main", idempotencyKey="k")
        first = await send(message="one")
        assert (await send(message="one"))["runId"] == first["runId"]
        with pytest.raises(Refused, match="was used for another request"):
            await send(message="two")


async def test_tens_of_thousands_of_unknown_keys_are_a_short_answer(
    gateway: Gateway, acme: Tenant
) -> None:
    params = {f"sessionKez{number}": number for number in range(90_000)}
    async with connected(gateway.port, acme.token) as client:
        before = trio.current_time()
        with pytest.raises(Refused, match="unexpected property") as caught:
            await client.call("chat.history", **params)
        assert trio.current_time() - before < 2
    assert len(json.dumps(caught.value.error)) < 10_000


# -- floods ------------------------------------------------------------------


async def test_thousands_of_half_open_connections_keep_nobody_out(
    gateway: Gateway, acme: Tenant
) -> None:
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        streams: list[trio.SocketStream] = []

        async def open_one(said: bytes) -> None:
            stream = await trio.open_tcp_stream("127.0.0.1", gateway.port)
            streams.append(stream)
            await stream.send_all(said)

        with trio.fail_after(60):
            for number in range(2_000):
                nursery.start_soon(open_one, UPGRADE if number % 2 else UPGRADE[:60])
                if number % 250 == 249:
                    async with connected(gateway.port, acme.token) as client:
                        assert (await client.call("health"))["ok"] is True
        for stream in streams:
            stack.push_async_callback(trio.aclose_forcefully, stream)


@pytest.mark.parametrize("websocket_limits", ["{handshake_timeout: 0.5}"])
async def test_a_greeting_that_drips_in_is_cut_off(gateway: Gateway, acme: Tenant) -> None:
    params = {"auth": {"token": acme.token}, "client": CLIENT, "minProtocol": 3, "maxProtocol": 4}
    said = text({"type": "req", "id": "c", "method": "connect", "params": params})
    with trio.fail_after(60):
        async with raw(gateway.port) as client, trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in said:
                    await client.send(bytes((byte,)))
                    await trio.sleep(0.02)

            nursery.start_soon(drip)
            assert await client.closed() == 1008
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("authenticated", [False, True])
async def test_pings_that_nobody_waits_for_take_no_memory(
    gateway: Gateway, acme: Tenant, *, authenticated: bool
) -> None:
    async with raw(gateway.port) as client:
        if authenticated:
            await client.connect(acme.token)
        before = resident()
        flood = frame(PING, b"p" * 125) * 8_000  # a megabyte
        with trio.move_on_after(1):
            for _ in range(40):
                await client.send(flood)
        assert resident() - before < 4 * MIB
        async with connected(gateway.port, acme.token) as other:
            assert (await other.call("health"))["ok"] is True


async def test_the_latest_ping_is_answered(gateway: Gateway, acme: Tenant) -> None:
    async with raw(gateway.port) as client:
        await client.connect(acme.token)
        await client.send(b"".join(frame(PING, str(number).encode()) for number in range(100)))
        with trio.fail_after(60):
            while (await client.frame()) != (PONG, b"99"):
                pass


async def test_who_talks_on_after_the_goodbye_is_cut_off(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypercorn_websocket, "CLOSING_PATIENCE", 0.3)
    async with raw(gateway.port) as client:
        await client.say({"type": "req", "id": "c", "method": "health"})
        with trio.fail_after(60):
            while await client.send(text(b"{}") * 1_000):
                pass


async def test_what_is_said_before_the_gateway_agreed_is_refused(
    gateway: Gateway, acme: Tenant
) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
        await stream.send_all(UPGRADE + text(b"{}") * 3)
        with trio.fail_after(60):
            answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 400")
            assert await stream.receive_some() == b""


async def test_two_hundred_that_vanish_at_any_moment_leave_nothing(
    gateway: Gateway, acme: Tenant
) -> None:
    dice = random.Random(5)  # noqa: S311 - where to stop, not a secret
    params = {"auth": {"token": acme.token}, "client": CLIENT, "minProtocol": 3, "maxProtocol": 4}
    chat = {"sessionKey": "main", "message": "hi", "idempotencyKey": "k"}
    whole = UPGRADE + text({"type": "req", "id": "c", "method": "connect", "params": params})
    whole += text({"type": "req", "id": "h", "method": "health"})
    whole += text({"type": "req", "id": "s", "method": "chat.send", "params": chat})
    gate = trio.CapacityLimiter(20)

    async def vanish(length: int, pause: float, *, reset: bool) -> None:
        async with gate, await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(whole[: len(UPGRADE)][:length])
                if length > len(UPGRADE):
                    await stream.receive_some(1)
                    await stream.send_all(whole[len(UPGRADE) : length])
                await trio.sleep(pause)
            if reset:
                stream.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(
                    partial(
                        vanish,
                        dice.randrange(len(whole)),
                        dice.random() / 20,
                        reset=dice.random() < 0.5,
                    )
                )
