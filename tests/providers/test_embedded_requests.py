"""What an embedded model is asked, and what it is not."""

import json
from dataclasses import replace
from typing import Any

import pytest

from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import Fault, InvalidRequest
from appliance.providers.embedded_requests import worded
from appliance.providers.openai import OpenAiWire
from tests.protocols.calls import call


def sent(asked: ModelCall) -> dict[str, Any]:
    """The request as the worker gets it."""
    wire = OpenAiWire(max_tokens_field="max_tokens")
    request: dict[str, Any] = json.loads(wire.encode(worded(asked, context_tokens=1000)))
    return request


def said(**members: Any) -> dict[str, Any]:
    return sent(call(**members))


def refusal(asked: ModelCall) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        worded(asked, context_tokens=1000)
    return caught.value


def asked_in(dialect: Dialect, **members: Any) -> ModelCall:
    body = {name: json.dumps(value).encode() for name, value in members.items()}
    return ModelCall(model="tiny", body=body, stream=False, dialect=dialect)


def test_an_embedded_model_answers_soberly_shortly_and_without_memory_of_others() -> None:
    request = said(user="u1")

    assert request["temperature"] == 0
    assert request["max_tokens"] == 512
    assert request["cache_prompt"] is False
    assert "user" not in request
    assert said(temperature=0.7, max_completion_tokens=20)["max_tokens"] == 20
    assert said(temperature=0.7)["temperature"] == 0.7
    assert said(max_tokens=50_000)["max_tokens"] == 1000


@pytest.mark.parametrize(
    "members",
    [
        {"cache_prompt": True},
        {"n_predict": -1},
        {"grammar": "root ::= x"},
        {"id_slot": 0},
        {"n": 2},
        {"functions": [{"name": "f"}]},
        {"top_a": 0.5},
    ],
)
def test_what_is_not_known_to_be_harmless_is_refused_by_name(members: dict[str, Any]) -> None:
    assert refusal(call(**members)).fields[0].field in members


def test_a_request_in_another_dialect_is_said_in_openais_words() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    body = {
        "system": b'"Be brief."',
        "messages": json.dumps(messages).encode(),
        "max_tokens": b"9",
        "stop_sequences": b'["x"]',
        "metadata": b'{"user_id":"u"}',
    }
    asked = ModelCall(model="tiny", body=body, stream=True, dialect=Dialect.ANTHROPIC)

    request = sent(asked)

    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    assert request["max_tokens"] == 9
    assert request["stop"] == ["x"]
    assert "user" not in request
    assert sent(replace(asked, body={**body, "top_k": b"5"}))["top_k"] == 5


@pytest.mark.parametrize(
    ("members", "sent_on"),
    [
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"logprobs": True}, {"logprobs": True, "top_logprobs": 1}),  # 0 would be none at all
        ({"logit_bias": {"42": -100}}, {"logit_bias": {"42": -100}}),
        ({"top_k": 5, "min_p": 0.1}, {"top_k": 5, "min_p": 0.1}),
        ({"repeat_penalty": 1.2}, {"repeat_penalty": 1.2}),
        ({"repetition_penalty": 1.2}, {"repeat_penalty": 1.2}),
        ({"frequency_penalty": -2, "presence_penalty": 2}, {"frequency_penalty": -2}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"seed": 7}, {"seed": 7}),
        ({"seed": 2**32 - 1}, {"seed": 0}),  # which would be another one each time
        (
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_object"}},
        ),
    ],
    ids=str,
)
def test_what_the_server_understands_is_passed_on_by_its_name_there(
    members: dict[str, Any], sent_on: dict[str, Any]
) -> None:
    request = said(**members)

    assert {name: request[name] for name in sent_on} == sent_on
    assert "repetition_penalty" not in request


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("temperature", -1, "between 0 and 2"),
        ("temperature", 2.1, "between 0 and 2"),
        ("top_p", 2, "between 0 and 1"),
        ("top_p", -0.1, "between 0 and 1"),
        ("min_p", 1.5, "between 0 and 1"),
        ("frequency_penalty", 2.5, "between -2 and 2"),
        ("presence_penalty", -3, "between -2 and 2"),
        ("repeat_penalty", 0, "between 0.1 and 10"),
        ("repetition_penalty", 11, "between 0.1 and 10"),
        ("top_k", 2**31, "between 0 and 1000000"),
        ("logit_bias", {"1": -101}, "between -100 and 100"),
        ("logit_bias", {str(n): 1 for n in range(1001)}, "more than 1000 tokens"),
        ("min_p", "much", "not a number"),
        ("stop", ["x", ""], "empty text"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused_with_the_range(
    name: str, value: Any, allowed: str
) -> None:
    refused = refusal(call(**{name: value}))

    assert refused.fields[0].field == name
    assert allowed in refused.detail


def test_more_likely_tokens_than_the_api_has_are_refused() -> None:
    refused = refusal(call(logprobs=True, top_logprobs=21))

    assert (refused.fields[0].field, "between 0 and 20" in refused.detail) == ("top_logprobs", True)


def test_one_penalty_by_two_names_is_refused() -> None:
    both = call(repeat_penalty=1.1, repetition_penalty=1.2)

    assert refusal(both).fields[0].field == "repetition_penalty"


PICTURE = "data:image/png;base64,aaaa"
OF_CHAT = {
    "image": {"type": "image_url", "image_url": {"url": PICTURE}},
    "sound": {"type": "input_audio", "input_audio": {"data": "aaaa", "format": "wav"}},
    "file": {"type": "file", "file": {"filename": "a.txt", "file_data": "aaaa"}},
}
OF_MESSAGES = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "a"},
}


