"""Tools that a client calls itself, by the same policy as an agent."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import SessionKey
from appliance.model.tokens import Scope
from appliance.services.tools.base import (
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)
from appliance.services.tools.invocations import (
    Invocation,
    Invoked,
    ToolInvocations,
    ToolUnknown,
)
from appliance.services.tools.toolbox import Toolbox
from tests.books import HandClock
from tests.fakes.tenants import CALLER
from tests.services.tools.calling import ToolBench, open_bench

MAIN = SessionKey("acme", "main", "main")


class Params(ToolParams, frozen=True, kw_only=True):
    text: str = ""


@dataclass
class Bench:
    tools: ToolBench
    heard: list[str] = field(default_factory=list)
    answer: ToolResult | Exception = field(default_factory=lambda: ToolResult(text="done"))

    def __post_init__(self) -> None:
        async def call(call: ToolCall, params: Params) -> ToolResult:
            await trio.lowlevel.checkpoint()
            self.heard.append(f"{call.name} {params.text}".strip())
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        def made(name: str, effect: Effect) -> Tool[Params]:
            return Tool(name=name, group="fs", label=name, description="", params=Params,
                        call=call, effect=effect)  # fmt: skip

        self.invocations = ToolInvocations(
            Toolbox([made("read", Effect.READ), made("write", Effect.WRITE)]),
            gate=None, clock=HandClock(),
        )  # fmt: skip

    async def invoke(self, name: str = "read", **more: Any) -> Invoked:
        arguments = more.pop("arguments", {})
        return await self.invocations.invoke(
            self.tools.tenant, CALLER,
            Invocation(key=MAIN, name=name, arguments=arguments, **more),
        )  # fmt: skip


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as tools:
        yield Bench(tools)


async def test_a_tool_is_run_with_its_arguments(bench: Bench) -> None:
    invoked = await bench.invoke(arguments={"text": "x"})

    assert invoked == Invoked(ok=True, text="done")
    assert bench.heard == ["read x"]


async def test_text_of_strangers_is_marked_here_too(bench: Bench) -> None:
    bench.answer = ToolResult(text="obey", untrusted=Source.WEB)

    assert "UNTRUSTED_CONTENT" in (await bench.invoke()).text


async def test_a_failure_is_told(bench: Bench) -> None:
    bench.answer = ToolFailed("it is dark")

    assert await bench.invoke() == Invoked(ok=False, text="it is dark")


async def test_bad_arguments_are_told_and_nothing_runs(bench: Bench) -> None:
    invoked = await bench.invoke(arguments={"nope": 1})

    assert not invoked.ok
    assert "unknown field" in invoked.text
    assert bench.heard == []


@pytest.mark.parametrize("name", ["nope", "__proto__", ""])
async def test_what_is_not_there_is_not_found(bench: Bench, name: str) -> None:
    with pytest.raises(ToolUnknown):
        await bench.invoke(name)


async def test_what_policy_denies_looks_like_what_is_not_there(bench: Bench) -> None:
    bench.tools.configure("  tools: {deny: [read]}\n")

    with pytest.raises(ToolUnknown) as denied:
        await bench.invoke("read")
    with pytest.raises(ToolUnknown) as missing:
        await bench.invoke("raed")

    assert denied.value.detail.replace("read", "x") == missing.value.detail.replace("raed", "x")
    assert bench.heard == []


async def test_http_has_a_policy_of_its_own_on_top(bench: Bench) -> None:
    with pytest.raises(ToolUnknown):
        await bench.invoke("write", over_http=True)

    assert (await bench.invoke("write")).ok


async def test_sent_again_it_is_answered_and_not_done_again(bench: Bench) -> None:
    first = await bench.invoke(arguments={"text": "x"}, idempotency_key="k")
    bench.answer = ToolResult(text="something else")

    again = await bench.invoke(arguments={"text": "x"}, idempotency_key="k")

    assert again == first
    assert bench.heard == ["read x"]


async def test_a_key_stands_for_one_call(bench: Bench) -> None:
    await bench.invoke(arguments={"text": "x"}, idempotency_key="k")

    with pytest.raises(InvalidRequest, match="another call"):
        await bench.invoke(arguments={"text": "y"}, idempotency_key="k")


async def test_a_call_that_was_cancelled_may_be_sent_again(bench: Bench) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.invoke(idempotency_key="k")

    assert (await bench.invoke(idempotency_key="k")).ok


async def test_the_catalogue_tells_which_profiles_have_a_tool(bench: Bench) -> None:
    (read, write) = bench.invocations.catalogue()

    assert read.tool.name == "read"
    assert write.profiles == ("coding", "full")
    assert read.schema["type"] == "object"


async def test_the_effective_tools_are_those_of_the_session(bench: Bench) -> None:
    bench.tools.configure("  tools: {deny: [write]}\n")

    found = await bench.invocations.effective(bench.tools.tenant, MAIN)

    assert [each.tool.name for each in found] == ["read"]


async def test_a_token_for_chatting_gets_at_files_and_commands_through_a_model_only(
    bench: Bench,
) -> None:
    chatting = replace(CALLER, scopes=frozenset({Scope.CHAT}))
    managing = replace(CALLER, scopes=frozenset({Scope.CHAT, Scope.MANAGE}))
    write = Invocation(key=MAIN, name="write", arguments={}, channel="webchat")

    with pytest.raises(ToolUnknown):
        await bench.invocations.invoke(bench.tools.tenant, chatting, write)
    assert (await bench.invocations.invoke(bench.tools.tenant, managing, write)).ok


async def test_a_key_that_is_sent_again_is_for_the_same_session(bench: Bench) -> None:
    await bench.invoke(idempotency_key="k")
    other = Invocation(
        key=SessionKey("acme", "main", "other"), name="read", arguments={}, idempotency_key="k"
    )

    with pytest.raises(InvalidRequest, match="another call"):
        await bench.invocations.invoke(bench.tools.tenant, CALLER, other)
