"""``/v1/responses`` of a running gateway: answered, kept, continued, run in the background."""

from typing import Any

import pytest
import trio

from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.gateway.responding import (
    PATH,
    Client,
    first_events,
    numbers,
    read_events,
    text_of,
)

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}


@pytest.fixture
async def client(gateway: Gateway, acme: Tenant) -> Client:
    return Client(gateway, acme)


async def test_an_answer_is_found_again_as_it_was(client: Client) -> None:
    made = await client.create("hi", metadata={"k": "v"}, instructions="Be short.")

    assert (made["object"], made["status"]) == ("response", "completed")
    assert (made["metadata"], made["instructions"]) == ({"k": "v"}, "Be short.")
    assert await client.get(f"{PATH}/{made['id']}") == made


async def test_a_stream_tells_what_is_kept(client: Client) -> None:
    events = await client.streamed("hi")

    assert numbers(events) == list(range(len(events)))
    assert [event["type"] for event in events[:3]] == [
        "response.created", "response.in_progress", "response.output_item.added",
    ]  # fmt: skip
    last = events[-1]
    assert last["type"] == "response.completed"
    assert await client.get(f"{PATH}/{last['response']['id']}") == last["response"]


async def test_what_was_said_before_is_part_of_the_conversation(client: Client) -> None:
    first = await client.create("my name is Ada", model="stub/assistant")
    second = await client.create(
        "what is my name?", model="stub/assistant", previous_response_id=first["id"]
    )
    third = await client.create(
        "and what is my name?", model="stub/assistant", previous_response_id=second["id"]
    )

    assert "Ada" in text_of(second)
    assert "Ada" in text_of(third)
    assert third["previous_response_id"] == second["id"]


async def test_instructions_are_not_inherited(client: Client) -> None:
    first = await client.create("hi", model="stub/assistant", instructions="Speak like a pirate.")
    second = await client.create(
        "repeat your instructions", model="stub/assistant", previous_response_id=first["id"]
    )

    assert "pirate" not in text_of(second)


async def test_a_tool_is_called_and_its_result_told(client: Client) -> None:
    first = await client.create(
        "What is the weather in Paris?", model="stub/assistant", tools=[WEATHER]
    )
    (call,) = [item for item in first["output"] if item["type"] == "function_call"]
    assert (call["name"], first["status"]) == ("get_weather", "completed")

    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    second = await client.create(
        [result], model="stub/assistant", tools=[WEATHER], previous_response_id=first["id"]
    )
    assert "sunny" in text_of(second)
    whole = [{"role": "user", "content": "What is the weather in Paris?"}, *first["output"], result]
    third = await client.create(whole, model="stub/assistant", tools=[WEATHER], store=False)
    assert "sunny" in text_of(third)


async def test_a_result_of_a_call_that_never_was_is_refused(client: Client) -> None:
    first = await client.create("hi")
    result = {"type": "function_call_output", "call_id": "call_x", "output": "sunny"}

    error = await client.refused([result], previous_response_id=first["id"])

    assert "call_x" in error["message"]


async def test_stored_items_can_be_referred_to(client: Client) -> None:
    first = await client.create("my name is Ada", model="stub/assistant")
    (page,) = (await client.get(f"{PATH}/{first['id']}/input_items"))["data"]
    said = [
        {"type": "item_reference", "id": page["id"]},
        {"id": first["output"][0]["id"]},
        {"role": "user", "content": "what is my name?"},
    ]

    second = await client.create(said, model="stub/assistant")

    assert "Ada" in text_of(second)
    error = await client.refused([{"type": "item_reference", "id": "msg_x"}])
    assert error["param"] == "input[0].id"


async def test_what_is_not_stored_is_not_found(client: Client) -> None:
    made = await client.create(store=False)

    await client.get(f"{PATH}/{made['id']}", status=404)
    error = await client.refused(previous_response_id=made["id"])
    assert error["code"] == "previous_response_not_found"
    assert error["param"] == "previous_response_id"
    assert error["type"] == "invalid_request_error"


