"""Model calls, made from the request a client would send."""

import json
from typing import Any

from appliance.model.calls import (
    Delta,
    Finished,
    ModelCall,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)


def call(
    *,
    model: str = "provider-model",
    stream: bool = True,
    output_limit: int | None = None,
    **members: Any,
) -> ModelCall:
    members.setdefault("messages", [{"role": "user", "content": "hello"}])
    body = {name: json.dumps(value).encode() for name, value in members.items()}
    return ModelCall(model=model, body=body, stream=stream, output_limit=output_limit)


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def thoughts_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))


def calls_of(deltas: list[Delta]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each tool call."""
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            known = calls.setdefault(delta.index, ["", "", ""])
            known[0] += delta.id
            known[1] += delta.name
            known[2] += delta.arguments
    return [(known[0], known[1], known[2]) for _, known in sorted(calls.items())]


def end_of(deltas: list[Delta]) -> Finished:
    last = deltas[-1]
    assert isinstance(last, Finished)
    return last
