"""A caller knows a call by an id of ours, the model by its own."""

from typing import Any

from appliance.services.tools.runner import RequestedCall
from appliance.services.turns.call_ids import (
    as_model_called,
    for_callers,
    may_be_ours,
    new_call_id,
    without_waiting,
)
from appliance.services.turns.messages import Step, said_by_model

OWN = RequestedCall("call_0", "look", "{}")
THEIRS = RequestedCall("functions.weather:0", "weather", "{}")


def result(call: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": "sun"}


def test_only_the_callers_calls_get_ids_of_ours() -> None:
    own, theirs = for_callers([OWN, THEIRS], {"weather"})

    assert own == OWN
    assert may_be_ours(theirs.id)
    assert theirs.model_id == "functions.weather:0"
    assert for_callers([THEIRS], {"weather"})[0].id != theirs.id


def test_ids_of_ours_are_told_from_others() -> None:
    assert may_be_ours(new_call_id())
    assert not any(map(may_be_ours, ("call_0", "", "functions.weather:0", "toolu_" + "0" * 23)))


def test_the_model_reads_its_own_ids() -> None:
    calls = for_callers([OWN, THEIRS], {"weather"})
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        said_by_model(Step("", tuple(calls))),
        result("call_0"),
        result(calls[1].id),
    ]

    _, calling, first, second = as_model_called(messages)

    called: Any = calling["tool_calls"]
    assert [call["id"] for call in called] == ["call_0", "functions.weather:0"]
    assert all("model_id" not in call for call in called)
    assert [first["tool_call_id"], second["tool_call_id"]] == ["call_0", "functions.weather:0"]


def test_messages_that_a_caller_made_up_are_passed_on() -> None:
    odd: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [{"id": 7, "model_id": []}, "no call"]},
        {"role": "assistant", "tool_calls": "none"},
        result("call_9"),
    ]

    assert as_model_called(odd)[0] == {"role": "assistant", "tool_calls": [{"id": 7}, "no call"]}
    assert as_model_called(odd)[1:] == odd[1:]


def test_what_waits_for_its_caller_is_left_out_and_what_was_done_stays() -> None:
    calls = for_callers([OWN, THEIRS], {"weather"})
    both = said_by_model(Step("", tuple(calls)))
    alone = said_by_model(Step("well", (calls[1],)))

    (left, done) = without_waiting([both, result("call_0")])
    assert left["tool_calls"] == [said_by_model(Step("", (OWN,)))["tool_calls"][0]]  # type: ignore[index]  # a list
    assert done == result("call_0")
    assert without_waiting([alone]) == []
    assert without_waiting([both, result("call_0"), result(calls[1].id)])[0] == both
