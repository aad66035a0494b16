"""Checks the events of one response: their order, their numbers, and that they say one thing.

Used wherever a response is streamed: over SSE, over a WebSocket, from storage.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from appliance.protocols.responses.asides import HOSTED, PROGRESS

Event = dict[str, Any]

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
REQUIRED = frozenset(
    [
        "id",
        "object",
        "created_at",
        "completed_at",
        "status",
        "incomplete_details",
        "model",
        "previous_response_id",
        "instructions",
        "output",
        "error",
        "tools",
        "tool_choice",
        "truncation",
        "parallel_tool_calls",
        "text",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
        "temperature",
        "reasoning",
        "usage",
        "max_output_tokens",
        "max_tool_calls",
        "store",
        "background",
        "service_tier",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
    ]
)
NULLABLE = frozenset(
    [
        "completed_at",
        "incomplete_details",
        "previous_response_id",
        "instructions",
        "error",
        "reasoning",
        "usage",
        "max_output_tokens",
        "max_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
    ]
)
_STATUS = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}


def parse(stream: bytes) -> list[Event]:
    """The events of an SSE stream, framing checked; ``[DONE]`` must be its last."""
    assert stream.endswith(b"\n\n")
    blocks = stream.decode().split("\n\n")[:-1]
    assert blocks.pop() == "data: [DONE]"
    events = []
    for block in blocks:
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def check(events: Sequence[Event], *, first_number: int = 0) -> Event:
    """Return the final response; raises :exc:`AssertionError`.

    ``first_number`` is for a stream that is taken up again; only numbers and
    the end are checked then.
    """
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(first_number, first_number + len(events)))
    ends = [n for n, event in enumerate(events) if event["type"] in TERMINAL]
    assert ends == [len(events) - 1], "one terminal event, and it is the last"
    last = events[-1]
    final: Event = last["response"]
    check_response(final)
    assert final["status"] == _STATUS[last["type"]]
    if first_number == 0:
        _check_whole(events, final)
    return final


def check_response(response: Event) -> None:
    """All that clients want to be there is there."""
    assert not REQUIRED - set(response)
    for name, value in response.items():
        assert value is not None or name in NULLABLE, name
    assert response["object"] == "response"
    assert (response["completed_at"] is not None) == (response["status"] == "completed")
    assert (response["incomplete_details"] is not None) == (response["status"] == "incomplete")
    assert (response["error"] is not None) == (response["status"] == "failed")
    ids = [item["id"] for item in response["output"]]
    assert len(set(ids)) == len(ids)
    for item in response["output"]:
        _check_item(item)
    unfinished = [
        item["status"] != "completed" for item in response["output"] if item["type"] not in HOSTED
    ]
    if response["status"] == "completed":
        assert not any(unfinished)
    if response["status"] == "incomplete":
        assert not any(unfinished[:-1]), "an incomplete item is the last"


def _check_item(item: Event) -> None:
    if item["type"] in HOSTED:
        assert item["id"].startswith(f"{HOSTED[item['type']]}_")
        return
    assert all(value is not None for name, value in item.items() if name != "output"), item
    match item:
        case {"type": "message", "role": "assistant", "content": list(content)}:
            for part in content:
                _check_part(part)
            assert item.get("phase") in {None, "commentary", "final_answer"}
        case {"type": "function_call", "call_id": str(), "name": str(), "arguments": str()}:
            pass
        case {"type": "custom_tool_call", "call_id": str(), "name": str(), "input": str()}:
            pass
        case {"type": "reasoning", "summary": list(summary)}:
            assert all(part["type"] == "summary_text" for part in summary)
        case {"type": "openclaw:tool_call", "name": str(), "arguments": str(), "output": _}:
            pass
        case {"type": "compaction", "encrypted_content": str()}:
            pass
        case _:
            raise AssertionError(f"no item that may be answered: {item}")


def _check_part(part: Event) -> None:
    match part:
        case {"type": "output_text", "text": str(), "annotations": list(), "logprobs": list()}:
            for token in part["logprobs"]:
                assert set(token) == {"token", "logprob", "bytes", "top_logprobs"}
        case {"type": "refusal", "refusal": str()}:
            pass
        case _:
            raise AssertionError(f"no part that may be answered: {part}")


def _check_whole(events: Sequence[Event], final: Event) -> None:
    kinds = [event["type"] for event in events]
    assert kinds[0] == "response.created"
    rest = 1
    if kinds[1] == "response.queued":
        rest = 2
    if kinds[rest] == "response.in_progress":
        rest += 1
    else:
        assert kinds[-1] == "response.failed", "only what never began goes without"
    items: dict[int, _Item] = {}
    for event in events[rest:-1]:
        if event["type"] == "error":
            assert kinds[-1] == "response.failed"
            assert event is events[-2]
            assert event["error"]["message"] == event["message"]
            continue
        _follow(event, items)
    assert list(items) == list(range(len(items))), "items are added in their order"
    if kinds[-1] != "response.failed":
        assert all(item.is_done for item in items.values())
        assert final["output"] == [items[n].value for n in range(len(items))]
    else:
        assert [item["id"] for item in final["output"]] == [item.value["id"] for item in _of(items)]


def _of(items: dict[int, "_Item"]) -> Iterable["_Item"]:
    return [items[n] for n in range(len(items))]


class _Item:
    """What has been streamed of one item."""

    def __init__(self, value: Event) -> None:
        self.value = value
        self.is_done = False
        self.open: tuple[str, int] | None = None  # kind and index of the part under way
        self.parts: list[Event] = []
        self.text: list[str] = []
        self.annotations: list[Event] = []
        self.told = ""  # the text's "done" event


def _follow(event: Event, items: dict[int, _Item]) -> None:
    kind = event["type"].removeprefix("response.")
    index = event["output_index"]
    if kind == "output_item.added":
        assert index not in items
        value = event["item"]
        assert value["type"] in HOSTED or value["status"] == "in_progress"
        assert not value.get("content")
        assert not value.get("summary")
        assert not (value["type"] == "function_call" and value["arguments"])
        items[index] = _Item(value)
        return
    item = items[index]
    assert not item.is_done, "nothing follows the end of an item"
    if kind == "output_item.done":
        _end(event["item"], item)
        return
    assert event["item_id"] == item.value["id"]
    match kind:
        case "content_part.added" | "reasoning_summary_part.added":
            assert item.open is None
            place = event["summary_index" if "summary" in kind else "content_index"]
            assert place == len(item.parts)
            item.open = (event["part"]["type"], place)
            item.text, item.told = [], ""
            assert _text_of(event["part"]) == ""
        case "output_text.delta" | "refusal.delta" | "reasoning_summary_text.delta":
            _is_open(event, item, kind)
            item.text.append(event["delta"])
        case "output_text.done" | "refusal.done" | "reasoning_summary_text.done":
            _is_open(event, item, kind)
            assert not item.told
            item.told = kind
            whole = event["refusal"] if kind == "refusal.done" else event["text"]
            assert whole == "".join(item.text)
        case "content_part.done" | "reasoning_summary_part.done":
            assert item.open is not None
            assert item.told, "the text ends before its part"
            assert _text_of(event["part"]) == "".join(item.text)
            assert event["part"].get("annotations", []) == item.annotations
            item.parts.append(event["part"])
            item.open, item.annotations = None, []
        case "output_text.annotation.added":
            assert item.open == ("output_text", event["content_index"])
            assert event["annotation_index"] == len(item.annotations)
            item.annotations.append(event["annotation"])
        case "function_call_arguments.delta" | "custom_tool_call_input.delta":
            assert item.value["type"] == kind.split(".")[0].rpartition("_")[0]
            assert not item.told
            item.text.append(event["delta"])
        case "custom_tool_call_input.done":
            assert not item.told
            item.told = kind
            assert event["input"] == "".join(item.text)
        case "function_call_arguments.done":
            assert not item.told
            item.told = kind
            assert event["arguments"] == "".join(item.text)
            assert event["name"] == item.value["name"]
        case _ if event["type"].startswith(PROGRESS):
            assert item.value["type"] in HOSTED
        case _:
            raise AssertionError(f"an event that nobody knows: {kind}")


_KINDS = {"output_text": "output_text", "refusal": "refusal", "summary_text": "reasoning_summary"}


def _is_open(event: Event, item: _Item, kind: str) -> None:
    assert item.open is not None
    part, place = item.open
    assert kind.startswith(_KINDS[part])
    assert event.get("content_index", event.get("summary_index")) == place
    if kind.startswith("output_text"):
        assert isinstance(event["logprobs"], list)


def _text_of(part: Event) -> str:
    return str(part.get("text", part.get("refusal")))


def _end(value: Event, item: _Item) -> None:
    assert item.open is None
    assert (value["id"], value["type"]) == (item.value["id"], item.value["type"])
    assert value.get("status", "completed") in {"completed", "incomplete", "failed"}
    match value["type"]:
        case "message":
            assert value["content"] == item.parts
        case "reasoning":
            assert value["summary"] == item.parts
        case "function_call":
            assert item.told
            assert value["arguments"] == "".join(item.text)
        case "custom_tool_call":
            assert item.told
            assert value["input"] == "".join(item.text)
    item.value = value
    item.is_done = True
