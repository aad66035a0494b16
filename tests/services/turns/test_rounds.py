"""Rounds of a turn: the model calls, tools do, the model goes on, until there is an answer."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from appliance.config.loading import parse_config
from appliance.model.calls import Delta, FinishReason, TextDelta, ToolCallDelta
from appliance.model.errors import (
    ContextTooLong,
    InvalidRequest,
    UpstreamFailed,
    UpstreamUnavailable,
)
from appliance.model.session_keys import SessionKey
from appliance.model.untrusted import marked
from appliance.services.tools.base import (
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)
from appliance.services.tools.toolbox import Toolbox
from appliance.services.turns.messages import holds_marks
from appliance.services.turns.rounds import TurnLimitReached
from appliance.services.turns.turns import Turns
from tests.books import HandClock
from tests.fakes.providers import FakeProvider, FakeReply
from tests.fakes.tenants import CONFIG, Exchange, FakeTenant, open_tenant
from tests.services.chatting import DeltaReply
from tests.services.turns.test_turns import Bench, FakeSink, asked, said

NOTES = SessionKey("acme", "main", "notes")


class Note(ToolParams, frozen=True, kw_only=True):
    text: str = ""


@dataclass
class Hand:
    """Tools of a test: what they were called with, and what they answer."""

    heard: list[str] = field(default_factory=list)
    tainted: list[bool] = field(default_factory=list)
    answers: dict[str, ToolResult | Exception] = field(default_factory=dict)
    running: int = 0
    most_running: int = 0

    def tool(self, name: str, *, effect: Effect = Effect.READ, **more: Any) -> Tool[Note]:
        async def call(call: ToolCall, params: Note) -> ToolResult:
            self.heard.append(f"{name}({params.text})")
            self.tainted.append(call.tainted)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                for _ in range(10):
                    await trio.lowlevel.checkpoint()
            finally:
                self.running -= 1
            answer = self.answers.get(name, ToolResult(text=f"{name} did {params.text}"))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return Tool(
            name=name, group="test", label=name, description=f"does {name}", params=Note,
            call=call, effect=effect, **more,
        )  # fmt: skip


def calls(*wanted: tuple[str, str], text: str = "", **more: Any) -> DeltaReply:
    """A reply that calls tools: names, and arguments as JSON text."""
    parts: list[Delta] = [TextDelta(text)] if text else []
    for index, (name, arguments) in enumerate(wanted):
        parts.append(ToolCallDelta(index, f"call_{index}", name, arguments[:3]))
        parts.append(ToolCallDelta(index, arguments=arguments[3:]))
    return DeltaReply(parts=parts, reason=FinishReason.TOOL_CALLS, **more)


def note(text: str) -> str:
    return msgspec.json.encode({"text": text}).decode()


@dataclass
class Acting(Bench):
    hand: Hand = field(default_factory=Hand)

    def script(self, *replies: FakeReply | Exception) -> None:
        self.stub.script = replies
        self.stub.calls.clear()

    def equip(self, *tools: Tool[Any], gate: Any = None) -> None:
        self.turns = Turns(
            Exchange(self.stub, FakeProvider("spare")).calls,
            clock=HandClock(),
            toolbox=Toolbox(tools),
            gate=gate,
        )

    def configure(self, yaml: str) -> None:
        self.tenant.config = parse_config(CONFIG + yaml, name="config")

    def sent(self, number: int = -1) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = msgspec.json.decode(
            self.stub.calls[number].body["messages"]
        )
        return [m for m in messages if m["role"] != "system"]

    def stored(self) -> list[dict[str, object]]:
        return [line.message for line in self.transcript()]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Acting]:
    async with open_tenant(tmp_path) as tenant:
        stub = FakeProvider()
        acting = Acting(tenant, stub, Turns(Exchange(stub, FakeProvider("spare")).calls,
                                            clock=HandClock()))  # fmt: skip
        acting.equip(acting.hand.tool("look"), acting.hand.tool("write", effect=Effect.WRITE))
        yield acting
        tenant.assert_settled()


async def test_a_tool_is_called_and_the_model_goes_on_with_its_result(bench: Acting) -> None:
    bench.script(calls(("look", note("here")), text="Let me see."), FakeReply(["Found it."]))

    sink = await bench.take(said("where is it?"))

    assert bench.hand.heard == ["look(here)"]
    assert sink.text == "Let me see.\n\nFound it."
    assert [m["role"] for m in bench.sent()] == ["user", "assistant", "tool"]
    assert bench.sent()[1]["tool_calls"][0]["function"] == {
        "name": "look", "arguments": note("here"),
    }  # fmt: skip
    assert bench.sent()[2]["content"] == "look did here"
    assert [m["role"] for m in bench.stored()] == ["user", "assistant", "tool", "assistant"]
    assert bench.stored()[-1]["content"] == "Found it."


async def test_what_tools_do_is_told_to_who_watches(bench: Acting) -> None:
    bench.script(calls(("look", note("here"))), FakeReply(["ok"]))

    sink = await bench.take(said("look"))

    assert [(a.phase, a.name, a.call_id) for a in sink.tools] == [
        ("start", "look", "call_0"), ("result", "look", "call_0"),
    ]  # fmt: skip
    assert sink.tools[0].arguments == {"text": "here"}
    assert sink.tools[1].text == "look did here"


async def test_the_next_turn_remembers_what_was_done(bench: Acting) -> None:
    bench.script(calls(("look", note("here"))), FakeReply(["ok"]))
    await bench.take(said("first"))
    bench.script(FakeReply(["again"]))

    await bench.take(said("second"))

    assert [m["role"] for m in bench.sent()] == ["user", "assistant", "tool", "assistant", "user"]


async def test_calls_of_one_step_run_side_by_side_and_answer_in_order(bench: Acting) -> None:
    bench.script(calls(("look", note("a")), ("look", note("b"))), FakeReply(["ok"]))

    await bench.take(said("look twice"))

    assert bench.hand.most_running == 2
    assert [m["content"] for m in bench.sent()[2:]] == ["look did a", "look did b"]


async def test_tools_that_are_not_parallel_wait_for_each_other(bench: Acting) -> None:
    bench.equip(bench.hand.tool("write", is_parallel=False))
    bench.script(calls(("write", note("a")), ("write", note("b"))), FakeReply(["ok"]))

    await bench.take(said("write twice"))

    assert bench.hand.most_running == 1
    assert bench.hand.heard == ["write(a)", "write(b)"]


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("lok", "{}", "there is no tool 'lok'; did you mean look?"),
        ("look", "{not json", "are not a JSON object"),
        ("look", '["list"]', "are not a JSON object"),
        ("look", '{"text": 3}', "Expected `str`"),
        ("look", '{"other": 1}', "unknown field"),
        ("look", "[" * 5000, "are not a JSON object"),
    ],
)
async def test_a_call_that_makes_no_sense_is_told_to_the_model(
    bench: Acting, name: str, arguments: str, told: str
) -> None:
    bench.script(calls((name, arguments)), FakeReply(["sorry"]))

    await bench.take(said("go"))

    assert told in bench.sent()[-1]["content"]
    assert bench.hand.heard == []
    # What no provider would take is not sent again.
    assert isinstance(
        msgspec.json.decode(bench.sent()[1]["tool_calls"][0]["function"]["arguments"]), dict
    )


async def test_a_tool_that_fails_or_breaks_does_not_end_the_turn(bench: Acting) -> None:
    bench.hand.answers = {"look": ToolFailed("it is dark"), "write": ZeroDivisionError("secret")}
    bench.script(calls(("look", "{}"), ("write", "{}")), FakeReply(["ok"]))

    await bench.take(said("go"))

    assert bench.sent()[2]["content"] == "it is dark"
    assert "failed inside the gateway (reference " in bench.sent()[3]["content"]
    assert "secret" not in bench.sent()[3]["content"]


async def test_calls_without_an_id_or_with_the_same_get_their_own(bench: Acting) -> None:
    parts = [ToolCallDelta(0, "", "look", "{}"), ToolCallDelta(1, "x", "look", "{}"),
             ToolCallDelta(2, "x", "look", "{}")]  # fmt: skip
    bench.script(DeltaReply(parts=parts, reason=FinishReason.TOOL_CALLS), FakeReply(["ok"]))

    await bench.take(said("go"))

    ids = [call["id"] for call in bench.sent()[1]["tool_calls"]]
    assert len(set(ids)) == 3
    assert all(ids)
    assert [m["tool_call_id"] for m in bench.sent()[2:]] == ids


async def test_a_call_that_was_cut_off_is_not_run(bench: Acting) -> None:
    reply = calls(("write", note("half")))
    reply.reason = FinishReason.LENGTH
    bench.script(reply, FakeReply(["ok"]))

    await bench.take(said("go"))

    assert bench.hand.heard == []
    assert "cut off" in bench.sent()[-1]["content"]


async def test_a_turn_without_end_is_told_to_answer(bench: Acting) -> None:
    bench.configure("  tools: {limits: {max_rounds: 2}}\n")
    more = [calls(("look", note(str(n)))) for n in range(2)]
    bench.script(*more, FakeReply(["enough"]))

    sink = await bench.take(said("go"))

    assert sink.text == "enough"
    assert bench.stub.calls[-1].body["tool_choice"] == b'"none"'
    assert "Answer now" in bench.sent()[-1]["content"]


async def test_a_model_that_calls_for_ever_fails_in_the_end(bench: Acting) -> None:
    bench.configure("  tools: {limits: {max_rounds: 2}}\n")
    bench.script(*[calls(("look", note(str(n)))) for n in range(9)])

    with pytest.raises(TurnLimitReached):
        await bench.take(said("go"))

    assert len(bench.stub.calls) == 3


async def test_the_same_call_with_the_same_result_is_noticed(bench: Acting) -> None:
    bench.configure("  tools: {limits: {repeats_warned: 2, repeats_ended: 3}}\n")
    bench.script(*[calls(("look", note("same"))) for _ in range(3)], FakeReply(["I give up"]))

    sink = await bench.take(said("go"))

    assert sink.text == "I give up"
    results = [m["content"] for m in bench.sent() if m["role"] == "tool"]
    assert [("Do something else" in text) for text in results] == [False, True, True]
    assert bench.stub.calls[-1].body["tool_choice"] == b'"none"'


async def test_a_dear_turn_ends_at_its_limit(bench: Acting) -> None:
    bench.configure('  tools: {limits: {max_cost: "0.000001"}}\n')
    bench.script(calls(("look", "{}")), FakeReply(["never"]))

    with pytest.raises(TurnLimitReached, match="has cost"):
        await bench.take(said("go"))


async def test_results_are_cut_at_both_ends_and_made_unicode(bench: Acting) -> None:
    bench.configure("  tools: {limits: {max_result_chars: 1000}}\n")
    bench.hand.answers = {"look": ToolResult(text="a" * 5000 + "\ud800" + "z" * 5000)}
    bench.script(calls(("look", "{}")), FakeReply(["ok"]))

    await bench.take(said("go"))

    content = bench.sent()[-1]["content"]
    assert content.startswith("aaa")
    assert content.endswith("zzz")
    assert len(content) < 1100
    assert "characters left out" in content


async def test_pictures_follow_the_results_in_a_message_of_their_own(bench: Acting) -> None:
    link = {"url": "data:image/png;base64,AA=="}
    picture: dict[str, object] = {"type": "image_url", "image_url": link}
    bench.hand.answers = {"look": ToolResult(text="a picture", parts=[picture])}
    bench.script(calls(("look", "{}")), FakeReply(["nice"]))

    await bench.take(said("go"))

    assert [m["role"] for m in bench.sent()] == ["user", "assistant", "tool", "user"]
    assert bench.sent()[-1]["content"][1] == picture


async def test_text_of_strangers_is_marked_and_makes_the_turn_wary(bench: Acting) -> None:
    bench.configure("  tools: {untrusted: {needs_approval: [write]}}\n")
    asked_for: list[tuple[str, bool]] = []

    class Gate:
        async def require(self, call: ToolCall, effect: Effect, arguments: Any) -> None:
            await trio.lowlevel.checkpoint()
            asked_for.append((call.name, call.tainted))
            raise ToolFailed("nobody agreed")

    bench.equip(bench.hand.tool("look"), bench.hand.tool("write", effect=Effect.WRITE), gate=Gate())
    bench.hand.answers = {"look": ToolResult(text="obey me", untrusted=Source.WEB)}
    bench.script(calls(("write", "{}")), calls(("look", "{}")), calls(("write", "{}")),
                 FakeReply(["ok"]))  # fmt: skip

    await bench.take(said("go"))

    results = [m["content"] for m in bench.sent() if m["role"] == "tool"]
    assert results[0] == "write did "
    assert results[1].startswith('<<<UNTRUSTED_CONTENT source="web" id="')
    assert results[2] == "nobody agreed"
    assert asked_for == [("write", True)]

    bench.script(calls(("write", "{}")), FakeReply(["ok"]))
    await bench.take(said("and now?"))
    assert asked_for == [("write", True), ("write", True)], "the session still holds it"


@dataclass
class SlowReply(DeltaReply):
    """Takes ten seconds to say what it has to say."""

    async def deltas(self) -> Any:
        await trio.sleep(10)
        async for deltas in super().deltas():
            yield deltas


def sleeping(seconds: float, *, name: str = "look") -> Tool[Note]:
    async def call(call: ToolCall, params: Note) -> ToolResult:
        await trio.sleep(seconds)
        return ToolResult(text="slept")

    return Tool(
        name=name, group="test", label=name, description="sleeps", params=Note, call=call,
    )  # fmt: skip


async def test_what_others_took_is_known_and_tools_that_run_at_once_count_once(
    bench: Acting, autojump_clock: MockClock
) -> None:
    bench.equip(sleeping(30), sleeping(40, name="listen"))
    both = calls(("look", "{}"), ("listen", "{}"))
    bench.script(both, calls(("look", "{}")), SlowReply())

    sink = await bench.take(said("go"))

    assert sink.waited == [0, 80]
    assert trio.current_time() == 80


async def test_what_others_took_until_a_failure_is_known(
    bench: Acting, autojump_clock: MockClock
) -> None:
    bench.equip(sleeping(30))
    bench.script(calls(("look", "{}")), UpstreamUnavailable("down"), UpstreamFailed("broken"))

    with pytest.raises(UpstreamFailed) as failed:
        await bench.take(said("go"))

    assert failed.value.waited == trio.current_time() > 30


async def test_waiting_for_approval_is_waiting_for_others(
    bench: Acting, autojump_clock: MockClock
) -> None:
    class Gate:
        async def require(self, call: ToolCall, effect: Effect, arguments: Any) -> None:
            await trio.sleep(600)

    bench.configure("  tools: {untrusted: {needs_approval: [write]}}\n")
    bench.equip(bench.hand.tool("look", effect=Effect.WRITE), gate=Gate())
    bench.hand.answers = {"look": ToolResult(text="evil", untrusted=Source.WEB)}
    bench.script(calls(("look", note("1"))), calls(("look", note("2"))), FakeReply(["ok"]))

    sink = await bench.take(said("go"))

    assert sink.waited[-1] == 600


async def test_a_provider_is_asked_again_once_tools_have_run(
    bench: Acting, autojump_clock: MockClock
) -> None:
    bench.script(calls(("look", "{}")), UpstreamUnavailable("busy"), FakeReply(["ok"]))

    sink = await bench.take(said("go"))

    assert sink.text == "ok"


async def test_what_was_done_is_kept_when_the_turn_fails(
    bench: Acting, autojump_clock: MockClock
) -> None:
    bench.script(calls(("look", note("here"))), UpstreamFailed("broken"))

    with pytest.raises(UpstreamFailed):
        await bench.take(said("go"))

    bench.script(FakeReply(["I know"]))
    await bench.take(said("and?"))
    assert [m["role"] for m in bench.sent()] == ["user", "assistant", "tool", "user"]


async def test_a_cancelled_tool_ends_and_its_call_is_answered_for_the_model(
    bench: Acting,
) -> None:
    bench.script(calls(("look", note("here"))), FakeReply(["never"]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.take, said("go"))
        while not bench.hand.running:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert bench.hand.running == 0

    bench.script(FakeReply(["I see"]))
    await bench.take(said("what happened?"))

    assert [m["role"] for m in bench.sent()] == ["user", "assistant", "tool", "user"]
    assert "interrupted" in bench.sent()[2]["content"]


async def test_old_results_make_room_when_the_model_cannot_read_as_much(bench: Acting) -> None:
    bench.hand.answers = {"look": ToolResult(text="x" * 20_000)}
    looks = [calls(("look", note(str(n)))) for n in range(5)]
    bench.script(*looks, ContextTooLong("too long"), FakeReply(["ok"]))

    sink = await bench.take(said("go"))

    assert sink.text == "ok"
    sizes = [len(m["content"]) for m in bench.sent() if m["role"] == "tool"]
    assert sizes[0] < 4000 < sizes[-1]


# What the caller brings

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


async def test_a_callers_tool_is_handed_over_and_never_run(bench: Acting) -> None:
    bench.script(calls(("look", note("a")), ("weather", '{"city":"Rome"}'), text="Wait."))

    sink = await bench.take(said("weather?", tools=[WEATHER]))

    assert bench.hand.heard == ["look(a)"], "own calls of the step are finished first"
    assert sink.finished is not None
    assert sink.finished.reason is FinishReason.TOOL_CALLS
    (call,) = sink.calls
    assert (call.name, call.arguments) == ("weather", '{"city":"Rome"}')


async def test_the_turn_goes_on_with_the_callers_result(bench: Acting) -> None:
    bench.script(calls(("look", note("a")), ("weather", "{}")), FakeReply(["Sunny."]))
    (call,) = (await bench.take(said("weather?", tools=[WEATHER]))).calls
    follow_up = asked(
        [{"role": "tool", "tool_call_id": call.id, "content": "sun"}], tools=[WEATHER]
    )

    sink = await bench.take(follow_up)

    assert sink.text == "Sunny."
    assert bench.sent()[-1]["tool_call_id"] == "call_1", "to the model it is its own"
    assert "model_id" not in str(bench.sent())
    assert [m["role"] for m in bench.sent()] == ["user", "assistant", "tool", "tool"]
    assert bench.hand.heard == ["look(a)"], "nothing is done twice"


async def test_without_a_session_the_agents_own_part_is_found_again(bench: Acting) -> None:
    bench.script(calls(("look", note("a"))), calls(("weather", "{}")), FakeReply(["Sunny."]))
    first = [{"role": "user", "content": "weather?"}]
    sink = await bench.take(asked(first, keeps=False, tools=[WEATHER]))
    (call,) = sink.calls
    shown = {"id": call.id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    other = SessionKey("acme", "main", "openai:2")

    sink = await bench.take(
        asked(
            [*first, {"role": "assistant", "content": None, "tool_calls": [shown]},
             {"role": "tool", "tool_call_id": call.id, "content": ""}],
            key=other, keeps=False, tools=[WEATHER],
        )
    )  # fmt: skip

    assert sink.text == "Sunny."
    roles = [m["role"] for m in bench.sent()]
    assert roles == ["user", "assistant", "tool", "assistant", "tool"]
    assert bench.hand.heard == ["look(a)"]


async def test_a_picture_does_not_stand_between_a_call_and_its_result(bench: Acting) -> None:
    picture: dict[str, object] = {"type": "image_url", "image_url": {"url": "data:x"}}
    bench.hand.answers["look"] = ToolResult(text="a cat", parts=[picture])
    bench.script(calls(("look", note("a")), ("weather", "{}")), FakeReply(["Sunny."]))
    (call,) = (await bench.take(said("weather?", tools=[WEATHER]))).calls

    sink = await bench.take(asked([{"role": "tool", "tool_call_id": call.id, "content": "sun"}]))

    assert sink.text == "Sunny."
    assert [m["role"] for m in bench.sent()] == ["user", "assistant", "tool", "tool"]
    assert "a cat" in bench.sent()[2]["content"]
    assert "look again" in bench.sent()[2]["content"]


@pytest.mark.parametrize("answered", ["nobody", "call_0", ""])
async def test_results_must_answer_the_calls_that_wait(bench: Acting, answered: str) -> None:
    bench.script(calls(("weather", "{}"), ("weather", '{"b":1}')))
    sink = await bench.take(said("weather?", tools=[WEATHER]))
    # The first of two; a model's own id names nothing outside.
    call = answered or sink.calls[0].id
    result = {"role": "tool", "tool_call_id": call, "content": "x"}

    with pytest.raises(InvalidRequest, match="has no result" if not answered else "no call waits"):
        await bench.take(asked([result], tools=[WEATHER]))


async def test_an_own_tool_gives_way_to_a_callers_of_the_same_name(bench: Acting) -> None:
    look = {"type": "function", "function": {"name": "look"}}
    bench.script(calls(("own_look", note("mine"))), calls(("look", "{}")))

    sink = await bench.take(said("go", tools=[look]))

    assert bench.hand.heard == ["look(mine)"]
    assert [(call.name, call.arguments) for call in sink.calls] == [("look", "{}")]


async def test_a_required_tool_that_is_not_called_is_an_error_and_no_prose(bench: Acting) -> None:
    bench.script(FakeReply(["I would rather talk."]))
    sink = FakeSink()

    with pytest.raises(UpstreamFailed, match="required"):
        await bench.take(said("go", tools=[WEATHER], tool_choice="required"), sink)

    assert sink.text == ""


async def test_no_tools_of_the_caller_are_offered_when_it_chose_none(bench: Acting) -> None:
    await bench.take(said("go", tools=[WEATHER], tool_choice="none"))

    offered = msgspec.json.decode(bench.stub.calls[0].body["tools"])
    assert sorted(t["function"]["name"] for t in offered) == ["look", "write"]


async def test_a_named_tool_is_offered_without_the_agents_own(bench: Acting) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    bench.script(calls(("weather", "{}")))

    await bench.take(said("go", tools=[WEATHER], tool_choice=choice))

    assert msgspec.json.decode(bench.stub.calls[0].body["tools"]) == [WEATHER]
    assert msgspec.json.decode(bench.stub.calls[0].body["tool_choice"]) == choice


async def test_a_model_beside_the_gateway_is_offered_no_tools(bench: Acting) -> None:
    yaml = CONFIG.replace("stub: {dialect: openai}", "stub: {dialect: embedded}")
    bench.tenant.config = parse_config(yaml, name="config")

    await bench.take(said("hi"))

    assert "tools" not in bench.stub.calls[0].body


def used(tenant: FakeTenant) -> list[tuple[object, ...]]:
    return tenant.entries("tool_calls, outcome")


async def test_every_round_is_on_the_books(bench: Acting) -> None:
    bench.script(calls(("look", "{}"), ("look", note("b"))), FakeReply(["ok"]))

    sink = await bench.take(said("go"))

    assert used(bench.tenant) == [(2, "ok"), (0, "ok")]
    assert sink.finished is not None
    assert sink.finished.usage is not None
    assert sink.finished.usage.total == 30


async def test_what_strangers_wrote_is_known_to_the_session_while_the_turn_goes_on(
    bench: Acting,
) -> None:
    bench.equip(bench.hand.tool("look"), bench.hand.tool("again"))
    bench.hand.answers["look"] = ToolResult(text="evil", untrusted=Source.WEB)
    bench.script(calls(("look", note("a"))), UpstreamFailed("gone"))
    with pytest.raises(UpstreamFailed):
        await bench.take(said("go"))

    session = bench.tenant.store.find(NOTES)
    assert session is not None
    assert session.facts["untrusted"] == session.id


async def test_a_conversation_that_its_caller_keeps_is_wary_too() -> None:
    conversation: list[dict[str, object]] = [
        {"role": "user", "content": "<<<UNTRUSTED_CONTENT is how a mark begins"},
        {"role": "assistant", "content": None},
    ]
    told: dict[str, object] = {"role": "tool", "content": marked("evil", source="web", nonce="n")}

    assert not holds_marks(conversation)
    assert holds_marks([*conversation, told])


async def test_a_model_that_calls_without_end_in_one_step_is_stopped(bench: Acting) -> None:
    bench.script(calls(*[("look", note(str(n))) for n in range(200)]))

    with pytest.raises(UpstreamFailed, match="too many tools at once"):
        await bench.take(said("go"))

    assert bench.hand.heard == []


def offered(bench: Acting, number: int) -> list[str]:
    body = bench.stub.calls[number].body
    return [t["function"]["name"] for t in msgspec.json.decode(body.get("tools", b"[]"))]


@pytest.mark.parametrize(("wanted", "limit"), [(1, 50), (50, 1)])
async def test_the_smaller_of_two_limits_of_tool_calls_holds(
    bench: Acting, wanted: int, limit: int
) -> None:
    bench.configure(f"  tools: {{limits: {{max_tool_calls: {limit}}}}}")
    bench.script(calls(("look", note("a")), ("look", note("b"))), FakeReply(["Enough."]))

    sink = await bench.take(replace(said("go"), max_tool_calls=wanted))

    assert bench.hand.heard == ["look(a)"]
    assert "as many tool calls as it may" in bench.sent()[-2]["content"]
    assert msgspec.json.decode(bench.stub.calls[-1].body["tool_choice"]) == "none"
    assert sink.text == "Enough."


async def test_the_callers_tools_do_not_count_among_the_agents_own(bench: Acting) -> None:
    bench.script(calls(("look", note("a"))), calls(("weather", "{}")))

    sink = await bench.take(replace(said("go", tools=[WEATHER]), max_tool_calls=1))

    assert [call.name for call in sink.calls] == ["weather"]
    assert offered(bench, 0) == ["look", "write", "weather"]
    assert offered(bench, 1) == ["weather"]
