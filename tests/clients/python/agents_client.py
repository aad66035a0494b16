"""``openai-agents``: a loop of tools over both APIs."""

import asyncio
from typing import Any

import openai
import pytest
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

NOT_TRACED = RunConfig(tracing_disabled=True)


class Event(BaseModel):
    name: str
    participants: list[str]


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.fixture(params=[OpenAIResponsesModel, OpenAIChatCompletionsModel])
def brain(request: pytest.FixtureRequest, url: str, token: str, model: str) -> Any:
    """A model of the library, over either API."""
    sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)
    return request.param(model=model, openai_client=sdk)


def test_an_agent_with_a_tool(brain: Any) -> None:
    agent = Agent(name="helper", instructions="Be brief.", model=brain, tools=[get_weather])

    done = Runner.run_sync(agent, "What is the weather in Oslo?", run_config=NOT_TRACED)

    assert done.final_output == "The tool says: sunny in Oslo"


def test_an_agent_streams(brain: Any) -> None:
    agent = Agent(name="helper", instructions="Be brief.", model=brain, tools=[get_weather])

    async def run() -> tuple[str, str]:
        running = Runner.run_streamed(agent, "What is the weather in Oslo?", run_config=NOT_TRACED)
        text = ""
        async for event in running.stream_events():
            if event.type == "raw_response_event" and isinstance(
                event.data, ResponseTextDeltaEvent
            ):
                text += event.data.delta
        return text, str(running.final_output)

    assert asyncio.run(run()) == ("The tool says: sunny in Oslo", "The tool says: sunny in Oslo")


def test_a_typed_answer(brain: Any) -> None:
    agent = Agent(name="typed", instructions="Extract.", model=brain, output_type=Event)

    done = Runner.run_sync(agent, "The event.", run_config=NOT_TRACED)

    assert isinstance(done.final_output, Event)


def test_it_goes_on_by_the_id_of_the_last_response(url: str, token: str) -> None:
    sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)
    for name in ("chat/assistant", "openclaw"):
        agent = Agent(name="helper", model=OpenAIResponsesModel(model=name, openai_client=sdk))
        first = Runner.run_sync(agent, "My name is Alice.", run_config=NOT_TRACED)
        second = Runner.run_sync(
            agent,
            "What is my name?",
            previous_response_id=first.last_response_id,
            run_config=NOT_TRACED,
        )
        assert second.final_output == "The name is Alice."
