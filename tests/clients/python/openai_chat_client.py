"""The official ``openai`` package: chat completions, models and embeddings."""

from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

QUESTION = "What's the weather like in San Francisco?"


class Event(BaseModel):
    name: str
    participants: list[str]


@pytest.fixture
def client(url: str, token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)


@pytest.fixture
def tools(weather: dict[str, Any]) -> list[Any]:
    function = {"name": "get_weather", "parameters": weather, "strict": True}
    return [{"type": "function", "function": function}]


def said(text: Any) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_an_answer_in_one_piece(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.create(model=model, messages=said("Count from 1 to 3."))

    assert done.object == "chat.completion"
    assert done.choices[0].message.content == "1, 2, 3"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert done.usage.prompt_tokens > 0
    assert done.usage.completion_tokens == 3
    assert done.usage.total_tokens == done.usage.prompt_tokens + 3
    assert done._request_id


def test_a_stream_of_chunks_in_the_order_of_the_api(client: openai.OpenAI, model: str) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model=model, messages=said("Count from 1 to 3."), stream=True, stream_options=options
        )
    )

    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    *answer, last = chunks
    assert answer[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in answer[1:])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == "1, 2, 3"
    assert [chunk.choices[0].finish_reason for chunk in answer[:-1]] == [None] * (len(answer) - 1)
    assert answer[-1].choices[0].finish_reason == "stop"
    assert not last.choices
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_no_chunk_is_without_choices_unless_usage_was_asked_for(
    client: openai.OpenAI, model: str
) -> None:
    stream = client.chat.completions.create(model=model, messages=said("hello"), stream=True)

    assert all(chunk.choices for chunk in stream)


def test_the_stream_helper(client: openai.OpenAI, model: str) -> None:
    options: Any = {"include_usage": True}
    with client.chat.completions.stream(
        model=model, messages=said("Count from 1 to 3."), stream_options=options
    ) as stream:
        kinds = {event.type for event in stream}
        done = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert done.choices[0].message.content == "1, 2, 3"
    assert done.usage is not None


@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_is_called_and_its_result_is_told(
    client: openai.OpenAI, model: str, tools: list[Any], *, streams: bool
) -> None:
    messages = said(QUESTION)
    if streams:
        with client.chat.completions.stream(model=model, messages=messages, tools=tools) as stream:
            first: Any = stream.get_final_completion().choices[0]
    else:
        first = client.chat.completions.create(model=model, messages=messages, tools=tools).choices[
            0
        ]

    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.function.name == "get_weather"
    assert "San Francisco" in call.function.arguments

    reply = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 20 degrees"}
    asked: list[Any] = [*messages, first.message.to_dict(), reply]
    asked[1].pop("parsed", None)
    second = client.chat.completions.create(model=model, messages=asked, tools=tools)

    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content == "The tool says: sunny, 20 degrees"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_tool_can_be_demanded(
    client: openai.OpenAI, model: str, tools: list[Any], choice: Any
) -> None:
    if model.startswith("ollama"):
        pytest.skip("Ollama has no word for it; see test_what_a_provider_cannot_say_is_refused")
    done = client.chat.completions.create(
        model=model, messages=said("hello"), tools=tools, tool_choice=choice
    )

    assert done.choices[0].message.tool_calls