async def test_every_reason_for_not_continuing_sounds_alike(
    client: Client, gateway: Gateway
) -> None:
    other = Client(gateway, await gateway.create("other"))
    foreign = await other.create()
    unstored = await client.create(store=False)
    deleted = await client.create()
    await client.send("DELETE", f"{PATH}/{deleted['id']}")

    errors = [
        await client.refused(previous_response_id=each)
        for each in (foreign["id"], unstored["id"], deleted["id"], "resp_unknown")
    ]

    assert errors == [errors[0]] * 4


async def test_other_tenants_find_nothing(client: Client, gateway: Gateway) -> None:
    other = Client(gateway, await gateway.create("other"))
    mine = await client.create(background=True)
    await client.ended(mine["id"])

    for method, path in (
        ("GET", f"{PATH}/{{}}"),
        ("GET", f"{PATH}/{{}}?stream=true"),
        ("DELETE", f"{PATH}/{{}}"),
        ("POST", f"{PATH}/{{}}/cancel"),
        ("GET", f"{PATH}/{{}}/input_items"),
    ):
        theirs = await other.send(method, path.format(mine["id"]))
        unknown = await other.send(method, path.format("resp_" + "0" * 32))
        assert theirs.status_code == unknown.status_code == 404, (method, path)
        same = theirs.text.replace(mine["id"], "resp_" + "0" * 32)
        assert same == unknown.text
    assert (await client.get(f"{PATH}/{mine['id']}"))["id"] == mine["id"]


async def test_deleting_it_ends_it(client: Client) -> None:
    made = await client.create()

    answer = await client.send("DELETE", f"{PATH}/{made['id']}")

    assert answer.json() == {"id": made["id"], "object": "response", "deleted": True}
    await client.get(f"{PATH}/{made['id']}", status=404)
    assert (await client.send("DELETE", f"{PATH}/{made['id']}")).status_code == 404


async def test_input_items_come_in_pages(client: Client) -> None:
    made = await client.create([{"role": "user", "content": f"line {n}"} for n in range(5)])

    first = await client.get(f"{PATH}/{made['id']}/input_items?limit=2&order=asc")
    rest = await client.get(
        f"{PATH}/{made['id']}/input_items?order=asc&limit=100&after={first['last_id']}"
    )

    assert first["object"] == "list"
    assert (first["has_more"], rest["has_more"]) == (True, False)
    said = [item["content"][0]["text"] for item in first["data"] + rest["data"]]
    assert said == [f"line {n}" for n in range(5)]
    for wrong in ("limit=0", "limit=101", "limit=x", "order=up", "after=msg_x"):
        answer = await client.send("GET", f"{PATH}/{made['id']}/input_items?{wrong}")
        assert answer.status_code == 400, wrong


async def test_a_form_asks_as_well(client: Client, gateway: Gateway, acme: Tenant) -> None:
    answer = await gateway.http.post(
        PATH, data={"model": "stub/mock", "input": "hi"}, headers=gateway.headers(acme.token)
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"


async def test_json_that_calls_itself_a_form_is_json(gateway: Gateway, acme: Tenant) -> None:
    """As ``curl -d '{…}'`` sends it."""
    answer = await gateway.http.post(
        PATH,
        content=b' {"model": "stub/mock", "input": "hi"}',
        headers=gateway.headers(
            acme.token, **{"content-type": "application/x-www-form-urlencoded"}
        ),
    )

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "stub/missing"}, 404, None),
        ({"model": "nosuch/model"}, 404, "model_not_found"),
        ({"model": "stub/fault-context"}, 400, "context_length_exceeded"),
        ({"temperature": 9}, 400, "invalid_value"),
        ({"background": True, "store": False}, 400, "invalid_value"),
        ({"conversation": "conv_x"}, 404, "not_found"),
        ({"conversation": "conv_x", "previous_response_id": "resp_x"}, 400, "invalid_value"),
    ],
)
async def test_what_fails_before_the_answer_has_a_status(
    client: Client, body: dict[str, Any], status: int, code: str | None
) -> None:
    for streams in (False, True):
        error = await client.refused(status=status, stream=streams, **body)
        assert code is None or error["code"] == code


