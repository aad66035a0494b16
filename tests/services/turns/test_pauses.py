"""Who may go on with a turn that waits for its caller, and what comes of asking twice."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.model.calls import ToolCallDelta
from appliance.model.errors import InvalidRequest, UpstreamFailed
from appliance.model.session_keys import SessionKey
from appliance.services.turns.pauses import SinceUser
from appliance.services.turns.requests import TurnRequest
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeReply
from tests.fakes.tenants import CALLER
from tests.services.turns.test_rounds import WEATHER, Acting, calls, note
from tests.services.turns.test_rounds import bench as bench  # a fixture
from tests.services.turns.test_turns import FakeSink, asked

KEY = SessionKey("acme", "main", "notes")
BOB = replace(CALLER, credential="tok_2")
SUN = "sun"


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def called(*made: ToolCallDelta) -> dict[str, Any]:
    """What a client sends back of an answer that calls."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": "{}"}}
            for c in made
        ],
    }


def result(call: ToolCallDelta, content: object = SUN) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call.id, "content": content}


@dataclass
class Alone:
    """A client that keeps its conversation itself."""

    bench: Acting
    number: int = 0

    async def ask(self, *messages: dict[str, Any], caller: Any = CALLER) -> FakeSink:
        self.number += 1
        key = SessionKey("acme", "main", f"openai:{self.number}")
        sink = FakeSink()
        turn = asked(list(messages), key=key, keeps=False, tools=[WEATHER])
        await self.bench.turns.run(self.bench.tenant, caller, turn, sink)
        return sink

    async def pause(self, text: str, secret: str) -> ToolCallDelta:
        """Have the agent look, and then call a tool of its caller's."""
        self.bench.script(calls(("look", note(secret))), calls(("weather", "{}")))
        (call,) = (await self.ask(said(text))).calls
        self.bench.script(FakeReply(["Sunny."]), FakeReply(["Sunny."]), FakeReply(["Sunny."]))
        return call


@pytest.fixture
def alone(bench: Acting) -> Alone:
    return Alone(bench)


async def test_whoever_paused_a_turn_goes_on_with_it(alone: Alone) -> None:
    call = await alone.pause("weather?", "secret")

    await alone.ask(said("weather?"), called(call), result(call))

    assert "secret" in str(alone.bench.sent())


async def test_nobody_else_is_shown_what_the_agent_did(alone: Alone) -> None:
    call = await alone.pause("weather?", "secret")

    sink = await alone.ask(said("weather?"), called(call), result(call), caller=BOB)

    assert sink.text == "Sunny.", "it is like any call of a model that is not ours"
    assert "secret" not in str(alone.bench.sent())


@pytest.mark.parametrize(
    "before",
    [
        [said("something else")],
        [said("weather?"), {"role": "assistant", "content": "?"}, said("in Rome")],
        [],
    ],
)
async def test_it_is_not_found_behind_other_words(
    alone: Alone, before: list[dict[str, Any]]
) -> None:
    call = await alone.pause("weather?", "secret")

    await alone.ask(*before, called(call), result(call))

    assert "secret" not in str(alone.bench.sent())


async def test_the_models_own_id_names_no_turn(alone: Alone) -> None:
    await alone.pause("weather?", "secret")
    call = ToolCallDelta(0, "call_0", "weather", "{}")

    await alone.ask(said("weather?"), called(call), result(call))

    assert "secret" not in str(alone.bench.sent())


async def test_two_turns_whose_model_called_alike_are_two(alone: Alone) -> None:
    one = await alone.pause("one", "first-secret")
    two = await alone.pause("two", "second-secret")

    await alone.ask(said("one"), called(one), result(one))
    assert "first-secret" in str(alone.bench.sent())
    assert "second-secret" not in str(alone.bench.sent())

    await alone.ask(said("two"), called(two), result(two))
    assert "second-secret" in str(alone.bench.sent())


async def test_a_conversation_that_paused_twice_holds_each_round_once(alone: Alone) -> None:
    one = await alone.pause("go", "first")
    alone.bench.script(calls(("look", note("second"))), calls(("weather", "{}")))
    (two,) = (await alone.ask(said("go"), called(one), result(one))).calls
    alone.bench.script(FakeReply(["Done."]))

    await alone.ask(said("go"), called(one), result(one), called(two), result(two))

    roles = [message["role"] for message in alone.bench.sent()]
    assert roles == ["user", *["assistant", "tool"] * 4]
    assert str(alone.bench.sent()).count("look did first") == 1


async def test_a_lost_answer_is_given_again_without_acting_again(alone: Alone) -> None:
    call = await alone.pause("go", "a")
    follow_up = [said("go"), called(call), result(call)]
    alone.bench.script(calls(("write", note("b"))), FakeReply(["Done."]))
    await alone.ask(*follow_up)
    alone.bench.script(FakeReply(["Done again."]))

    sink = await alone.ask(*follow_up)

    assert sink.text == "Done again."
    assert alone.bench.hand.heard == ["look(a)", "write(b)"]
    assert alone.bench.sent()[-1]["content"] == "write did b"
    told = [(each.phase, each.name) for each in sink.tools]
    assert told == [("start", "write"), ("result", "write")]


