"""An agent that acts, behind ``/v1/responses``: its own tools run here, its caller's do not."""

import json
from typing import Any

import pytest
import trio

from tests.gateway.conftest import Gateway
from tests.gateway.responding import PATH, Client, text_of

APPEND = {"path": "log.txt", "content": "once\n"}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
}
SHOWN = ["openclaw:tool_calls"]


@pytest.fixture
async def client(gateway: Gateway) -> Client:
    acme = await gateway.create("acme", config={"models": {"default": "stub/acts"}})
    return Client(gateway, acme)


def call(name: str, **arguments: Any) -> str:
    return f"call {name} {json.dumps(arguments)}"


def kinds(response: dict[str, Any]) -> list[str]:
    return [item["type"] for item in response["output"]]


async def test_what_its_own_tools_do_is_shown_to_who_asks(client: Client) -> None:
    script = call("write", path="a.txt", content="one")

    quiet = await client.create(script, model="openclaw")
    shown = await client.create(script, model="openclaw", include=SHOWN)

    assert kinds(quiet) == ["message"]
    assert kinds(shown) == ["openclaw:tool_call", "message"]
    item = shown["output"][0]
    assert (item["name"], item["status"]) == ("write", "completed")
    assert json.loads(item["arguments"]) == {"path": "a.txt", "content": "one"}
    assert item["output"]


async def test_a_stream_shows_them_as_items(client: Client) -> None:
    script = call("write", path="a.txt", content="one")

    events = await client.streamed(script, model="openclaw", include=SHOWN)

    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["openclaw:tool_call", "message"]
    assert events[-1]["response"]["output"] == done
    quiet = await client.streamed(script, model="openclaw")
    assert "openclaw" not in json.dumps([event.get("item") for event in quiet])


@pytest.mark.parametrize("how", ["previous", "resent", "conversation"])
async def test_a_turn_that_waited_goes_on_without_acting_again(client: Client, how: str) -> None:
    script = f"{call('write', **APPEND)}\n\n{call('get_weather', location='Paris')}"
    more: dict[str, Any] = {"model": "openclaw", "tools": [WEATHER], "include": SHOWN}
    if how == "conversation":
        more["conversation"] = (await client.send("POST", "/v1/conversations", {})).json()["id"]
    if how == "resent":
        more["store"] = False

    first = await client.create(script, **more)

    assert kinds(first) == ["openclaw:tool_call", "function_call"]
    waiting = first["output"][1]
    assert waiting["name"] == "get_weather"
    result: dict[str, Any] = {
        "type": "function_call_output", "call_id": waiting["call_id"], "output": "sunny",
    }  # fmt: skip
    said: list[dict[str, Any]] = [result]
    if how == "previous":
        more["previous_response_id"] = first["id"]
    if how == "resent":
        said = [{"role": "user", "content": script}, *first["output"], result]
    second = await client.create(said, **more)

    assert kinds(second) == ["message"], "nothing was done again"
    told = text_of(second)
    assert told.count("sunny") == 1
    assert told.count("log.txt") == 1


async def test_a_call_that_nobody_made_cannot_be_answered(client: Client) -> None:
    first = await client.create("hi", model="openclaw")
    result = {"type": "function_call_output", "call_id": "call_x", "output": "sunny"}

    error = await client.refused([result], model="openclaw", previous_response_id=first["id"])

    assert "call_x" in error["message"]
    assert error["param"] == "input"


@pytest.mark.parametrize("how", ["previous", "session"])
async def test_a_follow_up_whose_answer_was_lost_is_answered_again(
    client: Client, how: str
) -> None:
    steps = [
        call("write", **APPEND),
        call("get_weather", location="Paris"),
        call("edit", path="log.txt", oldText="once", newText="twice"),
    ]
    more: dict[str, Any] = {"model": "openclaw", "tools": [WEATHER]}
    headers = {} if how == "previous" else {"x-openclaw-session-key": "work"}

    async def ask(said: object, **extra: Any) -> dict[str, Any]:
        body = {"input": said, **more, **extra}
        answer = await client.send("POST", "/v1/responses", body, **headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    first = await ask("\n\n".join(steps))
    (waiting,) = first["output"]
    said: list[dict[str, Any]] = [
        {"type": "function_call_output", "call_id": waiting["call_id"], "output": "sunny"}
    ]
    if how == "previous":
        more["previous_response_id"] = first["id"]
    if how == "session":
        said.insert(0, waiting)
    told: list[dict[str, Any]] = []

    async def follow_up() -> None:
        told.append(await ask(said))

    await follow_up()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(follow_up)

    assert len({text_of(each) for each in told}) == 1, "what was twice could not be edited again"
    assert "sunny" in text_of(told[0])
    shown = await ask(said, include=SHOWN)
    assert [(i["type"], i.get("name")) for i in shown["output"]] == [
        ("openclaw:tool_call", "edit"), ("message", None),
    ]  # fmt: skip


async def test_an_agent_calls_no_more_tools_than_it_is_asked_to(client: Client) -> None:
    steps = [call("write", path=f"{name}.txt", content=name) for name in "abc"]

    response = await client.create(
        "\n\n".join(steps), model="openclaw", max_tool_calls=1, include=SHOWN
    )

    assert kinds(response) == ["openclaw:tool_call", "message"]
    assert response["max_tool_calls"] == 1


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_what_is_refused_of_a_message_is_named_as_its_caller_knows_it(
    client: Client, path: str
) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    field = "input" if path == PATH else "messages"

    answer = await client.send(
        "POST", path, {"model": "openclaw", field: [{"role": "user", "content": [sound]}]}
    )

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == field
    assert "messages[" not in answer.text
