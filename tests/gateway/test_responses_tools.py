"""Tools other than functions, from a caller of responses to a provider of them and back."""

from itertools import product
from typing import Any

import pytest

from tests.gateway.conftest import Gateway, Tenant
from tests.gateway.responding import PATH, Client
from tests.protocols.responses import lifecycle
from tests.stub_provider import server
from tests.stub_provider.asked import Request
from tests.stub_provider.frames import Answer, sse

MODEL = "replies/mock"
CITATION = {"type": "url_citation", "url": "https://a.example", "start_index": 0, "end_index": 3}
MCP = {
    "type": "mcp",
    "server_label": "wiki",
    "server_url": "https://wiki.example/secret",
    "authorization": "secret",
}
TOOLS = [
    {"type": "custom", "name": "run", "format": {"type": "text"}},
    {"type": "web_search"},
    MCP,
]
SEARCH = {"type": "web_search_call", "id": "ws_up", "status": "in_progress"}
SEARCHED = {**SEARCH, "status": "completed", "action": {"type": "search", "query": "sun"}}
APPROVAL = {
    "type": "mcp_approval_request",
    "id": "mcpr_up",
    "server_label": "wiki",
    "name": "ask",
    "arguments": "{}",
}
RUN = {"type": "custom_tool_call", "id": "ctc_up", "call_id": "c", "name": "run", "input": "ls"}


def item(index: int, value: dict[str, Any], **begun: Any) -> list[dict[str, Any]]:
    place = {"output_index": index}
    return [
        {"type": "response.output_item.added", **place, "item": {**value, **begun}},
        {"type": "response.output_item.done", **place, "item": value},
    ]


def message(index: int, text: str, phase: str, *annotations: Any) -> list[dict[str, Any]]:
    place = {"output_index": index, "item_id": f"msg_{index}", "content_index": 0}
    part = {"type": "output_text", "text": text, "annotations": list(annotations)}
    value = {"type": "message", "role": "assistant", "phase": phase, "content": [part]}
    begun, ended = item(index, value, content=[])
    told = [
        {"type": "response.output_text.annotation.added", **place, "annotation": each}
        for each in annotations
    ]
    delta = {"type": "response.output_text.delta", **place, "delta": text}
    return [
        begun,
        delta,
        *told,
        {"type": "response.content_part.done", **place, "part": part},
        ended,
    ]


def search(index: int) -> list[dict[str, Any]]:
    begun, ended = item(index, SEARCHED, **SEARCH)
    searching = {"type": "response.web_search_call.searching", "output_index": index}
    return [begun, {**searching, "item_id": "ws_up", "sequence_number": 3}, ended]


EVENTS = [
    *message(0, "I look", "commentary"),
    *search(1),
    *message(2, "Sunny", "final_answer", CITATION),
    *item(3, APPROVAL),
    *item(4, RUN, input=""),
    {"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tokens": 9}}},
]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the provider was asked; it uses all of the tools."""
    bodies: list[dict[str, Any]] = []

    def respond(request: Request) -> Answer:
        bodies.append(request.json())
        events = b"".join(sse(event, event=event["type"]) for event in EVENTS)
        return Answer((events,), content_type="text/event-stream")

    monkeypatch.setattr(server, "respond", respond)
    return bodies


@pytest.fixture
async def client(gateway: Gateway, acme: Tenant) -> Client:
    """With a key of its own: what the tools cost is between it and the provider."""
    client = Client(gateway, acme)
    key = {"api_key": "sk-of-the-tenant"}
    answer = await client.send("PUT", f"/v1/tenants/{acme.id}/credentials/replies", key)
    assert answer.is_success, answer.text
    return client


async def test_they_are_passed_on_told_kept_and_sent_back(
    client: Client, asked: list[dict[str, Any]]
) -> None:
    events = await client.streamed("weather?", model=MODEL, tools=TOOLS)

    final = lifecycle.check(events)
    assert asked[0]["tools"] == TOOLS
    assert "secret" not in str(final)
    assert await client.get(f"{PATH}/{final['id']}") == final
    first, call, second, approval, run = final["output"]
    assert [first["phase"], second["phase"]] == ["commentary", "final_answer"]
    assert second["content"][0]["annotations"] == [CITATION]
    assert call == {**SEARCHED, "id": call["id"]}
    assert approval == {**APPROVAL, "id": approval["id"]}
    assert (run["type"], run["input"]) == ("custom_tool_call", "ls")

    answers = [
        {"type": "mcp_approval_response", "approval_request_id": approval["id"], "approve": True},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "a.txt"},
    ]
    whole = await client.create(answers, model=MODEL, tools=TOOLS, previous_response_id=final["id"])

    said = asked[1]["input"]
    assert [each["type"] for each in said] == [
        "message",
        "message",
        "web_search_call",
        "message",
        "mcp_approval_request",
        "custom_tool_call",
        "mcp_approval_response",
        "custom_tool_call_output",
    ]
    assert said[3]["content"][0]["annotations"] == [CITATION]
    assert said[3]["phase"] == "final_answer"
    assert said[6]["approval_request_id"] == said[4]["id"]
    assert [each["type"] for each in whole["output"]] == [each["type"] for each in final["output"]]

    # What was answered may also be sent back by who keeps it, and listed.
    await client.create([*final["output"], *answers], model=MODEL, tools=TOOLS, store=False)
    assert asked[2]["input"][1:] == said[2:]
    listed = await client.get(f"{PATH}/{whole['id']}/input_items?order=asc")
    assert [each["type"] for each in listed["data"]] == [each["type"] for each in answers]


@pytest.mark.parametrize(
    ("model", "tool"),
    [
        *product(["claude/mock", "llama/mock", "openclaw"], TOOLS),
        *product(["stub/mock"], TOOLS[1:]),
    ],
)
async def test_nobody_else_has_them(client: Client, model: str, tool: dict[str, Any]) -> None:
    refused = await client.refused(model=model, tools=[tool])

    assert refused["param"] == "tools[0].type"


async def test_with_the_gateways_key_the_provider_runs_none(
    gateway: Gateway, asked: list[dict[str, Any]]
) -> None:
    other = Client(gateway, await gateway.create("other"))

    refused = await other.refused(model=MODEL, tools=[{"type": "web_search"}])

    assert refused["param"] == "tools[0].type"
    assert asked == []
    await other.create(model=MODEL, tools=TOOLS[:1])


async def test_a_choice_may_name_them(client: Client, asked: list[dict[str, Any]]) -> None:
    choice = {"type": "mcp", "server_label": "wiki"}

    made = await client.create(model=MODEL, tools=TOOLS, tool_choice=choice)

    assert asked[0]["tool_choice"] == choice
    assert made["tool_choice"] == choice
