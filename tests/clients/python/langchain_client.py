"""``langchain-openai``: chat models, tools, structured output and embeddings."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class Event(BaseModel):
    """An event."""

    name: str
    participants: list[str]


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.fixture
def base(url: str, token: str) -> dict[str, Any]:
    return {"base_url": f"{url}/v1", "api_key": token, "max_retries": 0}


def test_it_answers_with_usage(base: dict[str, Any], model: str) -> None:
    chat = ChatOpenAI(model=model, **base)

    done = chat.invoke([SystemMessage("Be brief."), HumanMessage("Count from 1 to 3.")])

    assert done.content == "1, 2, 3"
    assert done.usage_metadata is not None
    assert done.usage_metadata["output_tokens"] == 3


def test_it_streams_with_usage(base: dict[str, Any], model: str) -> None:
    chat = ChatOpenAI(model=model, stream_usage=True, **base)

    pieces = list(chat.stream("Count from 1 to 3."))

    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.content == "1, 2, 3"
    assert whole.usage_metadata is not None
    assert len(pieces) > 3


def test_a_tool_loop(base: dict[str, Any], model: str) -> None:
    chat = ChatOpenAI(model=model, **base).bind_tools([get_weather])
    asked: list[Any] = [HumanMessage("What is the weather in Oslo?")]

    first = chat.invoke(asked)
    assert isinstance(first, AIMessage)
    (call,) = first.tool_calls
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    second = chat.invoke([*asked, first, result])

    assert second.content == "The tool says: sunny in Oslo"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(base: dict[str, Any], method: Any) -> None:
    for name in ("chat", "responses", "messages"):
        chat = ChatOpenAI(model=f"{name}/assistant", **base)
        event = chat.with_structured_output(Event, method=method).invoke("Extract the event.")
        assert isinstance(event, Event)


def test_an_image(base: dict[str, Any], image: str, model: str) -> None:
    parts: list[Any] = [
        {"type": "text", "text": "What do you see?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]

    assert ChatOpenAI(model=model, **base).invoke([HumanMessage(parts)]).content == (
        "I was given an image."
    )


def test_the_responses_api(base: dict[str, Any], model: str) -> None:
    chat = ChatOpenAI(model=model, use_responses_api=True, use_previous_response_id=True, **base)

    first = chat.invoke("My name is Alice.")
    second = chat.invoke(
        [HumanMessage("My name is Alice."), first, HumanMessage("What is my name?")]
    )

    assert second.text == "The name is Alice."
    assert "".join(piece.text for piece in chat.stream("Count from 1 to 3.")) == "1, 2, 3"


def test_embeddings(base: dict[str, Any]) -> None:
    # Its default, arrays of tokens, needs a table from the internet to make them.
    embeddings = OpenAIEmbeddings(model="chat/embed", check_embedding_ctx_length=False, **base)

    assert len(embeddings.embed_documents(["one", "two"])) == 2


def test_an_agent(base: dict[str, Any]) -> None:
    chat = ChatOpenAI(model="openclaw", **base)

    assert chat.invoke("Count from 1 to 3.").content == "1, 2, 3"