async def test_a_stream_that_breaks_off_says_so_and_is_kept_as_failed(
    client: Client, gateway: Gateway, acme: Tenant
) -> None:
    events = await client.streamed(model="stub/fault-cut")

    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert numbers(events) == list(range(len(events)))
    failed = events[-1]["response"]
    assert failed["status"] == "failed"
    assert failed["error"]["code"]
    assert await client.get(f"{PATH}/{failed['id']}") == failed
    assert (await gateway.usage(acme))["requests"] == 1


async def test_truncation_leaves_out_the_oldest(client: Client, gateway: Gateway) -> None:
    said = [{"role": "user", "content": f"line {n}"} for n in range(8)]

    refused = await client.refused(said, model="stub/fault-context", truncation="disabled")
    again = await client.refused(said, model="stub/fault-context", truncation="auto")

    assert refused["code"] == again["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("model", "is_estimated"),
    [
        ("stub/mock", True),
        ("openclaw", True),
        ("replies/mock", False),
        ("claude/mock", False),
    ],
)
async def test_tokens_are_counted(client: Client, model: str, *, is_estimated: bool) -> None:
    body = {"model": model, "input": "hello there"}
    answer = await client.send("POST", f"{PATH}/input_tokens", body)

    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "response.input_tokens"
    estimated = answer.headers.get("x-openclaw-estimated")
    if is_estimated:
        assert (estimated, answer.json()["input_tokens"] > 0) == ("true", True)
    else:
        assert (estimated, answer.json()["input_tokens"]) == (None, 2)


async def test_counting_is_a_request_that_costs_nothing(gateway: Gateway) -> None:
    acme = await gateway.create("acme", quotas={"requests_per_minute": 2})
    client = Client(gateway, acme)
    message = {"model": "claude/mock", "messages": [{"role": "user", "content": "hi"}]}
    counting = (f"{PATH}/input_tokens", {"model": "stub/mock", "input": "hi"})

    first = await client.send("POST", *counting)
    second = await client.send("POST", "/v1/messages/count_tokens", message)
    late = [
        await client.send("POST", *counting),
        await client.send("POST", "/v1/messages/count_tokens", message),
    ]

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    for answer in late:
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
    assert (await gateway.usage(acme))["requests"] == 0


@pytest.mark.parametrize("model", ["nosuch/model", "nosuch", "openclaw:nosuch"])
async def test_where_nobody_can_answer_nothing_begins(client: Client, model: str) -> None:
    for more in ({}, {"background": True}, {"background": True, "stream": True}, {"stream": True}):
        error = await client.refused(model=model, status=404, **more)
        assert error["code"] == "model_not_found"
    for path in ("compact", "input_tokens"):
        answer = await client.send("POST", f"{PATH}/{path}", {"model": model, "input": "hi"})
        assert answer.status_code == 404, answer.text


async def test_a_long_conversation_is_compacted_on_the_way(client: Client) -> None:
    first = await client.create("the code word is swordfish " + "and so on " * 500)
    rule = [{"type": "compaction", "compact_threshold": 1000}]

    events = await client.streamed(
        "go on", previous_response_id=first["id"], context_management=rule
    )

    made = events[-1]["response"]
    assert [item["type"] for item in made["output"]] == ["compaction", "message"]
    assert [event["type"] for event in events[2:4]] == [
        "response.output_item.added",
        "response.output_item.done",
    ]
    assert await client.get(f"{PATH}/{made['id']}") == made
    again = await client.create("and?", previous_response_id=made["id"], context_management=rule)
    assert [item["type"] for item in again["output"]] == ["message"]


