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