@pytest.mark.parametrize(
    ("part", "field"),
    [("image", "image_url.url"), ("sound", ""), ("file", "file.file_data")],
)
def test_an_attachment_of_chat_is_refused_where_it_stands(part: str, field: str) -> None:
    content = [{"type": "text", "text": "Look."}, OF_CHAT[part]]
    refused = refusal(call(messages=[{"role": "user", "content": content}]))

    assert refused.fields[0].field == ".".join(filter(None, ["messages[0].content[1]", field]))
    assert refused.fields[0].fault is Fault.UNSUPPORTED
    assert part in refused.detail


def test_an_attachment_of_a_response_is_refused_in_its_words() -> None:
    picture = {"type": "input_image", "image_url": PICTURE, "detail": "auto"}
    asked = asked_in(Dialect.RESPONSES, input=[{"role": "user", "content": [picture]}])

    assert refusal(asked).fields[0].field.startswith("input[0].content[0]")


def test_an_attachment_of_messages_is_refused_in_their_words_also_within_a_result() -> None:
    direct = [{"role": "user", "content": [OF_MESSAGES]}]
    call_ = {"type": "tool_use", "id": "t1", "name": "see", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [OF_MESSAGES]}
    seen = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [call_]},
        {"role": "user", "content": [result]},
    ]

    for messages, place in ((direct, "messages[0]"), (seen, "messages[2]")):
        asked = asked_in(Dialect.ANTHROPIC, messages=messages, max_tokens=5)
        assert refusal(asked).fields[0].field.startswith(f"{place}.content[0]")


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [tool("a", type="object"), tool("b", type="object")]


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "a"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "a"}}],
            },
        },
    ],
    ids=["required", "named", "one of some"],
)
def test_a_call_cannot_be_forced_and_is_not_pretended_to_be(choice: Any) -> None:
    refused = refusal(call(tools=TOOLS, tool_choice=choice))

    assert refused.fields[0].field == "tool_choice"
    assert refused.fields[0].fault is Fault.UNSUPPORTED


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "a"}], ids=str)
def test_nor_by_a_caller_of_messages(choice: dict[str, str]) -> None:
    tools = [{"name": "a", "input_schema": {"type": "object"}}]
    messages = [{"role": "user", "content": "Hello"}]
    asked = asked_in(
        Dialect.ANTHROPIC, messages=messages, max_tokens=5, tools=tools, tool_choice=choice
    )

    assert refusal(asked).fields[0].field == "tool_choice"


@pytest.mark.parametrize(
    "asked",
    [
        call(tools=[*TOOLS, {"type": "custom", "custom": {"name": "run"}}]),
        call(tools=[{"type": "custom", "custom": {"name": "run"}}], tool_choice="none"),
        asked_in(Dialect.RESPONSES, input="Hi", tools=[{"type": "custom", "name": "run"}]),
    ],
)
def test_a_custom_tool_is_refused(asked: ModelCall) -> None:
    (field,) = refusal(asked).fields

    assert field.field.endswith("].type")
    assert "a custom tool cannot be expressed" in field.reason


def test_only_the_tools_that_may_be_called_are_shown() -> None:
    of_b = [{"type": "function", "function": {"name": "b"}}]
    some = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": of_b}}

    shown = said(tools=TOOLS, tool_choice=some)["tools"]
    assert [each["function"]["name"] for each in shown] == ["b"]
    assert len(said(tools=TOOLS, tool_choice="auto")["tools"]) == 2
    assert "tools" not in said(tools=TOOLS, tool_choice="none")


def test_log_probabilities_beside_tools_come_in_one_piece_only() -> None:
    asked = call(tools=TOOLS, logprobs=True, stream=True)

    assert refusal(asked).fields[0].field == "logprobs"
    assert sent(replace(asked, stream=False))["logprobs"] is True


def test_an_earlier_refusal_is_heard_as_words() -> None:
    refused = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    messages = [{"role": "user", "content": "Go."}, refused, {"role": "user", "content": "Why?"}]

    assert said(messages=messages)["messages"][1]["content"] == "No."


def test_schemas_are_checked_where_they_stand() -> None:
    odd = {"type": "string", "pattern": "^a{9}{9}$"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": odd}}
    tools = [*TOOLS, tool("c", type="object", properties={"x": odd})]

    assert refusal(call(response_format=form)).fields[0].field == "response_format"
    assert refusal(call(tools=tools)).fields[0].field == "tools[2].function"
