"""The pieces that each dialect's answers are made of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tests.stub_provider.asked import Asked, words

CREATED = 1_767_225_600


@dataclass(frozen=True, slots=True)
class Answer:
    """``pieces`` of the body go out as one HTTP chunk each; ``length`` answers have one."""

    pieces: tuple[bytes, ...]
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0  # seconds before each piece but the first
    ending: str = "end"  # or "cut": the connection closes; or "hang": silence


def encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def sse(value: object, *, event: str = "") -> bytes:
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + encode(value) + b"\n\n"


# --- OpenAI -------------------------------------------------------------------------------------

_HEAD = {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": CREATED}


def openai_chunk(asked: Asked, fields: Mapping[str, Any]) -> bytes:
    return sse({**_HEAD, "model": asked.model, **fields})


def openai_delta(asked: Asked, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return openai_chunk(asked, {"choices": [choice]})


def openai_usage(asked: Asked) -> dict[str, Any]:
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": asked.words,
        "total_tokens": asked.prompt_tokens + asked.words,
    }


@lru_cache(maxsize=64)
def _openai_words(model: str, number: int) -> tuple[bytes, ...]:
    """The part of a stream that is the same for every caller."""
    asked = Asked("openai", model, stream=True, prompt_tokens=0, words=number, is_cut_off=False)
    start = openai_delta(asked, {"role": "assistant", "content": ""})
    return (start, *(openai_delta(asked, {"content": word}) for word in words(number)))


def openai_stream(asked: Asked) -> tuple[bytes, ...]:
    end = [openai_delta(asked, {}, "length" if asked.is_cut_off else "stop")]
    if asked.include_usage:
        end.append(openai_chunk(asked, {"choices": [], "usage": openai_usage(asked)}))
    return (*_openai_words(asked.model, asked.words), *end, b"data: [DONE]\n\n")


def openai_whole(asked: Asked) -> dict[str, Any]:
    message = {"role": "assistant", "content": asked.text}
    finish = "length" if asked.is_cut_off else "stop"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {
        **_HEAD,
        "object": "chat.completion",
        "model": asked.model,
        "choices": [choice],
        "usage": openai_usage(asked),
    }


# --- Anthropic ----------------------------------------------------------------------------------


def anthropic_event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, event=kind)


def anthropic_start(asked: Asked) -> bytes:
    usage = {"input_tokens": asked.prompt_tokens, "output_tokens": 1}
    unsaid: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
    message = {**_anthropic_message(asked), **unsaid, "usage": usage}
    return anthropic_event("message_start", message=message)


def anthropic_end(asked: Asked, reason: str) -> tuple[bytes, ...]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    usage = {"output_tokens": asked.words}
    return (
        anthropic_event("message_delta", delta=delta, usage=usage),
        anthropic_event("message_stop"),
    )


def anthropic_stream(asked: Asked) -> tuple[bytes, ...]:
    block = {"type": "text", "text": ""}
    return (
        anthropic_start(asked),
        anthropic_event("content_block_start", index=0, content_block=block),
        anthropic_event("ping"),
        *(
            anthropic_event(
                "content_block_delta", index=0, delta={"type": "text_delta", "text": word}
            )
            for word in words(asked.words)
        ),
        anthropic_event("content_block_stop", index=0),
        *anthropic_end(asked, "max_tokens" if asked.is_cut_off else "end_turn"),
    )


def anthropic_whole(asked: Asked) -> dict[str, Any]:
    return {
        **_anthropic_message(asked),
        "content": [{"type": "text", "text": asked.text}],
        "stop_reason": "max_tokens" if asked.is_cut_off else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": asked.prompt_tokens, "output_tokens": asked.words},
    }


def _anthropic_message(asked: Asked) -> dict[str, Any]:
    return {"id": "msg_stub", "type": "message", "role": "assistant", "model": asked.model}


# --- Ollama -------------------------------------------------------------------------------------


def ollama_line(asked: Asked, text: str, **fields: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    line = {"model": asked.model, "created_at": "2026-01-01T00:00:00Z", "message": message}
    return encode({**line, "done": False, **fields}) + b"\n"


def ollama_end(asked: Asked) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": "length" if asked.is_cut_off else "stop",
        "prompt_eval_count": asked.prompt_tokens,
        "eval_count": asked.words,
    }


def ollama_stream(asked: Asked) -> tuple[bytes, ...]:
    said = (ollama_line(asked, word) for word in words(asked.words))
    return (*said, ollama_line(asked, "", **ollama_end(asked)))


def ollama_whole(asked: Asked) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(ollama_line(asked, asked.text, **ollama_end(asked)))
    return whole