async def test_a_compacted_conversation_goes_on(client: Client) -> None:
    made = await client.create("the code word is swordfish", model="stub/assistant")
    answer = await client.send(
        "POST",
        f"{PATH}/compact",
        {"model": "stub/assistant", "previous_response_id": made["id"]},
    )
    assert answer.status_code == 200, answer.text
    compacted = answer.json()
    assert compacted["object"] == "response.compaction"
    (item,) = compacted["output"]
    assert item["type"] == "compaction"
    assert compacted["usage"]["total_tokens"] > 0
    assert answer.headers["x-openclaw-model"] == "stub/assistant"
    assert answer.headers["x-openclaw-attempts"] == "1"
    priced = await client.send("POST", f"{PATH}/compact", {"model": "stub/mock", "input": "hi"})
    assert float(priced.headers["x-openclaw-cost"]) > 0

    after = await client.create(
        [item, {"role": "user", "content": "what was the code word?"}], model="stub/assistant"
    )

    assert "swordfish" in text_of(after)
    missing = await client.send("POST", f"{PATH}/compact", {"input": "hi"})
    assert missing.status_code == 400


# In the background


async def test_a_run_in_the_background_is_queued_and_ends(client: Client) -> None:
    made = await client.create("hi", background=True)

    assert made["status"] == "queued"
    ended = await client.ended(made["id"])
    assert (ended["status"], ended["background"]) == ("completed", True)
    assert text_of(ended)
    after = await client.create("and?", previous_response_id=made["id"])
    assert after["status"] == "completed"


async def test_each_event_is_told_once_however_often_the_stream_is_taken_up(
    client: Client, gateway: Gateway, acme: Tenant
) -> None:
    body = {"model": "stub/fault-slow", "input": "hi", "background": True, "stream": True}
    seen = await first_events(gateway, acme, body, number=8)  # the run goes on without them
    response_id = seen[0]["response"]["id"]
    after = seen[-1]["sequence_number"]
    path = f"{PATH}/{response_id}?stream=true&starting_after="

    live = read_events((await client.send("GET", f"{path}{after}")).text)
    stored = read_events((await client.send("GET", f"{path}-1")).text)

    assert numbers(seen + live) == list(range(len(stored)))
    assert seen + live == stored
    assert stored[-1]["type"] == "response.completed"
    assert await client.get(f"{PATH}/{response_id}") == stored[-1]["response"]
    assert read_events((await client.send("GET", f"{path}{len(stored)}")).text) == []


async def test_cancelling_ends_it_and_does_no_harm_twice(client: Client) -> None:
    made = await client.create(background=True, model="stub/fault-hang")

    first = await client.send("POST", f"{PATH}/{made['id']}/cancel")
    second = await client.send("POST", f"{PATH}/{made['id']}/cancel")

    assert first.status_code == second.status_code == 200
    assert first.json()["status"] == "cancelled"
    assert second.json() == first.json()
    done = await client.create(background=True)
    await client.ended(done["id"])
    late = await client.send("POST", f"{PATH}/{done['id']}/cancel")
    assert late.json()["status"] == "completed"


async def test_what_was_waited_for_cannot_be_cancelled(client: Client) -> None:
    made = await client.create()

    answer = await client.send("POST", f"{PATH}/{made['id']}/cancel")

    assert answer.status_code == 400
    assert (await client.send("GET", f"{PATH}/{made['id']}?stream=true")).status_code == 400


async def test_a_run_that_fails_says_why(client: Client) -> None:
    made = await client.create(background=True, model="stub/fault-500")

    ended = await client.ended(made["id"])

    assert ended["status"] == "failed"
    assert ended["error"]["message"]
    stream = await client.send("GET", f"{PATH}/{made['id']}?stream=true")
    events = read_events(stream.text)
    assert [event["type"] for event in events] == [
        "response.created", "response.queued", "error", "response.failed",
    ]  # fmt: skip


async def test_deleting_a_run_ends_it(client: Client, gateway: Gateway) -> None:
    made = await client.create(background=True, model="stub/fault-hang")

    assert (await client.send("DELETE", f"{PATH}/{made['id']}")).status_code == 200

    await client.get(f"{PATH}/{made['id']}", status=404)
    status = await gateway.http.get("/v1/status", headers=gateway.headers(ADMIN_KEY))
    assert status.status_code == 200