async def test_other_results_are_another_follow_up(alone: Alone) -> None:
    call = await alone.pause("go", "a")
    alone.bench.script(calls(("write", note("b"))), FakeReply(["Done."]))
    await alone.ask(said("go"), called(call), result(call))
    alone.bench.script(calls(("write", note("c"))), FakeReply(["Done."]))

    await alone.ask(said("go"), called(call), result(call, "rain"))

    assert alone.bench.hand.heard == ["look(a)", "write(b)", "write(c)"]


async def test_follow_ups_that_come_at_once_act_once(alone: Alone) -> None:
    call = await alone.pause("go", "a")
    alone.bench.script(calls(("write", note("b"))), *[FakeReply(["Done."])] * 3)

    async with trio.open_nursery() as together:
        for _ in range(3):
            together.start_soon(alone.ask, said("go"), called(call), result(call))

    assert alone.bench.hand.heard == ["look(a)", "write(b)"]


# In a session


def follow_up(call: ToolCallDelta, *more: dict[str, Any]) -> TurnRequest:
    return asked([result(call), *more], tools=[WEATHER])


async def pause(bench: Acting) -> ToolCallDelta:
    bench.script(calls(("look", note("a"))), calls(("weather", "{}")))
    (call,) = (await bench.take(asked([said("go")], tools=[WEATHER]))).calls
    return call


@pytest.mark.parametrize("more", [[], [said("and quickly")]])
async def test_a_session_answers_a_follow_up_twice_and_acts_once(
    bench: Acting, more: list[dict[str, Any]]
) -> None:
    call = await pause(bench)
    bench.script(calls(("write", note("b"))), FakeReply(["Done."]))
    await bench.take(follow_up(call, *more))
    bench.script(FakeReply(["Done again."]), FakeReply(["Yes?"]))

    sink = await bench.take(follow_up(call, *more))

    assert sink.text == "Done again."
    assert bench.hand.heard == ["look(a)", "write(b)"]
    again = bench.sent()
    await bench.take(asked([said("next")]))
    now = bench.sent()
    assert now == [*again, {"role": "assistant", "content": "Done again."}, said("next")]


async def test_what_broke_off_after_acting_goes_on_from_there(bench: Acting) -> None:
    call = await pause(bench)
    bench.script(calls(("write", note("b"))), UpstreamFailed("gone"))
    with pytest.raises(UpstreamFailed):
        await bench.take(follow_up(call))
    bench.script(FakeReply(["Done."]))

    sink = await bench.take(follow_up(call))

    assert sink.text == "Done."
    assert bench.hand.heard == ["look(a)", "write(b)"]


