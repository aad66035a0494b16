"""What a request asks of the stub, whatever dialect it is in."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Dialect = Literal["openai", "anthropic", "ollama", "responses"]

USUAL_WORDS = 20
_COUNT = re.compile(r"mock-(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Asked:
    dialect: Dialect
    model: str
    stream: bool
    prompt_tokens: int
    words: int
    is_cut_off: bool  # by the caller's limit
    fault: str = ""
    include_usage: bool = False
    tools: tuple[str, ...] = field(default_factory=tuple)
    limit: int | None = None  # words, the caller's

    @property
    def text(self) -> str:
        return "".join(words(self.words))


def words(number: int) -> list[str]:
    """``number`` words, each unlike all others, so that a lost one shows."""
    return [f"w{i:03d}" + ("" if i == number - 1 else " ") for i in range(number)]


def read_asked(request: Request, dialect: Dialect) -> Asked:
    body = json.loads(request.body)
    model = str(body.get("model", ""))
    fault = request.headers.get("x-stub-fault", "")
    if model.startswith("fault-"):
        fault = model.removeprefix("fault-")
    counted = _COUNT.fullmatch(model)
    wanted = int(counted[1]) if counted else USUAL_WORDS
    limit = _limit(body)
    return Asked(
        dialect=dialect,
        model=model,
        stream=body.get("stream", dialect == "ollama"),
        prompt_tokens=_prompt_tokens(body),
        words=wanted if limit is None else min(wanted, limit),
        is_cut_off=limit is not None and limit < wanted,
        fault=fault,
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        tools=tuple(_tool_names(body)),
        limit=limit,
    )


def _limit(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if body.get(name) is not None:
            return int(body[name])
    limit = (body.get("options") or {}).get("num_predict")
    return None if limit is None else int(limit)


def _tool_names(body: Mapping[str, Any]) -> list[str]:
    return [
        tool["name"] if "name" in tool else tool["function"]["name"]
        for tool in body.get("tools") or []
        if "name" in tool or "function" in tool
    ]


def _prompt_tokens(body: Mapping[str, Any]) -> int:
    given = body.get("input")
    spoken = body.get("messages") or (given if isinstance(given, list) else [])
    texts = [str(body.get("system") or body.get("instructions") or "")]
    texts.append(given if isinstance(given, str) else "")
    for message in spoken:
        content = message.get("content", message.get("output"))
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [str(part.get("text", "")) for part in content]
    return sum(len(text.split()) for text in texts)
