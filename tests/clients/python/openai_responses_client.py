"""The official ``openai`` package: responses and conversations."""

import time
from typing import Any

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
    return [{"type": "function", "name": "get_weather", "parameters": weather, "strict": True}]


def test_an_answer_in_one_piece(client: openai.OpenAI, model: str) -> None:
    done = client.responses.create(model=model, input="Count from 1 to 3.", instructions="Be brief")

    assert done.object == "response"
    assert done.status == "completed"
    assert done.output_text == "1, 2, 3"
    assert done.instructions == "Be brief"
    assert done.usage is not None
    assert done.usage.output_tokens == 3
    assert done.usage.total_tokens == done.usage.input_tokens + 3


def test_every_event_of_a_stream_in_order(client: openai.OpenAI, model: str) -> None:
    events: list[Any] = list(
        client.responses.create(model=model, input="Count from 1 to 3.", stream=True)
    )

    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = kinds.count("output_text.delta")
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * deltas,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert deltas > 1
    assert events[-1].response.output_text == "1, 2, 3"


def test_the_stream_helper(client: openai.OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input="Count from 1 to 3.") as stream:
        kinds = {event.type for event in stream}
        done = stream.get_final_response()

    assert "response.output_text.delta" in kinds
    assert done.output_text == "1, 2, 3"


def test_a_tool_loop_by_the_id_of_the_previous_response(
    client: openai.OpenAI, model: str, tools: list[Any]
) -> None:
    first = client.responses.create(model=model, input=QUESTION, tools=tools)
    call = next(item for item in first.output if item.type == "function_call")

    assert call.name == "get_weather"
    assert "San Francisco" in call.arguments
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = client.responses.create(
        model=model, input=[output], previous_response_id=first.id, tools=tools
    )

    assert second.output_text == "The tool says: sunny"
    assert second.previous_response_id == first.id


def test_a_tool_loop_that_sends_everything_again(
    client: openai.OpenAI, model: str, tools: list[Any]
) -> None:
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    with client.responses.stream(model=model, input=asked, tools=tools, store=False) as stream:
        first = stream.get_final_response()
    call = next(item for item in first.output if item.type == "function_call")
    asked += [item.to_dict() for item in first.output]
    asked[-1].pop("parsed_arguments", None)
    asked.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})

    second = client.responses.create(model=model, input=asked, tools=tools, store=False)

    assert second.output_text == "The tool says: sunny"


def test_reasoning_goes_back_and_forth_sealed(
    client: openai.OpenAI, model: str, tools: list[Any]
) -> None:
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    more: Any = {
        "model": model,
        "tools": tools,
        "store": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 4000,
    }
    first = client.responses.create(input=asked, **more)
    thought = next(item for item in first.output if item.type == "reasoning")
    call = next(item for item in first.output if item.type == "function_call")

    assert thought.summary[0].text == "Let me think about it."
    asked += [item.to_dict() for item in first.output]
    asked.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    second = client.responses.create(input=asked, **more)

    assert second.output_text == "The tool says: sunny"


def test_structured_output(client: openai.OpenAI, model: str) -> None:
    done = client.responses.parse(model=model, input="Extract the event.", text_format=Event)

    assert isinstance(done.output_parsed, Event)


