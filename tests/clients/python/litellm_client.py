"""``litellm`` as a library: it strips ``openai/`` and ``anthropic/`` and asks the gateway."""

from typing import Any

import litellm
import openai
import pytest

litellm.suppress_debug_info = True
litellm.telemetry = False


@pytest.fixture
def named(model: str) -> str:
    """Models that start with ``responses/`` mean something else to LiteLLM: an alias does."""
    return "newest" if model.startswith("responses/") else model


@pytest.fixture(params=["openai", "anthropic"])
def base(request: pytest.FixtureRequest, url: str, token: str, named: str) -> dict[str, Any]:
    """Where to ask and for what, over either API."""
    path = "/v1" if request.param == "openai" else ""
    return {
        "model": f"{request.param}/{named}",
        "api_base": url + path,
        "api_key": token,
        "max_retries": 0,
    }


def said(text: Any) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_it_answers_with_usage(base: dict[str, Any]) -> None:
    done: Any = litellm.completion(messages=said("Count from 1 to 3."), **base)

    assert done.choices[0].message.content == "1, 2, 3"
    assert done.usage.completion_tokens == 3


def test_it_streams(base: dict[str, Any]) -> None:
    stream: Any = litellm.completion(messages=said("Count from 1 to 3."), stream=True, **base)

    assert "".join(each.choices[0].delta.content or "" for each in stream) == "1, 2, 3"


def test_a_tool_loop(base: dict[str, Any], weather: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": weather}}]
    asked = said("What is the weather in Oslo?")
    first: Any = litellm.completion(messages=asked, tools=tools, **base)

    message = first.choices[0].message
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    second: Any = litellm.completion(
        messages=[*asked, message.model_dump(exclude_none=True), result], tools=tools, **base
    )

    assert second.choices[0].message.content == "The tool says: sunny"


def test_an_image(base: dict[str, Any], image: str) -> None:
    parts = [
        {"type": "text", "text": "What do you see?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    done: Any = litellm.completion(messages=said(parts), **base)

    assert done.choices[0].message.content == "I was given an image."


def test_responses_and_embeddings(url: str, token: str, named: str) -> None:
    where: dict[str, Any] = {"api_base": f"{url}/v1", "api_key": token}
    done: Any = litellm.responses(model=f"openai/{named}", input="Count from 1 to 3.", **where)
    assert done.output[0].content[0].text == "1, 2, 3"

    vectors: Any = litellm.embedding(model="openai/chat/embed", input=["one", "two"], **where)
    assert len(vectors.data) == 2


def test_a_context_too_long_has_its_own_class(url: str, token: str) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            model="openai/chat/fault-context",
            messages=said("hello"),
            api_base=f"{url}/v1",
            api_key=token,
            max_retries=0,
        )


def test_failures_have_the_classes_of_openai(url: str, token: str) -> None:
    where: dict[str, Any] = {"api_base": f"{url}/v1", "max_retries": 0}
    with pytest.raises(openai.NotFoundError):
        litellm.completion(
            model="openai/nobody/knows", messages=said("hello"), api_key=token, **where
        )
    with pytest.raises(openai.AuthenticationError):
        litellm.completion(
            model="openai/chat/assistant", messages=said("hello"), api_key="wrong", **where
        )


def test_an_agent(url: str, token: str) -> None:
    done: Any = litellm.completion(
        model="openai/openclaw",
        messages=said("Count from 1 to 3."),
        api_base=f"{url}/v1",
        api_key=token,
    )

    assert done.choices[0].message.content == "1, 2, 3"
