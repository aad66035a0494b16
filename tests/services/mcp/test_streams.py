"""Messages to and from a sandbox: what stops a server that does not keep to the rules."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from trio.testing import MockClock, lockstep_stream_pair

from appliance.services.mcp.streams import BURST, sandbox_streams
from tests.fakes.sandboxes import FakeSandbox, FakeSandboxes, Script
from tests.services.sandbox_bench import ask

NOTE = b'{"jsonrpc": "2.0", "method": "notifications/message"}\n'


class Tenant:
    id = "acme"


def streams(script: Script, *, longest: int = 10_000) -> Any:
    opening = FakeSandboxes(script).open(Tenant(), ask("server"))  # type: ignore[arg-type]  # a fake
    return sandbox_streams(opening, longest=longest)


def message(**more: Any) -> SessionMessage:
    text = json.dumps({"jsonrpc": "2.0", **more})
    return SessionMessage(jsonrpc_message_adapter.validate_json(text))


async def hear_all(stream: Any) -> int:
    count = 0
    async for _ in stream:
        count += 1
    return count


async def test_messages_go_both_ways(autojump_clock: MockClock) -> None:
    with trio.fail_after(100):
        async with streams(Script(behave=_echo)) as (incoming, outgoing):
            await outgoing.send(message(id=1, method="ping"))
            heard = await incoming.receive()
    assert heard.message.method == "ping"


async def _echo(sandbox: FakeSandbox) -> int:
    while data := await sandbox.hear():
        await sandbox.say(b"\r\nhello\n" + data)
    return 0


@pytest.mark.parametrize(
    ("output", "reason", "heard"),
    [
        (b"", "it ended by itself", 0),
        (NOTE * 3, "it ended by itself", 3),
        (b"x" * 20_000, "it said more than 10000 bytes at once", 0),
        (NOTE * 5000, "it floods the gateway with messages", int(BURST / 1.53)),
        (b"garbage\n" * 5000, "it floods the gateway with messages", 0),
    ],
)
async def test_the_end_has_a_reason(
    autojump_clock: MockClock, output: bytes, reason: str, heard: int
) -> None:
    with trio.fail_after(100):
        async with streams(Script(output=output)) as (incoming, _):
            count = await hear_all(incoming)
            assert incoming.ended.is_set()
            assert incoming.reason == reason
    assert count == pytest.approx(heard, abs=5)


async def test_large_messages_are_dearer(autojump_clock: MockClock) -> None:
    padded = NOTE.replace(b": ", b":" + b" " * 9_000, 1)
    with trio.fail_after(100):
        async with streams(Script(output=padded * 100)) as (incoming, _):
            assert 8 <= await hear_all(incoming) <= 12
            assert "floods" in incoming.reason


async def test_a_server_that_reads_nothing_is_ended(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def deaf() -> AsyncIterator[FakeSandbox]:
        async with FakeSandboxes(Script(hangs=True))._open(Tenant(), ask("server")) as sandbox:  # type: ignore[arg-type]  # a fake
            assert isinstance(sandbox, FakeSandbox)
            # One in memory would take everything at once.
            cast("Any", sandbox).input, _ = lockstep_stream_pair()
            yield sandbox

    with trio.fail_after(100):
        async with sandbox_streams(deaf(), longest=1000) as (incoming, outgoing):
            await outgoing.send(message(id=1, method="ping"))
            await incoming.ended.wait()
            assert incoming.reason == "it has not read what it is told for 10 s"


async def test_what_it_prints_besides_does_not_hold_it_up(autojump_clock: MockClock) -> None:
    script = Script(errors=b"warning\n" * 100_000, output=NOTE)
    with trio.fail_after(100):
        async with streams(script) as (incoming, _):
            assert await hear_all(incoming) == 1
