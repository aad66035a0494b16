"""A model that does as it is told: ``call NAME {JSON}`` lines become tool calls.

The latest message of the user is its script: paragraphs are steps, and each
line of a step that starts with ``call`` is a call. After the last step it
tells the results it was given, one a line. ``<<x 1000>>`` in a call is a
thousand x: what no client could send may come from a model.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.stub_provider import speaking
from tests.stub_provider.asked import Asked
from tests.stub_provider.assistant import Call, Speech
from tests.stub_provider.frames import (
    Answer,
    anthropic_end,
    anthropic_event,
    anthropic_start,
    openai_chunk,
    openai_delta,
    openai_usage,
)

MODEL = "acts"
_CALL = re.compile(r"^call ([A-Za-z0-9_-]+) (\{.*\})$", re.MULTILINE)
_REPEATED = re.compile(r"<<(.) (\d{1,9})>>")

_PIECE = 1_000_000  # characters of arguments in one event

Wanted = tuple[str, str]


def act(asked: Asked, body: Mapping[str, Any]) -> Answer:
    """One step: calls of tools, or at the end what they brought."""
    script, results = _script(body.get("messages") or _messages(body.get("input") or []))
    steps = [_calls(step) for step in script.split("\n\n")]
    steps = [step for step in steps if step]
    done = 0
    left = len(results)
    while done < len(steps) and left >= len(steps[done]):
        left -= len(steps[done])
        done += 1
    offered = body.get("tool_choice") != "none"
    calls: list[Wanted] = steps[done] if done < len(steps) and offered else []
    said = "" if calls else "results:\n" + "\n".join(results)
    if asked.dialect == "anthropic":
        return _anthropic(asked, calls, said)
    if asked.dialect == "responses":
        named = tuple(Call(f"call_{at}", *each) for at, each in enumerate(calls))
        finish = "tool_calls" if calls else "stop"
        return speaking.answer(asked, Speech(said, named, finish=finish), body)
    return _openai(asked, calls, said)


def _messages(items: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items of a responses request as a chat would have them."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    messages: list[dict[str, Any]] = []
    for item in items:
        kind = item.get("type", "message")
        if kind == "message":
            content = item["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            texts = [{"type": "text", "text": part.get("text", "")} for part in parts]
            messages.append({"role": item["role"], "content": texts})
        elif kind == "function_call_output":
            messages.append({"role": "tool", "content": _text(item["output"])})
    return messages


def _calls(step: str) -> list[Wanted]:
    return [
        (name, _REPEATED.sub(lambda found: found[1] * int(found[2]), arguments))
        for name, arguments in _CALL.findall(step)
    ]


def _script(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The latest message that holds calls, and the results that follow it."""
    script, results = "", []
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        texts = [str(part.get("text") or "") for part in parts if part.get("type") == "text"]
        results += [
            _text(part.get("content")) for part in parts if part.get("type") == "tool_result"
        ]
        if message.get("role") == "tool":
            results += texts
        elif message.get("role") == "user" and any(map(_CALL.search, texts)):
            script, results = "\n".join(texts), []
    return script, results


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content or "")


def _pieces(arguments: str) -> list[str]:
    """As a model sends them: a little at a time."""
    return [arguments[at : at + _PIECE] for at in range(0, len(arguments), _PIECE)]


def _openai(asked: Asked, calls: Sequence[Wanted], said: str) -> Answer:
    pieces = [openai_delta(asked, {"role": "assistant", "content": ""})]
    for index, (name, arguments) in enumerate(calls):
        first, *more = _pieces(arguments)
        function = {"name": name, "arguments": first}
        call = {"index": index, "id": f"call_{index}", "type": "function", "function": function}
        pieces.append(openai_delta(asked, {"tool_calls": [call]}))
        for piece in more:
            call = {"index": index, "function": {"arguments": piece}}
            pieces.append(openai_delta(asked, {"tool_calls": [call]}))
    if said:
        pieces.append(openai_delta(asked, {"content": said}))
    pieces.append(openai_delta(asked, {}, "tool_calls" if calls else "stop"))
    pieces.append(openai_chunk(asked, {"choices": [], "usage": openai_usage(asked)}))
    return Answer((*pieces, b"data: [DONE]\n\n"), "text/event-stream")


def _anthropic(asked: Asked, calls: Sequence[Wanted], said: str) -> Answer:
    pieces = [anthropic_start(asked)]
    blocks: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (
            {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}},
            {"type": "input_json_delta", "partial_json": json.dumps(json.loads(arguments))},
        )
        for index, (name, arguments) in enumerate(calls)
    ]
    if said:
        blocks.append(({"type": "text", "text": ""}, {"type": "text_delta", "text": said}))
    for index, (block, delta) in enumerate(blocks):
        pieces.append(anthropic_event("content_block_start", index=index, content_block=block))
        pieces.append(anthropic_event("content_block_delta", index=index, delta=delta))
        pieces.append(anthropic_event("content_block_stop", index=index))
    pieces += anthropic_end(asked, "tool_use" if calls else "end_turn")
    return Answer(tuple(pieces), "text/event-stream")