async def test_only_so_many_run_at_once(client: Client, gateway: Gateway, acme: Tenant) -> None:
    await gateway.configure(acme, {"defaults": {"responses": {"max_background": 1}}})
    made = await client.create(background=True, model="stub/fault-hang")

    error = await client.refused(background=True, status=429)

    assert error["code"] == "rate_limit_exceeded"
    await client.send("POST", f"{PATH}/{made['id']}/cancel")
    await client.create(background=True)


# Agents


async def test_an_agent_goes_on_in_its_session(client: Client) -> None:
    first = await client.create("one", model="openclaw")
    second = await client.create("two", model="openclaw", previous_response_id=first["id"])

    assert second["model"] == "openclaw"
    grown = second["usage"]["input_tokens"] - first["usage"]["input_tokens"]
    assert grown > 0, "the second call carries the first turn"


async def test_an_agent_hands_its_callers_tools_over(client: Client, gateway: Gateway) -> None:
    await gateway.configure(client.tenant, {"models": {"default": "stub/assistant"}})
    first = await client.create("What is the weather in Paris?", model="openclaw", tools=[WEATHER])
    (call,) = [item for item in first["output"] if item["type"] == "function_call"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}

    second = await client.create(
        [result], model="openclaw", tools=[WEATHER], previous_response_id=first["id"]
    )

    assert "sunny" in text_of(second)
    whole = [{"role": "user", "content": "What is the weather in Paris?"}, *first["output"], result]
    third = await client.create(whole, model="openclaw", tools=[WEATHER], store=False)
    assert "sunny" in text_of(third)


async def test_a_conversation_with_an_agent(client: Client) -> None:
    conversation = (await client.send("POST", "/v1/conversations", {})).json()["id"]
    first = await client.create("one", model="openclaw", conversation=conversation)
    second = await client.create("two", model="openclaw", conversation=conversation)

    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    items = await client.get(f"/v1/conversations/{conversation}/items?order=asc")
    assert [item["role"] for item in items["data"]] == ["user", "assistant"] * 2


# What happens on the way


async def test_a_client_that_leaves_ends_the_call(
    client: Client, gateway: Gateway, acme: Tenant
) -> None:
    body = {"model": "stub/fault-hang", "input": "hi", "stream": True}
    (created,) = await first_events(gateway, acme, body, number=1)

    with trio.fail_after(60):
        while (await gateway.usage(acme))["requests"] != 1:  # noqa: ASYNC110 - it is told to nobody
            await trio.sleep(0.02)
    await client.get(f"{PATH}/{created['response']['id']}", status=404)


@pytest.mark.parametrize("path", ["", "/resp_x", "/resp_x/cancel", "/resp_x/input_items"])
async def test_without_a_token_nothing_is_told(gateway: Gateway, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = await gateway.http.request(method, PATH + path, json={})
        assert answer.status_code in {401, 400, 405}, (method, path)
        assert answer.json()["error"]["code"] in {"invalid_api_key", "method_not_allowed"}


@pytest.mark.parametrize("path", ["/", "/resp_x/other", "/resp_x/cancel/more", "/%00", "//"])
async def test_other_paths_are_not_found(client: Client, path: str) -> None:
    await client.get(PATH + path, status=404)


# Limits below what a provider of responses can be told


async def test_a_limit_that_the_provider_cannot_be_told_is_refused_and_costs_nothing(
    gateway: Gateway, acme: Tenant
) -> None:
    said = {"model": "replies/mock", "messages": [{"role": "user", "content": "hi"}]}

    answer = await gateway.chat(acme, {**said, "max_tokens": 15})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "max_tokens"
    assert (await gateway.usage(acme))["input_tokens"] == 0
    assert (await gateway.chat(acme, {**said, "max_tokens": 16})).status_code == 200


async def test_what_is_left_of_a_budget_is_not_rounded_up(gateway: Gateway) -> None:
    poor = Client(gateway, await gateway.create("poor", quotas={"tokens_per_day": 16}))

    error = await poor.refused("hi", status=429, model="replies/mock")

    assert error["code"] == "insufficient_quota"
    assert "no limit below 16" in error["message"]
    assert (await gateway.usage(poor.tenant))["input_tokens"] == 0
    await poor.create("hi")  # another provider takes any limit
