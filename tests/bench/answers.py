"""What the fixed upstream says and what callers ask it: constants of every measurement."""

import json

TOKENS = 100
MODEL = "mock"
_CREATED = 1_767_225_600


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _chunk({"choices": [choice]})


def _chunk(fields: dict[str, object]) -> bytes:
    head = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": MODEL,
    }
    return b"data: " + json.dumps(head | fields, separators=(",", ":")).encode() + b"\n\n"


USAGE = {"prompt_tokens": 20, "completion_tokens": TOKENS, "total_tokens": 20 + TOKENS}

# Each event differs from every other, so that a lost, doubled or misplaced one shows.
EVENTS: tuple[bytes, ...] = (
    _event({"role": "assistant", "content": ""}),
    *(_event({"content": f"w{number:03d} "}) for number in range(TOKENS)),
    _event({}, "stop"),
    _chunk({"choices": [], "usage": USAGE}),
    b"data: [DONE]\n\n",
)
STREAM = b"".join(EVENTS)

ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": _CREATED,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The quick brown fox."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    },
    separators=(",", ":"),
).encode()


def _named_event(kind: str, **fields: object) -> bytes:
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


_MESSAGE: dict[str, object] = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 20, "output_tokens": 1},
}
_END = {"stop_reason": "end_turn", "stop_sequence": None}

# The same words as Anthropic's API says them.
MESSAGES_EVENTS: tuple[bytes, ...] = (
    _named_event("message_start", message=_MESSAGE),
    _named_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    *(
        _named_event(
            "content_block_delta",
            index=0,
            delta={"type": "text_delta", "text": f"w{number:03d} "},
        )
        for number in range(TOKENS)
    ),
    _named_event("content_block_stop", index=0),
    _named_event("message_delta", delta=_END, usage={"output_tokens": TOKENS}),
    _named_event("message_stop"),
)
MESSAGES_STREAM = b"".join(MESSAGES_EVENTS)
MESSAGES_ANSWER = json.dumps(
    {
        **_MESSAGE,
        **_END,
        "content": [{"type": "text", "text": "The quick brown fox."}],
        "usage": {"input_tokens": 20, "output_tokens": TOKENS},
    },
    separators=(",", ":"),
).encode()


def messages_body(model: str, *, stream: bool, marker: str = "") -> bytes:
    """What :func:`request_body` asks, in the words of Anthropic's API."""
    asked = {
        "model": model,
        "max_tokens": 1000,
        "system": "You are a terse assistant.",
        "messages": [{"role": "user", "content": f"Write a sentence about a fox.{marker}"}],
        "stream": stream,
    }
    return json.dumps(asked, separators=(",", ":")).encode()


def responses_body(model: str, *, stream: bool, marker: str = "") -> bytes:
    """The same as a request for a response that nobody keeps."""
    asked = {
        "model": model,
        "instructions": "You are a terse assistant.",
        "input": f"Write a sentence about a fox.{marker}",
        "store": False,
        "stream": stream,
    }
    return json.dumps(asked, separators=(",", ":")).encode()


def request_body(model: str, *, stream: bool, marker: str = "") -> bytes:
    """A short chat request; ``marker`` lets an upstream tell whose it is."""
    asked: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a terse assistant."},
            {"role": "user", "content": f"Write a sentence about a fox.{marker}"},
        ],
    }
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked, separators=(",", ":")).encode()


def request_bytes(path: str, body: bytes, *, token: str = "", close: bool = False) -> bytes:
    """The whole HTTP/1.1 request, ready for a socket."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    if token:
        lines.append(f"authorization: Bearer {token}")
    if close:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body
