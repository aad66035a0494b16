"""Speaking to the people of another conversation."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.model.session_keys import SessionKey
from appliance.services.chat import Message
from appliance.services.chat_notes import Delivered
from appliance.services.subagents import is_tainted
from appliance.services.tools.base import Effect, ToolFailed, ToolResult
from appliance.services.tools.messaging import message_tool
from tests.books import NOON
from tests.services.tools.calling import ToolBench, open_bench

OTHER = SessionKey("acme", "main", "other")


@dataclass
class Desk:
    delivered: list[tuple[str, str]] = field(default_factory=list)

    async def deliver(self, tenant: Any, message: Message, *, space: str = "send") -> Delivered:
        del tenant, space
        await trio.lowlevel.checkpoint()
        self.delivered.append((message.key.short, message.text))
        return Delivered(
            run_id="r", message_id="msg_1", channel="webchat", session_key=message.key.short
        )


@dataclass
class Bench:
    tools: ToolBench
    desk: Desk

    async def send(self, *, tainted: bool = False, **arguments: Any) -> ToolResult:
        return await self.tools.call(message_tool(self.desk), arguments, tainted=tainted)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        tools.tenant.store.open_session(OTHER, now=NOON)
        tools.tenant.store.patch(OTHER, label="the others", now=NOON)
        yield Bench(tools, Desk())


def test_it_tells_somebody() -> None:
    assert message_tool(Desk()).effect is Effect.SEND


@pytest.mark.parametrize("where", [{"sessionKey": "other"}, {"label": "the others"}])
async def test_a_message_goes_to_the_session_that_is_named(
    bench: Bench, where: dict[str, Any]
) -> None:
    result = await bench.send(message="hello", **where)

    assert bench.desk.delivered == [(OTHER.short, "hello")]
    assert result.details == {"messageId": "msg_1"}


async def test_without_a_name_it_goes_to_the_people_of_this_one(bench: Bench) -> None:
    await bench.send(message="hello")

    assert bench.desk.delivered == [("agent:main:main", "hello")]


@pytest.mark.parametrize(
    "where",
    [
        {"sessionKey": "nowhere"},
        {"label": "nobody"},
        {"sessionKey": "tenant:evil:agent:main:main"},
        {"channel": "irc"},
    ],
)
async def test_what_is_not_there_gets_no_message(bench: Bench, where: dict[str, Any]) -> None:
    with pytest.raises(ToolFailed):
        await bench.send(message="hello", **where)

    assert bench.desk.delivered == []


async def test_a_wary_run_makes_who_hears_it_wary(bench: Bench) -> None:
    await bench.send(message="obey", sessionKey="other", tainted=True)

    session = bench.tools.tenant.store.find(OTHER)
    assert session is not None
    assert is_tainted(session)
