"""Everything that has been seen to go wrong with a provider, by name."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.stub_provider import speaking
from tests.stub_provider.answers import good
from tests.stub_provider.asked import Asked
from tests.stub_provider.assistant import Call, Speech
from tests.stub_provider.frames import (
    Answer,
    anthropic_end,
    anthropic_event,
    anthropic_start,
    encode,
    ollama_end,
    ollama_line,
    openai_chunk,
    openai_delta,
    sse,
)

SECRET = "sk-stub-0123456789abcdef0123456789"
ADDRESS = "http://10.0.0.7:8000/v1"

Fault = Callable[[Asked], Answer]


def error_body(asked: Asked, message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    match asked.dialect:
        case "openai" | "responses":
            return {"error": {"message": message, "type": kind, "param": None, "code": code}}
        case "anthropic":
            return {"type": "error", "error": {"type": kind, "message": message}}
        case "ollama":
            return {"error": message}


def _refused(status: int, kind: str, code: str | None = None, **headers: str) -> Fault:
    def fault(asked: Asked) -> Answer:
        message = f"{kind}: key {SECRET} at {ADDRESS}/chat did not please us"
        body = encode(error_body(asked, message, kind, code))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Answer((body,), status=status, headers=named)

    return fault


def _context(asked: Asked) -> Answer:
    message = "This model's maximum context length is 4096 tokens. You sent 5000."
    if asked.dialect == "anthropic":
        message = "prompt is too long: 5000 tokens > 4096 maximum"
    body = error_body(asked, message, "invalid_request_error", "context_length_exceeded")
    return Answer((encode(body),), status=400)


def _slow(asked: Asked) -> Answer:
    return replace(good(asked), pause=0.05)


def _cut(asked: Asked) -> Answer:
    answer = good(asked)
    if not asked.stream:
        return replace(
            answer, pieces=(answer.pieces[0][: len(answer.pieces[0]) // 2],), ending="cut"
        )
    return replace(answer, pieces=answer.pieces[: len(answer.pieces) // 2], ending="cut")


def _hang(asked: Asked) -> Answer:
    answer = good(asked)
    return replace(answer, pieces=answer.pieces[:5] if asked.stream else (), ending="hang")


def _no_end(asked: Asked) -> Answer:
    """A body that ends as HTTP wants it, before the answer has."""
    answer = good(replace(asked, include_usage=False))
    if not asked.stream:
        return _malformed(asked)
    # Of a chat completion it has ended with its reason, whatever follows.
    missing = 2 if asked.dialect == "openai" else 1
    return replace(answer, pieces=answer.pieces[:-missing])


def _no_words(asked: Asked) -> Answer:
    """A stream that begins as it should, and ends before it has said anything."""
    answer = good(asked)
    if not asked.stream:
        return _malformed(asked)
    before = {"openai": 1, "anthropic": 2, "responses": 2, "ollama": 0}[asked.dialect]
    return replace(answer, pieces=answer.pieces[:before])


def _no_done(asked: Asked) -> Answer:
    """A chat completion that is whole, and leaves it at that."""
    answer = good(asked)
    if asked.dialect != "openai" or not asked.stream:
        return answer
    return replace(answer, pieces=answer.pieces[:-1])


def _malformed(asked: Asked) -> Answer:
    answer = good(asked)
    if not asked.stream:
        return replace(answer, pieces=(answer.pieces[0][:-20],))
    broken = b'data: {"choices":[{"delta":{"content":"half","usage":{\n\n'
    if asked.dialect == "ollama":
        broken = b'{"message":{"content":"half\n'
    if asked.dialect == "anthropic":
        broken = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{\n\n'
    if asked.dialect == "responses":
        broken = b'event: response.output_text.delta\ndata: {"delta":"half\n\n'
    return replace(answer, pieces=(*answer.pieces[:3], broken, *answer.pieces[3:]))


def _html(asked: Asked) -> Answer:
    page = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"
    return Answer((page,), "text/html; charset=utf-8")


def _html_502(asked: Asked) -> Answer:
    return replace(_html(asked), status=502)


def _redirect(asked: Asked) -> Answer:
    return Answer((b"",), status=307, headers={"Location": "http://127.0.0.1:1/stolen"})


def _error_in_200(asked: Asked) -> Answer:
    body = error_body(asked, "The server is overloaded", "overloaded_error")
    if not asked.stream:
        return Answer((encode(body),))
    return replace(good(asked), pieces=(_error_event(asked, body),))


def _error_mid_stream(asked: Asked) -> Answer:
    answer = good(asked)
    if not asked.stream:
        return _error_in_200(asked)
    body = error_body(asked, "The server is overloaded", "overloaded_error")
    return replace(answer, pieces=(*answer.pieces[:5], _error_event(asked, body)))


def _error_event(asked: Asked, body: Mapping[str, Any]) -> bytes:
    match asked.dialect:
        case "openai":
            return sse(body) + b"data: [DONE]\n\n"
        case "anthropic":
            return sse(body, event="error")
        case "ollama":
            return encode(body) + b"\n"
        case "responses":
            return sse({"type": "error", "sequence_number": 5, **body}, event="error")


def _no_usage(asked: Asked) -> Answer:
    return _with_usage(asked, None)


def _lying_usage(asked: Asked) -> Answer:
    return _with_usage(asked, {"prompt_tokens": "many", "completion_tokens": -3})


def _zero_usage(asked: Asked) -> Answer:
    return _with_usage(asked, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})


def _huge_usage(asked: Asked) -> Answer:
    return _with_usage(asked, {"prompt_tokens": 10**12, "completion_tokens": 20})


def _with_usage(asked: Asked, usage: object) -> Answer:
    answer = good(replace(asked, include_usage=False))
    if not asked.stream:
        body = json.loads(answer.pieces[0])
        body["usage"] = usage
        return replace(answer, pieces=(encode(body),))
    if asked.dialect == "responses":
        return _last_event(answer, usage)
    if asked.dialect == "openai" and usage is not None:
        chunk = openai_chunk(asked, {"choices": [], "usage": usage})
        return replace(answer, pieces=(*answer.pieces[:-1], chunk, answer.pieces[-1]))
    if asked.dialect == "ollama":
        end = {"done": True, "done_reason": "stop", "eval_count": "many"}
        return replace(answer, pieces=(*answer.pieces[:-1], ollama_line(asked, "", **end)))
    return answer


def _last_event(answer: Answer, usage: object) -> Answer:
    """The terminal event of a responses stream, with another usage."""
    name, _, data = answer.pieces[-1].decode().partition("\n")
    event = json.loads(data.removeprefix("data: "))
    event["response"]["usage"] = usage
    last = sse(event, event=name.removeprefix("event: "))
    return replace(answer, pieces=(*answer.pieces[:-1], last))


def _split_frames(asked: Asked) -> Answer:
    """Every event in three pieces, each its own packet."""
    answer = good(asked)
    cut = [part for piece in answer.pieces for part in (piece[:7], piece[7:-1], piece[-1:]) if part]
    return replace(answer, pieces=tuple(cut), pause=0.0005)


def _crlf(asked: Asked) -> Answer:
    answer = good(asked)
    return replace(answer, pieces=tuple(p.replace(b"\n", b"\r\n") for p in answer.pieces))


def _comments(asked: Asked) -> Answer:
    answer = good(asked)
    if not asked.stream or asked.dialect == "ollama":
        return answer
    return replace(answer, pieces=tuple(b": still here\n\n" + piece for piece in answer.pieces))


def _huge(asked: Asked) -> Answer:
    """100 MB of text."""
    answer = good(replace(asked, stream=False))
    padding = b" " * (1 << 20)
    return replace(answer, pieces=(*(padding for _ in range(100)), *answer.pieces))


def _whole_instead(asked: Asked) -> Answer:
    return good(replace(asked, stream=False))


def _stream_instead(asked: Asked) -> Answer:
    return good(replace(asked, stream=True))


def _odd_tools(asked: Asked) -> Answer:
    """A call without index and id, its arguments an object; content and choices null."""
    if asked.dialect == "responses":
        speech = Speech(calls=(Call("", "get_weather", '{"city": "Oslo"}'),), finish="tool_calls")
        return speaking.answer(asked, speech, {})
    function = {"name": "get_weather", "arguments": {"city": "Oslo"}}
    odd = {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}
    if not asked.stream:
        body = json.loads(good(asked).pieces[0])
        body["choices"] = [{"index": 0, "message": odd, "finish_reason": "tool_calls"}]
        return Answer((encode(body),))
    pieces = (
        openai_chunk(asked, {"choices": [], "prompt_filter_results": []}),
        openai_chunk(asked, {"choices": None}),
        openai_delta(asked, odd),
        openai_delta(asked, {}, "tool_calls"),
        b"data: [DONE]\n\n",
    )
    return Answer(pieces, "text/event-stream")


def _tool_call(asked: Asked) -> Answer:
    """A call of the first tool offered, in pieces, after a thought and a word."""
    name = asked.tools[0] if asked.tools else "get_weather"
    match asked.dialect:
        case "openai":
            return _openai_tool_call(asked, name)
        case "anthropic":
            return _anthropic_tool_call(asked, name)
        case "responses":
            call = Call("call_1", name, '{"city":"Oslo"}')
            speech = Speech("Looking.", (call,), thought="Hm.", finish="tool_calls")
            return speaking.answer(asked, speech, {})
        case "ollama":
            said = {"function": {"name": name, "arguments": {"city": "Oslo"}}}
            message = {"role": "assistant", "content": "", "tool_calls": [said]}
            pieces = (
                ollama_line(asked, "", message={"role": "assistant", "thinking": "Hm."}),
                ollama_line(asked, "Looking."),
                ollama_line(asked, "", message=message),
                ollama_line(asked, "", **ollama_end(asked)),
            )
            return Answer(pieces, "application/x-ndjson")


def _openai_tool_call(asked: Asked, name: str) -> Answer:
    start = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }
    parts = ['{"city"', ':"Oslo"}']
    pieces = (
        openai_delta(asked, {"role": "assistant", "content": ""}),
        openai_delta(asked, {"reasoning_content": "Hm."}),
        openai_delta(asked, {"content": "Looking."}),
        openai_delta(asked, {"tool_calls": [start]}),
        *(
            openai_delta(asked, {"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
            for part in parts
        ),
        openai_delta(asked, {}, "tool_calls"),
        b"data: [DONE]\n\n",
    )
    return Answer(pieces, "text/event-stream")


def _anthropic_tool_call(asked: Asked, name: str) -> Answer:
    def block(index: int, start: Mapping[str, Any], *deltas: Mapping[str, Any]) -> list[bytes]:
        return [
            anthropic_event("content_block_start", index=index, content_block=start),
            *(anthropic_event("content_block_delta", index=index, delta=each) for each in deltas),
            anthropic_event("content_block_stop", index=index),
        ]

    thought = {"type": "thinking", "thinking": "", "signature": ""}
    pieces = (
        anthropic_start(asked),
        *block(
            0,
            thought,
            {"type": "thinking_delta", "thinking": "Hm."},
            {"type": "signature_delta", "signature": "c2ln"},
        ),
        *block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Looking."}),
        *block(
            2,
            {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}},
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"city"'},
            {"type": "input_json_delta", "partial_json": ':"Oslo"}'},
        ),
        *block(3, {"type": "tool_use", "id": "toolu_2", "name": "no_arguments", "input": {}}),
        anthropic_event("something_new", index=9),
        *anthropic_end(asked, "tool_use"),
    )
    return Answer(pieces, "text/event-stream")


FAULTS: Mapping[str, Fault] = {
    "400": _refused(400, "invalid_request_error", "unsupported_value"),
    "401": _refused(401, "authentication_error", "invalid_api_key"),
    "404": _refused(404, "not_found_error", "model_not_found"),
    "413": _refused(413, "request_too_large"),
    "429": _refused(429, "rate_limit_error", "rate_limit_exceeded", retry_after="7"),
    "429-quota": _refused(429, "insufficient_quota", "insufficient_quota"),
    "500": _refused(500, "server_error"),
    "503": _refused(503, "server_error", retry_after="3"),
    "529": _refused(529, "overloaded_error"),
    "comments": _comments,
    "context": _context,
    "crlf": _crlf,
    "cut": _cut,
    "error-in-200": _error_in_200,
    "error-mid-stream": _error_mid_stream,
    "hang": _hang,
    "html": _html,
    "html-502": _html_502,
    "huge": _huge,
    "huge-usage": _huge_usage,
    "lying-usage": _lying_usage,
    "malformed": _malformed,
    "no-done": _no_done,
    "no-end": _no_end,
    "no-usage": _no_usage,
    "no-words": _no_words,
    "odd-tools": _odd_tools,
    "redirect": _redirect,
    "slow": _slow,
    "split-frames": _split_frames,
    "stream-instead": _stream_instead,
    "tool-call": _tool_call,
    "whole-instead": _whole_instead,
    "zero-usage": _zero_usage,
}