def test_an_image_and_a_file(client: openai.OpenAI, image: str) -> None:
    for name in ("chat", "responses", "messages"):
        parts = [
            {"type": "input_text", "text": "What do you see?"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{image}", "detail": "low"},
        ]
        asked: Any = [{"role": "user", "content": parts}]
        done = client.responses.create(model=f"{name}/assistant", input=asked)
        assert done.output_text == "I was given an image."


def test_a_conversation_goes_on_by_the_id_of_the_last_response(
    client: openai.OpenAI, model: str
) -> None:
    first = client.responses.create(model=model, input="My name is Alice.")
    second = client.responses.create(
        model=model, input="What is my name?", previous_response_id=first.id
    )
    third = client.responses.create(
        model=model, input="And again: what is my name?", previous_response_id=second.id
    )

    assert second.output_text == third.output_text == "The name is Alice."


def test_instructions_are_not_inherited(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model="chat/assistant", input="hello", instructions="Speak like a pirate."
    )
    second = client.responses.create(
        model="chat/assistant",
        input="Repeat your instructions.",
        previous_response_id=first.id,
    )

    assert "pirate" not in second.output_text


def test_what_is_stored_can_be_got_listed_and_deleted(client: openai.OpenAI) -> None:
    made = client.responses.create(model="chat/assistant", input="hello", metadata={"topic": "x"})

    assert client.responses.retrieve(made.id).output_text == made.output_text
    assert client.responses.retrieve(made.id).metadata == {"topic": "x"}
    items: list[Any] = list(client.responses.input_items.list(made.id))
    assert items[0].content[0].text == "hello"
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_what_is_not_stored_cannot_be_gone_on_from(client: openai.OpenAI) -> None:
    made = client.responses.create(model="chat/assistant", input="hello", store=False)

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="chat/assistant", input="x", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


def test_a_response_in_the_background(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="chat/assistant", input="Count from 1 to 3.", background=True
    )

    assert made.status in {"queued", "in_progress"}
    deadline = time.monotonic() + 60
    while made.status in {"queued", "in_progress"} and time.monotonic() < deadline:
        made = client.responses.retrieve(made.id)
    assert made.output_text == "1, 2, 3"
    resumed: list[Any] = list(client.responses.retrieve(made.id, stream=True, starting_after=2))
    assert resumed[0].sequence_number == 3
    assert resumed[-1].type == "response.completed"


def test_a_background_response_can_be_cancelled(client: openai.OpenAI) -> None:
    made = client.responses.create(model="chat/fault-hang", input="x", background=True)

    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.cancel(made.id).status == "cancelled"


def test_conversations_hold_what_was_said(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(metadata={"topic": "names"})
    for text in ("My name is Alice.", "What is my name?"):
        done = client.responses.create(
            model="chat/assistant", input=text, conversation=conversation.id
        )

    assert done.output_text == "The name is Alice."
    listed = list(client.conversations.items.list(conversation.id))
    assert len(listed) == 4
    changed = client.conversations.update(conversation.id, metadata={"topic": "people"})
    assert changed.metadata == {"topic": "people"}
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)


def test_tokens_are_counted_and_a_conversation_is_compacted(client: openai.OpenAI) -> None:
    counted = client.responses.input_tokens.count(model="chat/assistant", input="one two three")
    assert counted.input_tokens > 0

    asked: list[Any] = [
        {"role": "user", "content": "My name is Alice."},
        {"role": "assistant", "content": "Hello Alice."},
    ]
    compacted = client.responses.compact(model="chat/assistant", input=asked)
    assert compacted.object == "response.compaction"
    assert any(item.type == "compaction" for item in compacted.output)
    window: list[Any] = [item.to_dict() for item in compacted.output]
    done = client.responses.create(
        model="chat/assistant", input=[*window, {"role": "user", "content": "hello"}]
    )
    assert done.status == "completed"


def test_an_answer_cut_off_is_incomplete(client: openai.OpenAI, model: str) -> None:
    done = client.responses.create(model=model, input="Count from 1 to 50.", max_output_tokens=16)

    assert done.status == "incomplete"
    assert done.incomplete_details is not None
    assert done.incomplete_details.reason == "max_output_tokens"
    assert done.output[-1].status == "incomplete"  # type: ignore[union-attr] # it is a message


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages", "ollama"])
@pytest.mark.parametrize("fault", ["error-mid-stream", "cut", "malformed"])
def test_a_broken_stream_fails(client: openai.OpenAI, dialect: str, fault: str) -> None:
    kinds: list[str] = []

    with pytest.raises(openai.APIError):  # noqa: PT012 - the stream starts well
        stream = client.responses.create(
            model=f"{dialect}/fault-{fault}", input="hello", stream=True
        )
        kinds.extend(event.type for event in stream)

    assert "response.completed" not in kinds


def test_failures_say_what_and_where(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(model="nobody/knows", input="hello")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")

    with pytest.raises(openai.BadRequestError) as bad:
        client.responses.create(model="chat/assistant", input="hello", temperature=9)
    assert bad.value.param == "temperature"

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_nobody")

    wrong = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.responses.create(model="chat/assistant", input="hello")


def test_the_socket(client: openai.OpenAI) -> None:
    with client.responses.connect() as connection:
        for text in ("My name is Alice.", "Count from 1 to 3."):
            connection.response.create(model="chat/assistant", input=text, store=False)
            kinds: list[str] = []
            for event in connection:
                kinds.append(event.type)
                if event.type in {"response.completed", "response.failed", "error"}:
                    break
            assert kinds[0] == "response.created"
            assert kinds[-1] == "response.completed"


def test_an_agent_goes_on_by_the_id_of_its_response(client: openai.OpenAI) -> None:
    first = client.responses.create(model="openclaw", input="My name is Alice.")
    second = client.responses.create(
        model="openclaw", input="What is my name?", previous_response_id=first.id
    )

    assert second.model == "openclaw"
    assert second.output_text == "The name is Alice."


def test_an_agent_hands_over_the_callers_tools(client: openai.OpenAI, tools: list[Any]) -> None:
    first = client.responses.create(model="openclaw", input=QUESTION, tools=tools)
    call = next(item for item in first.output if item.type == "function_call")
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rainy"}
    second = client.responses.create(
        model="openclaw", input=[output], previous_response_id=first.id, tools=tools
    )

    assert second.output_text == "The tool says: rainy"
