"""The messages of a turn: what is new, which results belong to which calls, and what makes room."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.protocols.chat_request import ChatRequest
from appliance.services.tools.base import ToolResult
from appliance.services.tools.runner import RequestedCall
from appliance.services.turns.messages import (
    CLEARED,
    Step,
    check_results,
    refuse_unsupported,
    request_body,
    results_for_model,
    said_by_model,
    system_texts,
    trimmed,
    unique_ids,
)
from tests.protocols.prompting import body, field_of

USER = {"role": "user", "content": "hi"}


def calling(*ids: str) -> dict[str, Any]:
    calls = [
        {"id": i, "type": "function", "function": {"name": "x", "arguments": "{}"}} for i in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(call: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": "done"}


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ([], [USER]),
        ([USER, calling("a")], [result("a")]),
        ([USER, calling("a", "b"), result("a")], [result("b")]),
        ([], [USER, calling("a"), result("a"), USER]),
        # Somebody who does not answer a call but speaks has changed their mind.
        ([USER, calling("a")], [USER]),
    ],
)
def test_results_that_answer_what_waits_are_fine(
    before: list[dict[str, Any]], said: list[dict[str, Any]]
) -> None:
    check_results(before, said)


@pytest.mark.parametrize(
    ("before", "said", "reason"),
    [
        ([], [result("a")], "no call waits"),
        ([USER, calling("a")], [result("b")], "no call waits"),
        ([USER, calling("a")], [result("a"), result("a")], "no call waits"),
        ([USER, calling("a", "b")], [result("a")], "has no result"),
        ([USER, calling("a", "b")], [result("a"), USER], "has no result"),
    ],
)
def test_results_that_do_not_are_refused(
    before: list[dict[str, Any]], said: list[dict[str, Any]], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        check_results(before, said)


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [('{"a":1}', '{"a":1}'), ("", "{}"), ("  ", "{}"), ("nonsense", "{}"), ("[1]", "{}")],
)
def test_arguments_that_no_provider_takes_are_not_sent_again(arguments: str, sent: str) -> None:
    message: Any = said_by_model(Step("", (RequestedCall("a", "x", arguments),)))

    assert message["tool_calls"][0]["function"]["arguments"] == sent
    assert message["content"] is None


def test_a_result_is_never_empty() -> None:
    (message,) = results_for_model([RequestedCall("a", "x", "{}")], [ToolResult()])

    assert message == {"role": "tool", "tool_call_id": "a", "name": "x", "content": "(nothing)"}


def test_the_latest_results_stay_whole_when_room_is_made() -> None:
    rounds = [{**result(str(n)), "content": "x" * 10_000} for n in range(5)]

    sizes = [len(str(m["content"])) for m in trimmed(rounds)]

    assert sizes[2:] == [10_000] * 3
    assert max(sizes[:2]) < 4_000


def test_in_the_end_all_results_but_the_last_are_left_out() -> None:
    rounds = [USER, result("a"), result("b")]

    assert [m["content"] for m in trimmed(rounds, hard=True)] == ["hi", CLEARED, "done"]


@given(st.lists(st.sampled_from(["", "a", "b"]), max_size=8))
def test_every_call_gets_an_id_of_its_own(ids: list[str]) -> None:
    found = unique_ids([RequestedCall(i, "x", "{}") for i in ids])

    assert len({call.id for call in found}) == len(ids)
    assert all(call.id for call in found)
    assert msgspec.json.encode([call.id for call in found])


def asking(**members: Any) -> ChatRequest:
    return ChatRequest.of(body(**{"model": "openclaw", "messages": [USER], **members}))


@pytest.mark.parametrize(
    "members",
    [
        {"reasoning_effort": "low"},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"top_k": 3},
        {"verbosity": "low"},
        {"response_format": {"type": "json_object"}},
        {"stop": ["x"], "temperature": 0.5, "top_p": 0.5, "seed": 1},
        {"frequency_penalty": 1, "presence_penalty": 1, "logit_bias": {"1": 1}},
        {"max_completion_tokens": 5, "max_tokens": 6},
    ],
)
def test_what_an_agents_model_can_honour_reaches_it(members: dict[str, Any]) -> None:
    chat = asking(**members)

    refuse_unsupported(chat)

    sent = request_body(chat, "", [USER])
    assert {name: sent.get(name) for name in members} == body(**members)


@pytest.mark.parametrize(
    "members",
    [
        {"metadata": {"a": "b"}, "store": True, "user": "u", "service_tier": "flex"},
        {"prediction": {"type": "content", "content": "x"}, "safety_identifier": "s"},
        {"prompt_cache_key": "k", "prompt_cache_options": {}, "prompt_cache_retention": "24h"},
        {"stream": True, "stream_options": {"include_usage": True}, "n": 1},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"functions": [], "logprobs": False, "top_logprobs": 0, "audio": None},
        {"logprobs": None},
    ],
)
def test_what_changes_no_answer_is_taken(members: dict[str, Any]) -> None:
    refuse_unsupported(asking(**members))


def test_the_usual_modality_is_no_wish() -> None:
    members = {**asking().body, "modalities": b'["text"]'}

    refuse_unsupported(ChatRequest.of(members))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio", {"voice": "x", "format": "wav"}),
        ("foo", 1),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("guided_json", {"type": "object"}),
        ("logprobs", True),
        ("min_p", 0.1),
        ("modalities", ["text", "audio"]),
        ("moderation", {"model": "m"}),
        ("n", 2),
        ("top_logprobs", 2),
        ("web_search_options", {}),
    ],
)
def test_an_agent_refuses_by_name_what_it_cannot_honour(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_unsupported(asking(**{name: value}))

    assert field_of(caught.value) == name


def spoken(content: object) -> ChatRequest:
    messages = [{"role": "system", "content": content}, USER, {"role": "developer", "content": "Z"}]
    return ChatRequest.parse(
        msgspec.json.encode({"model": "openclaw", "messages": messages}), limit_bytes=10_000
    )


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("A", ["A", "Z"]),
        ([{"type": "text", "text": "A"}], ["A", "Z"]),
        (
            [{"type": "text", "text": "A", "cache_control": {}}, {"type": "text", "text": "B"}],
            ["A", "B", "Z"],
        ),
        ("", ["Z"]),
        ([], ["Z"]),
        (None, ["Z"]),
    ],
)
def test_what_the_system_says_is_heard_in_any_form(content: object, texts: list[str]) -> None:
    assert system_texts(spoken(content)) == texts


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {"url": "x"}}, 3, {}])
def test_a_system_that_does_not_speak_is_refused(part: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        system_texts(spoken([part]), field="input")

    assert refused.value.fields[0].field == "input"