async def test_a_follow_up_cancelled_anywhere_can_be_sent_again(bench: Acting) -> None:
    numbers = iter(range(1_000))
    key, call = KEY, ToolCallDelta(0)

    async def work() -> None:
        nonlocal key, call
        key = replace(KEY, rest=f"number-{next(numbers)}")
        bench.hand.heard.clear()
        bench.script(calls(("look", note("a"))), calls(("weather", "{}")))
        call = ToolCallDelta(0)
        (call,) = (await bench.take(asked([said("go")], key=key, tools=[WEATHER]))).calls
        bench.script(calls(("write", note("b"))), FakeReply(["Done."]))
        await bench.take(asked([result(call)], key=key, tools=[WEATHER]))

    tried = 0
    async for _ in each_cancellation(work):
        if not call.id:
            continue  # not paused yet
        tried += 1
        bench.script(FakeReply(["Done."]))
        sink = await bench.take(asked([result(call)], key=key, tools=[WEATHER]))
        assert sink.text == "Done."
        assert bench.hand.heard in (["look(a)"], ["look(a)", "write(b)"])
        roles = [message["role"] for message in bench.sent()]
        assert roles == ["user", *["assistant", "tool"] * (len(roles) // 2)]
    assert tried > 10


async def test_a_call_that_was_lost_with_its_answer_is_made_again(bench: Acting) -> None:
    call = await pause(bench)
    bench.script(calls(("write", note("b"))), calls(("look", note("c")), ("weather", "{}")))
    (lost,) = (await bench.take(follow_up(call))).calls
    bench.script(calls(("weather", "{}")), FakeReply(["Done."]))

    (again,) = (await bench.take(follow_up(call))).calls
    sink = await bench.take(follow_up(again))

    assert sink.text == "Done."
    assert bench.hand.heard == ["look(a)", "write(b)", "look(c)"]
    with pytest.raises(InvalidRequest, match="no call waits"):
        await bench.take(follow_up(lost))


async def test_a_session_that_went_on_does_not_go_back(bench: Acting) -> None:
    call = await pause(bench)
    bench.script(FakeReply(["Done."]), FakeReply(["Yes?"]))
    await bench.take(follow_up(call))
    await bench.take(asked([said("next")]))

    with pytest.raises(InvalidRequest, match="no call waits") as refusal:
        await bench.take(replace(follow_up(call), field="input"))
    assert refusal.value.fields[0].field == "input"


async def test_a_follow_up_of_another_session_finds_nothing(bench: Acting) -> None:
    call = await pause(bench)
    other = SessionKey("acme", "main", "elsewhere")

    with pytest.raises(InvalidRequest, match="no call waits"):
        await bench.take(asked([result(call)], key=other, tools=[WEATHER]))


# A session that has to end with a certain turn


def after(run: str, *messages: dict[str, Any], run_id: str) -> TurnRequest:
    turn = asked(list(messages))
    return replace(turn, follows=run, run_id=run_id)


async def test_a_turn_that_follows_the_last_one_goes_on_in_its_session(bench: Acting) -> None:
    bench.script(*[FakeReply(["ok"])] * 2)
    await bench.take(replace(asked([said("FIRST")]), run_id="run_1"))

    await bench.take(after("run_1", said("not read"), called(), said("SECOND"), run_id="run_2"))

    assert [m["content"] for m in bench.sent()] == ["FIRST", "ok", "SECOND"]
    assert len(bench.transcript()) == 4


async def test_a_turn_that_follows_an_earlier_one_reads_what_came_with_it(bench: Acting) -> None:
    bench.script(*[FakeReply(["ok"])] * 4)
    answer = {"role": "assistant", "content": "ok"}
    first = [said("FIRST"), answer]
    await bench.take(replace(asked([said("FIRST")]), run_id="run_1"))
    await bench.take(after("run_1", *first, said("SECOND"), run_id="run_2"))

    await bench.take(after("run_1", *first, said("THIRD"), run_id="run_3"))
    assert [m["content"] for m in bench.sent()] == ["FIRST", "ok", "THIRD"]

    await bench.take(after("run_2", *first, said("SECOND"), answer, said("LAST"), run_id="run_4"))
    assert [m["content"] for m in bench.sent()] == ["FIRST", "ok", "SECOND", "ok", "LAST"]
    assert len(bench.transcript()) == 6, "the branch is remembered apart"


async def test_turns_that_follow_one_at_the_same_time_do_not_read_each_other(
    bench: Acting,
) -> None:
    bench.script(*[FakeReply(["ok"])] * 4)
    first = [said("FIRST"), {"role": "assistant", "content": "ok"}]
    await bench.take(replace(asked([said("FIRST")]), run_id="run_1"))

    async with trio.open_nursery() as together:
        for number in range(3):
            turn = after("run_1", *first, said(f"again {number}"), run_id=f"again_{number}")
            together.start_soon(bench.take, turn)
            await wait_all_tasks_blocked()

    read = [[m["content"] for m in bench.sent(number)] for number in range(1, 4)]
    assert read == [["FIRST", "ok", f"again {number}"] for number in range(3)]


# What was said


def digest(*messages: dict[str, Any]) -> bytes:
    since = SinceUser()
    for message in messages:
        since.add(message)
    return since.digest()


def parts(*texts: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": t, **more} for t in texts]}


CALL = ToolCallDelta(0, "c1", "weather", "{}")
PICTURE = {"type": "image_url", "image_url": {"url": "data:x"}}


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ([said("hi")], [parts("hi")], True),
        ([said("hi")], [parts("h", "i", cache_control={"type": "ephemeral"})], True),
        ([said("old"), said("hi")], [said("hi")], True),
        ([said("hi")], [{"role": "system", "content": "noon"}, said("hi")], True),
        ([said("hi")], [said("hi"), {"role": "assistant", "content": "well"}], True),
        ([said("hi")], [said("ho")], False),
        ([said("hi"), called(CALL)], [said("hi")], False),
        ([said("hi"), called(CALL), result(CALL)], [said("hi"), called(CALL)], False),
        ([result(CALL, "a")], [result(CALL, "b")], False),
        ([{"role": "user", "content": [PICTURE]}], [said("")], False),
        (
            [{"role": "user", "content": [PICTURE]}],
            [{"role": "user", "content": [{**PICTURE, "cache_control": {}}]}],
            True,
        ),
        ([said("half \ud83d")], [said("half")], False),
        ([said("x" * 100_000)], [said("x" * 100_001)], False),
        ([said("x" * 100_000 + "a")], [said("x" * 100_000 + "b")], False),
        ([said("x" * 100_000)], [parts("x" * 50_000, "x" * 50_000)], True),
    ],
)
def test_the_same_is_the_same_in_any_form(
    one: list[dict[str, Any]],
    other: list[dict[str, Any]],
    alike: bool,  # noqa: FBT001 - a parameter
) -> None:
    assert (digest(*one) == digest(*other)) is alike
