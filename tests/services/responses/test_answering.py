"""Which session an agent's response belongs to, and what its agent is told."""

from typing import Any

import pytest

from appliance.model.session_keys import SessionKey
from appliance.protocols.responses.writer import ResponseWriter
from appliance.services.responses.answering import turn_of, without_paused
from appliance.services.responses.runs import Asked, ResponseRun
from tests.books import NOON
from tests.services.responding import request


class _Tenant:
    id = "acme"


def run(said: object = "hi", *, session: SessionKey | None = None, **more: Any) -> ResponseRun:

    asked = Asked(request=request(said, **more), agent="main", session=session)
    writer = ResponseWriter(asked.request, id="resp_1", created_at=1, clock=NOON.timestamp)
    return ResponseRun("resp_1", asked, writer)


async def turn(made: ResponseRun, continued: str = "") -> Any:
    return await turn_of(_Tenant(), made, continued)  # type: ignore[arg-type]  # only its id is asked


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
