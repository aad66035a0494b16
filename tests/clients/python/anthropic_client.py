"""The official ``anthropic`` package: messages."""

from typing import Any

import anthropic
import httpx
import pytest

QUESTION = "What's the weather like in San Francisco?"


@pytest.fixture
def client(url: str, token: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=token, max_retries=0)


@pytest.fixture
def tools(weather: dict[str, Any]) -> list[Any]:
    return [{"name": "get_weather", "description": "The weather", "input_schema": weather}]


def said(text: Any) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_an_answer_in_one_piece(client: anthropic.Anthropic, model: str) -> None:
    done = client.messages.create(
        model=model, max_tokens=1000, system="Be brief.", messages=said("Count from 1 to 3.")
    )

    assert (done.type, done.role) == ("message", "assistant")
    assert done.content[0].text == "1, 2, 3"  # type: ignore[union-attr] # it is text
    assert done.stop_reason == "end_turn"
    assert done.usage.input_tokens > 0
    assert done.usage.output_tokens == 3
    assert done._request_id


def test_the_key_may_come_in_either_header(url: str, token: str) -> None:
    body = {"model": "chat/assistant", "max_tokens": 100, "messages": said("hello")}
    for headers in ({"x-api-key": token}, {"authorization": f"Bearer {token}"}):
        answer = httpx.post(
            f"{url}/v1/messages?beta=true",
            json=body,
            headers={**headers, "anthropic-version": "2023-06-01"},
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["request-id"]


def test_every_event_of_a_stream_in_order(client: anthropic.Anthropic, model: str) -> None:
    events = list(
        client.messages.create(
            model=model, max_tokens=1000, messages=said("Count from 1 to 3."), stream=True
        )
    )

    kinds = [event.type for event in events]
    deltas = kinds.count("content_block_delta")
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert deltas > 1


def test_the_stream_helper(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.stream(
        model=model, max_tokens=1000, messages=said("Count from 1 to 3.")
    ) as stream:
        text = "".join(stream.text_stream)
        done = stream.get_final_message()

    assert text == "1, 2, 3"
    assert done.stop_reason == "end_turn"
    assert done.usage.output_tokens == 3


@pytest.mark.parametrize("thinks", [False, True])
def test_a_tool_is_called_and_its_result_is_told(
    client: anthropic.Anthropic, model: str, tools: list[Any], *, thinks: bool
) -> None:
    more: dict[str, Any] = {"model": model, "max_tokens": 4000, "tools": tools}
    if thinks:
        more["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    messages = said(QUESTION)
    with client.messages.stream(messages=messages, **more) as stream:
        first = stream.get_final_message()

    assert first.stop_reason == "tool_use"
    assert (first.content[0].type == "thinking") == thinks
    call = first.content[-1]
    assert call.type == "tool_use"
    assert call.input == {"city": "San Francisco"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turn = {"role": "assistant", "content": [block.to_dict() for block in first.content]}
    second = client.messages.create(messages=[*messages, turn, *said([result])], **more)

    assert second.content[-1].text == "The tool says: sunny"  # type: ignore[union-attr] # text


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
def test_a_tool_can_be_demanded(
    client: anthropic.Anthropic, name: str, tools: list[Any], choice: Any
) -> None:
    done = client.messages.create(
        model=f"{name}/assistant",
        max_tokens=1000,
        messages=said("hello"),
        tools=tools,
        tool_choice=choice,
    )

    assert done.stop_reason == "tool_use"


def test_an_image(client: anthropic.Anthropic, model: str, image: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": image}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What do you see?"}]

    done = client.messages.create(model=model, max_tokens=1000, messages=said(parts))

    assert done.content[0].text == "I was given an image."  # type: ignore[union-attr] # text


def test_structured_output(client: anthropic.Anthropic, model: str) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    output: Any = {"format": {"type": "json_schema", "schema": schema}}

    done = client.messages.create(
        model=model, max_tokens=1000, messages=said("Who?"), output_config=output
    )

    assert done.content[0].text == '{"name": "some text"}'  # type: ignore[union-attr] # text


def test_limits_and_stop_sequences_are_named(client: anthropic.Anthropic) -> None:
    for name in ("chat", "messages"):
        cut = client.messages.create(
            model=f"{name}/assistant", max_tokens=4, messages=said("Count from 1 to 9.")
        )
        assert cut.stop_reason == "max_tokens"
    stopped = client.messages.create(
        model="messages/assistant",
        max_tokens=1000,
        messages=said("Count from 1 to 9."),
        stop_sequences=[", 4"],
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", ", 4")


def test_cache_control_is_passed_on(client: anthropic.Anthropic) -> None:
    cached = {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral"}}

    done = client.messages.create(
        model="messages/assistant",
        max_tokens=1000,
        system=[cached],  # type: ignore[list-item] # a dict is fine
        messages=said("Repeat your instructions."),
    )

    assert done.content[0].text == "My instructions: Long."  # type: ignore[union-attr] # text


def test_tokens_are_counted(client: anthropic.Anthropic, model: str) -> None:
    counted = client.messages.count_tokens(model=model, messages=said("one two three"))

    assert counted.input_tokens >= 3


def test_failures_have_their_classes(client: anthropic.Anthropic, url: str) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(model="nobody/knows", max_tokens=10, messages=said("hello"))
    body: Any = unknown.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"
    assert unknown.value.request_id

    wrong = anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        wrong.messages.create(model="chat/assistant", max_tokens=10, messages=said("hello"))

    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="chat/assistant", max_tokens=0, messages=said("hello"))


def test_what_the_month_has_no_budget_for_is_asked_once(url: str, poor_token: str) -> None:
    asked: list[object] = []
    http = anthropic.DefaultHttpxClient(event_hooks={"request": [asked.append]})
    client = anthropic.Anthropic(base_url=url, api_key=poor_token, http_client=http)

    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="chat/assistant", max_tokens=10, messages=said("hello"))

    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(asked) == 1


def test_a_rate_limit_says_when_to_come_back(url: str, busy_token: str) -> None:
    client = anthropic.Anthropic(base_url=url, api_key=busy_token, max_retries=0)

    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(model="chat/assistant", max_tokens=10, messages=said("hello"))

    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages", "ollama"])
@pytest.mark.parametrize("fault", ["error-mid-stream", "cut", "malformed", "no-end"])
def test_a_broken_stream_is_an_error_and_never_an_end(
    client: anthropic.Anthropic, dialect: str, fault: str
) -> None:
    kinds: list[str] = []

    # What is only passed on is not read: there it is the client that finds it broken.
    failures = (anthropic.APIError, ValueError) if fault == "malformed" else anthropic.APIError
    with pytest.raises(failures):  # noqa: PT012 - the stream starts well
        stream = client.messages.create(
            model=f"{dialect}/fault-{fault}", max_tokens=1000, messages=said("hi"), stream=True
        )
        kinds.extend(event.type for event in stream)

    assert "message_stop" not in kinds


def test_the_models_that_may_be_named(client: anthropic.Anthropic) -> None:
    page = client.models.list()

    assert {"openclaw", "fast"} <= {model.id for model in page.data}
    assert client.models.retrieve("openclaw").type == "model"


def test_an_agent_answers_and_remembers(client: anthropic.Anthropic) -> None:
    headers = {"x-openclaw-session-key": "anthropic-package"}
    for text in ("My name is Alice.", "What is my name?"):
        done = client.messages.create(
            model="openclaw", max_tokens=1000, messages=said(text), extra_headers=headers
        )

    assert done.content[0].text == "The name is Alice."  # type: ignore[union-attr] # text


def test_an_agent_hands_over_the_callers_tools(
    client: anthropic.Anthropic, tools: list[Any]
) -> None:
    more: dict[str, Any] = {"model": "openclaw", "max_tokens": 1000, "tools": tools}
    first = client.messages.create(messages=said(QUESTION), **more)
    call = first.content[-1]
    assert call.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rainy"}
    turn = {"role": "assistant", "content": [block.to_dict() for block in first.content]}
    second = client.messages.create(messages=[*said(QUESTION), turn, *said([result])], **more)

    assert second.content[-1].text == "The tool says: rainy"  # type: ignore[union-attr] # text
