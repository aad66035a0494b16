"""Which session an agent's response belongs to, and what its agent is told."""

from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.model.calls import Finished, FinishReason, TextDelta
from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.protocols.responses.writer import ResponseWriter
from appliance.services.responses.answering import AgentAnswer, turn_of, without_paused
from appliance.services.responses.contexts import Continued
from appliance.services.responses.runs import Asked, ResponseRun
from appliance.services.turns.requests import ToolActivity
from appliance.services.turns.turns import Turns
from tests.books import NOON
from tests.fakes.cancelling import each_cancellation
from tests.fakes.tenants import CALLER
from tests.services.responding import ClientLeft, FakeSink, request


class _Tenant:
    id = "acme"


def run(said: object = "hi", *, session: SessionKey | None = None, **more: Any) -> ResponseRun:

    asked = Asked(request=request(said, **more), agent="main", session=session)
    writer = ResponseWriter(asked.request, id="resp_1", created_at=1, clock=NOON.timestamp)
    return ResponseRun("resp_1", asked, writer)


async def turn(made: ResponseRun, continued: str = "") -> Any:
    """``continued`` is the session of what the request names."""
    last = made.asked.request.previous_response_id or ""
    found = Continued(request=made.asked.request, context=(), session=continued, last=last)
    return await turn_of(_Tenant(), made, found)  # type: ignore[arg-type]  # only its id is asked


@pytest.mark.parametrize(
    ("made", "continued", "session", "keeps"),
    [
        (run(), "agent:main:x", "agent:main:x", True),
        (run(), "agent:other:x", "agent:main:responses:", True),
        (run(session=SessionKey("acme", "main", "own")), "agent:main:x", "agent:main:own", True),
        (run(), "", "agent:main:responses:", True),
        (run(store=False), "", "", False),
        (
            run([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]),
            "",
            "",
            False,
        ),
    ],
)
async def test_whose_history_it_is(
    made: ResponseRun,
    continued: str,
    session: str,
    keeps: bool,  # noqa: FBT001 - a parameter
) -> None:
    found = await turn(made, continued)

    assert found.keeps_history is keeps
    assert made.session.startswith(session)
    assert bool(made.session) is bool(session)


async def test_the_limit_and_the_instructions_are_the_callers() -> None:
    found = await turn(run(max_output_tokens=50, instructions="Be short."))

    assert found.chat.output_limit == 50
    assert "Be short." in str(found.messages[0])


async def test_a_turn_follows_that_of_the_response_it_continues() -> None:
    first = run(max_tool_calls=3)
    second = run(previous_response_id=first.id)

    before, after = await turn(first), await turn(second, "agent:main:x")
    apart = await turn(run(previous_response_id=first.id, store=False), "agent:main:x")
    named = await turn(
        run(previous_response_id=first.id, session=SessionKey("acme", "main", "own")),
        "agent:main:x",
    )

    assert after.follows == before.run_id
    assert first.id not in str(before.run_id), "who sees a run cannot tell the response"
    assert (before.max_tool_calls, before.field) == (3, "input")
    assert before.follows is named.follows is apart.follows is None
    assert (after.keeps_history, apart.keeps_history) == (True, False)


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
async def test_an_agent_gives_no_log_probabilities(wish: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await turn(run(**wish))

    assert refused.value.fields[0].field == field
    await turn(run(top_logprobs=0))


def test_what_a_waiting_turn_did_itself_is_left_to_it() -> None:
    user = {"type": "message", "role": "user"}
    answer = {"type": "message", "role": "assistant"}
    own = {"type": "openclaw:tool_call"}
    call = {"type": "function_call"}
    result = {"type": "function_call_output"}

    assert without_paused([user, own, answer, user, own, call, result]) == [
        user, own, answer, user, call, result,
    ]  # fmt: skip
    assert without_paused([user, own, answer]) == [user, own, answer]


class ToolTurns:
    """A turn in which a tool runs until ``go_on``; stands in for ``Turns``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on = trio.Event()
        self.error = error

    async def run(self, tenant: object, caller: object, turn: object, sink: AgentAnswer) -> None:
        await sink.begin(NO_CALL)
        await sink.deltas([TextDelta("let me see")])
        sink.tool(ToolActivity(phase="start", call_id="c1", name="exec", arguments={}))
        await self.go_on.wait()
        sink.tool(ToolActivity(phase="result", call_id="c1", name="exec", text="done"))
        if self.error is not None:
            raise self.error
        await sink.deltas([TextDelta("so")])
        await sink.finish(NO_CALL, Finished(FinishReason.STOP, TokenUsage(input=1)))


NO_CALL: Any = None
SHOWS: dict[str, Any] = {"stream": True, "include": ["openclaw:tool_calls"]}


async def kept() -> None:
    await trio.lowlevel.checkpoint()


async def give(answer: AgentAnswer, turns: ToolTurns) -> None:
    await answer.give(cast("Turns", turns), NO_CALL, CALLER, NO_CALL)


async def test_what_a_tool_does_is_told_while_it_does_it(nursery: trio.Nursery) -> None:
    sink, turns = FakeSink(), ToolTurns()
    nursery.start_soon(give, AgentAnswer(run(**SHOWS), sink, kept), turns)
    await wait_all_tasks_blocked()

    assert sink.events[-1]["item"]["name"] == "exec"

    turns.go_on.set()
    await wait_all_tasks_blocked()
    numbers = [event["sequence_number"] for event in sink.events]
    assert numbers == list(range(len(numbers)))
    assert sink.events[-1]["type"] == "response.completed"


@pytest.mark.parametrize("more", [SHOWS, {}])
async def test_a_turn_fails_as_it_does(more: dict[str, Any]) -> None:
    turns = ToolTurns(InvalidRequest("no"))
    turns.go_on.set()

    with pytest.raises(InvalidRequest):
        await give(AgentAnswer(run(**more), FakeSink(), kept), turns)


class Leaving(FakeSink):
    """Its client leaves when a tool begins."""

    async def send(self, events: bytes) -> None:
        await super().send(events)
        if b"exec" in events:
            raise ClientLeft


async def test_a_client_that_is_gone_ends_the_turn(nursery: trio.Nursery) -> None:
    turns = ToolTurns()

    async def leave() -> None:
        with pytest.raises(ClientLeft):
            await give(AgentAnswer(run(**SHOWS), Leaving(), kept), turns)

    nursery.start_soon(leave)
    await wait_all_tasks_blocked()
    turns.go_on.set()


async def test_showing_tools_cancelled_anywhere_ends() -> None:
    async def work() -> None:
        turns = ToolTurns()
        turns.go_on.set()
        await give(AgentAnswer(run(**SHOWS), FakeSink(), kept), turns)

    async for _ in each_cancellation(work):
        pass


@pytest.mark.parametrize("tool", [{"type": "custom", "name": "run"}, {"type": "web_search"}])
async def test_an_agent_has_no_tools_but_functions_beside_its_own(tool: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await turn(run(tools=[tool]))

    assert [each.field for each in refused.value.fields] == ["tools[0].type"]
