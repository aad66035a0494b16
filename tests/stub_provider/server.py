"""The stub's HTTP server: just enough of HTTP/1.1, and fast, because it is measured against."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import trio

from tests.stub_provider import acting, assistant, embedding, speaking
from tests.stub_provider.answers import good
from tests.stub_provider.asked import Asked, Dialect, Request, read_asked
from tests.stub_provider.conversation import read
from tests.stub_provider.faults import FAULTS, error_body
from tests.stub_provider.frames import Answer, encode

_READ_BYTES = 65536
_KEPT_REQUESTS = 1000
_MADE = "2026-01-01T00:00:00Z"

_DIALECTS: tuple[tuple[str, Dialect], ...] = (
    ("/chat/completions", "openai"),
    ("/messages", "anthropic"),
    ("/api/chat", "ollama"),
    ("/responses", "responses"),
)
MODELS = ("mock", "mock-300")


class StubProvider:
    """Serves connections; ``requests`` are the latest it has seen, for tests to look at."""

    def __init__(self) -> None:
        self.requests: deque[Request] = deque(maxlen=_KEPT_REQUESTS)
        self.connections = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer on one connection until either side leaves."""
        self.connections += 1
        buffer = bytearray()
        try:
            while request := await _read_request(stream, buffer):
                self.requests.append(request)
                if not await _send(stream, respond(request)):
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side left
        finally:
            await trio.aclose_forcefully(stream)


def respond(request: Request) -> Answer:
    try:
        return _respond(request)
    except (ValueError, KeyError, AttributeError, TypeError) as exc:
        body = {"error": {"message": f"the stub cannot read this: {exc!r}", "type": "stub"}}
        return Answer((encode(body),), status=400)


def _respond(request: Request) -> Answer:
    path = request.path.partition("?")[0]
    if request.method == "GET":
        return _listed(path, anthropic="anthropic-version" in request.headers)
    if path.startswith("/anthropic/") and not {"x-api-key", "authorization"} & set(request.headers):
        return Answer((encode(_no_key()),), status=401)
    for ending, count in _COUNTED.items():
        if path.endswith(ending):
            return Answer((encode(count(request.json())),))
    for ending, dialect in _DIALECTS:
        if path.endswith(ending):
            asked = read_asked(request, dialect)
            if asked.model == acting.MODEL:
                return acting.act(asked, request.json())
            if asked.model == assistant.MODEL:
                return _assist(asked, request.json())
            return _answer(asked)
    return Answer((b'{"error":{"message":"no such path"}}',), status=404)


def _answer(asked: Asked) -> Answer:
    if asked.model == "missing":
        asked = replace(asked, fault="404")
    if not asked.fault:
        return good(asked)
    if asked.fault not in FAULTS:
        message = f"no fault is called {asked.fault}; there are {', '.join(FAULTS)}"
        body = error_body(asked, message, "invalid_request_error")
        return Answer((encode(body),), status=400)
    return FAULTS[asked.fault](asked)


def _assist(asked: Asked, body: Mapping[str, Any]) -> Answer:
    conversation = read(asked.dialect, body)
    asked = replace(asked, prompt_tokens=conversation.tokens)
    if asked.fault:
        return _answer(asked)
    return speaking.answer(asked, assistant.speak(conversation, asked.limit), body)


def _no_key() -> dict[str, Any]:
    error = {"type": "authentication_error", "message": "x-api-key header is required"}
    return {"type": "error", "error": error}


def _counted_messages(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"input_tokens": read("anthropic", body).tokens}


def _counted_items(body: Mapping[str, Any]) -> dict[str, Any]:
    tokens = read("responses", body).tokens
    return {"object": "response.input_tokens", "input_tokens": tokens}


_COUNTED: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "/messages/count_tokens": _counted_messages,
    "/responses/input_tokens": _counted_items,
    "/embeddings": embedding.openai,
    "/api/embed": embedding.ollama,
}


def _listed(path: str, *, anthropic: bool) -> Answer:
    if path.endswith("/tags"):
        return Answer((encode({"models": [{"name": model} for model in MODELS]}),))
    if path.endswith("/models") and anthropic:
        listed = [
            {"type": "model", "id": model, "display_name": model, "created_at": _MADE}
            for model in MODELS
        ]
        page = {"data": listed, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
        return Answer((encode(page),))
    if path.endswith("/models"):
        entries = [{"id": model, "object": "model", "owned_by": "stub"} for model in MODELS]
        return Answer((encode({"object": "list", "data": entries}),))
    return Answer((b"{}",), status=404)


async def _read_request(stream: trio.abc.Stream, buffer: bytearray) -> Request | None:
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        if not await _receive(stream, buffer):
            return None
    first, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    while len(buffer) < length:
        if not await _receive(stream, buffer):
            return None
    body = bytes(buffer[:length])
    del buffer[:length]
    method, path, _ = first.split(" ")
    return Request(method, path, headers, body)


async def _receive(stream: trio.abc.Stream, buffer: bytearray) -> bool:
    data = await stream.receive_some(_READ_BYTES)
    buffer += data
    return bool(data)


async def _send(stream: trio.abc.Stream, answer: Answer) -> bool:
    """Send ``answer``; return whether the connection is still good."""
    head = _head(answer)
    if len(answer.pieces) == 1 and answer.ending == "end":
        await stream.send_all(
            head + b"Content-Length: %d\r\n\r\n" % len(answer.pieces[0]) + answer.pieces[0]
        )
        return True
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in answer.pieces if piece]
    end = b"0\r\n\r\n" if answer.ending == "end" else b""
    if answer.pause:
        await _send_slowly(
            stream, [head + (chunks[0] if chunks else b""), *chunks[1:], end], answer.pause
        )
    else:
        await stream.send_all(head + b"".join(chunks) + end)
    if answer.ending == "hang":
        await stream.receive_some(1)  # until the other side has enough
    return answer.ending == "end"


async def _send_slowly(stream: trio.abc.Stream, parts: Sequence[bytes], pause: float) -> None:
    for i, part in enumerate(parts):
        if i:
            await trio.sleep(pause)
        if part:
            await stream.send_all(part)


def _head(answer: Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} Stub",
        f"Content-Type: {answer.content_type}",
        "X-Request-Id: req_stub",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n").encode()