def test_what_a_provider_cannot_say_is_refused(client: openai.OpenAI, tools: list[Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="ollama/assistant", messages=said("hi"), tools=tools, tool_choice="required"
        )

    assert caught.value.param == "tool_choice"


def test_structured_output(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.parse(
        model=model, messages=said("Extract the event."), response_format=Event
    )

    parsed = done.choices[0].message.parsed
    assert isinstance(parsed, Event)
    assert parsed.participants


def test_an_image(client: openai.OpenAI, model: str, image: str) -> None:
    parts = [
        {"type": "text", "text": "What do you see?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]

    done = client.chat.completions.create(model=model, messages=said(parts))

    assert done.choices[0].message.content == "I was given an image."


def test_reasoning_is_shown_beside_the_answer(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.create(
        model=model, messages=said("hello"), reasoning_effort="low", max_completion_tokens=4000
    )

    message = done.choices[0].message
    assert message.content == "You said: hello"
    assert (message.model_extra or {})["reasoning_content"] == "Let me think about it."


def test_the_limit_of_output_is_kept_and_named(client: openai.OpenAI, model: str) -> None:
    limit = 16
    done = client.chat.completions.create(
        model=model, messages=said("Count from 1 to 50."), max_completion_tokens=limit
    )

    assert done.choices[0].finish_reason == "length"
    assert len((done.choices[0].message.content or "").split()) == limit


def test_several_choices_and_log_probabilities_where_the_upstream_has_them(
    client: openai.OpenAI,
) -> None:
    done = client.chat.completions.create(
        model="chat/assistant", messages=said("hello"), n=2, logprobs=True, top_logprobs=1
    )

    assert [choice.index for choice in done.choices] == [0, 1]
    assert done.choices[1].logprobs is not None
    assert done.choices[1].logprobs.content


@pytest.mark.parametrize("name", ["messages", "responses", "ollama"])
def test_several_choices_are_refused_where_it_has_not(client: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=f"{name}/assistant", messages=said("hello"), n=2)

    assert caught.value.param == "n"


def test_a_stop_sequence_ends_the_answer(client: openai.OpenAI) -> None:
    for name in ("chat", "messages", "ollama"):
        done = client.chat.completions.create(
            model=f"{name}/assistant", messages=said("Count from 1 to 9."), stop=[", 4"]
        )
        assert done.choices[0].message.content == "1, 2, 3"
        assert done.choices[0].finish_reason == "stop"


def test_the_raw_response_has_limits_and_ids(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="chat/assistant", messages=said("hello")
    )

    assert raw.headers["x-request-id"]
    assert raw.headers["content-type"].startswith("application/json")
    assert float(raw.headers["x-openclaw-overhead-ms"]) >= 0
    assert raw.parse().choices


# --- Failures -----------------------------------------------------------------------------------


class Counting(httpx.Client):
    """An HTTP client that remembers how often it was used."""

    def __init__(self) -> None:
        self.asked = 0
        super().__init__(event_hooks={"request": [self._count]})

    def _count(self, _: httpx.Request) -> None:
        self.asked += 1


def test_a_wrong_key_is_an_authentication_error(url: str) -> None:
    http = Counting()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="tenant:acme:nonsense", http_client=http)

    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="chat/assistant", messages=said("hello"))

    assert caught.value.code == "invalid_api_key"
    assert http.asked == 1


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody/knows", messages=said("hello"))

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_bad_value_names_its_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat/assistant", messages=said("hello"), n=0)

    assert caught.value.param == "n"


def test_what_the_month_has_no_budget_for_is_asked_once(url: str, poor_token: str) -> None:
    http = Counting()
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=poor_token, http_client=http)

    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="chat/assistant", messages=said("hello"))

    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert http.asked == 1


def test_a_rate_limit_says_when_to_come_back(url: str, busy_token: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=busy_token, max_retries=0)

    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="chat/assistant", messages=said("hello"))

    assert caught.value.code == "rate_limit_exceeded"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60


def test_a_failure_before_the_first_event_has_its_own_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="chat/fault-context", messages=said("hello"), stream=True
        )

    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages", "ollama"])
@pytest.mark.parametrize("fault", ["error-mid-stream", "cut", "malformed"])
def test_a_broken_stream_is_an_error_and_never_an_end(
    client: openai.OpenAI, dialect: str, fault: str
) -> None:
    finishes: list[Any] = []

    with pytest.raises(openai.APIError):  # noqa: PT012 - the stream starts well
        for chunk in client.chat.completions.create(
            model=f"{dialect}/fault-{fault}", messages=said("hello"), stream=True
        ):
            finishes += [choice.finish_reason for choice in chunk.choices]

    assert not any(finishes)


# --- Embeddings and models ----------------------------------------------------------------------


def test_embeddings_in_the_form_the_client_asks_for(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="chat/embed", input=["one", "two"])
    plain = client.embeddings.create(
        model="chat/embed", input=["one", "two"], encoding_format="float"
    )

    assert [each.index for each in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert packed.usage.prompt_tokens == 2


def test_embeddings_of_tokens_and_of_a_wanted_size(client: openai.OpenAI) -> None:
    done = client.embeddings.create(model="chat/embed", input=[[1, 2, 3], [4]], dimensions=4)

    assert [len(each.embedding) for each in done.data] == [4, 4]
    assert done.usage.total_tokens == 4


def test_embeddings_of_ollama(client: openai.OpenAI) -> None:
    done = client.embeddings.create(model="ollama/embed", input="one")

    assert len(done.data[0].embedding) == 8


def test_the_models_that_may_be_named(client: openai.OpenAI) -> None:
    ids = [model.id for model in client.models.list()]

    assert {"openclaw", "fast"} <= set(ids)
    assert client.models.retrieve("openclaw").id == "openclaw"
    assert client.models.retrieve("chat/mock").id == "chat/mock"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


# --- Agents -------------------------------------------------------------------------------------


def test_an_agent_remembers_its_session(client: openai.OpenAI) -> None:
    headers = {"x-openclaw-session-key": "openai-package"}
    for text in ("My name is Alice.", "What is my name?"):
        done = client.chat.completions.create(
            model="openclaw", messages=said(text), extra_headers=headers
        )

    assert done.model == "openclaw"
    assert done.choices[0].message.content == "The name is Alice."


def test_an_agent_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="openclaw", messages=said("hello")) as stream:
        done = stream.get_final_completion()

    assert done.choices[0].message.content == "You said: hello"


def test_an_agent_hands_over_the_callers_tools(client: openai.OpenAI, tools: list[Any]) -> None:
    messages = said(QUESTION)
    first = client.chat.completions.create(model="openclaw", messages=messages, tools=tools)

    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = first.choices[0].message.tool_calls or []
    reply = {"role": "tool", "tool_call_id": call.id, "content": "rainy"}
    asked: list[Any] = [*messages, first.choices[0].message.to_dict(), reply]
    second = client.chat.completions.create(model="openclaw", messages=asked, tools=tools)

    assert second.choices[0].message.content == "The tool says: rainy"
