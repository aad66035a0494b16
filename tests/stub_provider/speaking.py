"""A :class:`Speech` in each dialect, whole and streamed."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from tests.stub_provider import frames
from tests.stub_provider.asked import Asked, Dialect
from tests.stub_provider.assistant import Call, Speech, seal
from tests.stub_provider.frames import Answer, anthropic_event, encode, ollama_line, openai_delta

Object = dict[str, Any]


def answer(asked: Asked, speech: Speech, body: Mapping[str, Any]) -> Answer:
    stream, whole = _SPEAKERS[asked.dialect]
    if not asked.stream:
        return Answer((encode(whole(asked, speech, body)),))
    kind = "application/x-ndjson" if asked.dialect == "ollama" else "text/event-stream"
    return Answer(tuple(stream(asked, speech, body)), kind)


# --- OpenAI chat completions --------------------------------------------------------------------


def _chat_usage(asked: Asked, speech: Speech) -> Object:
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": speech.tokens,
        "total_tokens": asked.prompt_tokens + speech.tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": len(speech.thought.split())},
    }


def _logprobs(body: Mapping[str, Any], words: list[str]) -> Object | None:
    if not body.get("logprobs"):
        return None
    top = int(body.get("top_logprobs") or 0)
    each = [
        {
            "token": word,
            "logprob": -0.5,
            "bytes": list(word.encode()),
            "top_logprobs": [{"token": word, "logprob": -0.5, "bytes": None}] * min(top, 1),
        }
        for word in words
    ]
    return {"content": each, "refusal": None}


def _chat_call(call: Call, text: str) -> Object:
    if call.is_custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": text}}
    function = {"name": call.name, "arguments": text}
    return {"id": call.id, "type": "function", "function": function}


def _chat_whole(asked: Asked, speech: Speech, body: Mapping[str, Any]) -> Object:
    message: Object = {"role": "assistant", "content": speech.text or None, "refusal": None}
    if speech.thought:
        message["reasoning_content"] = speech.thought
    if speech.calls:
        message["tool_calls"] = [_chat_call(call, call.arguments) for call in speech.calls]
    whole = frames.openai_whole(asked)
    choice = {
        "message": message,
        "logprobs": _logprobs(body, speech.words),
        "finish_reason": speech.finish,
    }
    whole["choices"] = [{"index": i, **choice} for i in range(int(body.get("n") or 1))]
    whole["usage"] = _chat_usage(asked, speech)
    return whole


def _chat_stream(asked: Asked, speech: Speech, body: Mapping[str, Any]) -> Iterator[bytes]:
    for index in range(int(body.get("n") or 1)):
        delta = partial(_chat_delta, asked, index)
        yield delta({"role": "assistant", "content": ""})
        if speech.thought:
            yield delta({"reasoning_content": speech.thought})
        for word in speech.words:
            yield delta({"content": word}, logprobs=_logprobs(body, [word]))
        for place, call in enumerate(speech.calls):
            yield delta({"tool_calls": [{"index": place, **_chat_call(call, "")}]})
            for part in _halves(call.arguments):
                said: Object = {"function": {"arguments": part}}
                said = {"custom": {"input": part}} if call.is_custom else said
                yield delta({"tool_calls": [{"index": place, **said}]})
        yield delta({}, finish=speech.finish)
    if asked.include_usage:
        usage = _chat_usage(asked, speech)
        yield frames.openai_chunk(asked, {"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _chat_delta(
    asked: Asked,
    index: int,
    delta: Mapping[str, Any],
    *,
    logprobs: Object | None = None,
    finish: str | None = None,
) -> bytes:
    if not index and logprobs is None:
        return openai_delta(asked, delta, finish)
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return frames.openai_chunk(asked, {"choices": [choice]})


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


# --- Anthropic messages -------------------------------------------------------------------------

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _stop(speech: Speech) -> Object:
    reason = "stop_sequence" if speech.stopped_by else _STOPS[speech.finish]
    return {"stop_reason": reason, "stop_sequence": speech.stopped_by}


def _blocks(speech: Speech) -> Iterator[tuple[Object, Object, list[Object]]]:
    """Each block whole, as it starts in a stream, and the deltas that fill it."""
    if speech.thought:
        sealed = {"type": "thinking", "thinking": speech.thought, "signature": seal(speech.thought)}
        deltas: list[Object] = [
            {"type": "thinking_delta", "thinking": speech.thought},
            {"type": "signature_delta", "signature": sealed["signature"]},
        ]
        yield sealed, {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if speech.text:
        pieces: list[Object] = [{"type": "text_delta", "text": word} for word in speech.words]
        yield {"type": "text", "text": speech.text}, {"type": "text", "text": ""}, pieces
    for call in speech.calls:
        block = {"type": "tool_use", "id": call.id, "name": call.name}
        parts: list[Object] = [
            {"type": "input_json_delta", "partial_json": part}
            for part in ("", *_halves(call.arguments))
        ]
        yield {**block, "input": json.loads(call.arguments)}, {**block, "input": {}}, parts


def _messages_usage(asked: Asked) -> Object:
    return {
        "input_tokens": asked.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def _messages_whole(asked: Asked, speech: Speech, _: Mapping[str, Any]) -> Object:
    return {
        **frames.anthropic_whole(asked),
        "content": [block for block, _, _ in _blocks(speech)],
        **_stop(speech),
        "usage": {**_messages_usage(asked), "output_tokens": speech.tokens},
    }


def _messages_stream(asked: Asked, speech: Speech, _: Mapping[str, Any]) -> Iterator[bytes]:
    yield frames.anthropic_start(asked)
    yield anthropic_event("ping")
    for index, (_, start, deltas) in enumerate(_blocks(speech)):
        yield anthropic_event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            yield anthropic_event("content_block_delta", index=index, delta=delta)
        yield anthropic_event("content_block_stop", index=index)
    usage = {"output_tokens": speech.tokens}
    yield anthropic_event("message_delta", delta=_stop(speech), usage=usage)
    yield anthropic_event("message_stop")


# --- Ollama -------------------------------------------------------------------------------------


def _ollama_calls(speech: Speech) -> list[Object]:
    return [
        {"function": {"name": call.name, "arguments": json.loads(call.arguments)}}
        for call in speech.calls
    ]


def _ollama_end(asked: Asked, speech: Speech) -> Object:
    reason = "length" if speech.finish == "length" else "stop"
    return {**frames.ollama_end(asked), "done_reason": reason, "eval_count": speech.tokens}


def _ollama_whole(asked: Asked, speech: Speech, _: Mapping[str, Any]) -> Object:
    message: Object = {"role": "assistant", "content": speech.text}
    if speech.thought:
        message["thinking"] = speech.thought
    if speech.calls:
        message["tool_calls"] = _ollama_calls(speech)
    end = _ollama_end(asked, speech)
    whole: Object = json.loads(ollama_line(asked, "", message=message, **end))
    return whole


def _ollama_stream(asked: Asked, speech: Speech, _: Mapping[str, Any]) -> Iterator[bytes]:
    if speech.thought:
        thought = {"role": "assistant", "content": "", "thinking": speech.thought}
        yield ollama_line(asked, "", message=thought)
    for word in speech.words:
        yield ollama_line(asked, word)
    if speech.calls:
        message = {"role": "assistant", "content": "", "tool_calls": _ollama_calls(speech)}
        yield ollama_line(asked, "", message=message)
    yield ollama_line(asked, "", **_ollama_end(asked, speech))


# --- OpenAI responses ---------------------------------------------------------------------------


def _items(speech: Speech, body: Mapping[str, Any]) -> list[Object]:
    items: list[Object] = []
    if speech.thought:
        summary = [{"type": "summary_text", "text": speech.thought}]
        item: Object = {"type": "reasoning", "id": "rs_stub", "summary": summary}
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            item["encrypted_content"] = seal(speech.thought)
        items.append(item)
    state = "incomplete" if speech.finish == "length" else "completed"
    if speech.text:
        asked = "message.output_text.logprobs" in (body.get("include") or ())
        probable = (_logprobs({**body, "logprobs": asked}, speech.words) or {}).get("content", [])
        part = {"type": "output_text", "text": speech.text, "annotations": [], "logprobs": probable}
        message = {"type": "message", "id": "msg_stub", "role": "assistant", "content": [part]}
        items.append({**message, "status": state})
    return [*items, *map(_call_item, speech.calls)]


def _call_item(call: Call) -> Object:
    item = {"id": f"fc_{call.id}", "call_id": call.id, "name": call.name, "status": "completed"}
    if call.is_custom:
        return {**item, "type": "custom_tool_call", "input": call.arguments}
    return {**item, "type": "function_call", "arguments": call.arguments}


def _response(asked: Asked, speech: Speech, body: Mapping[str, Any]) -> Object:
    is_cut = speech.finish == "length"
    usage = {
        "input_tokens": asked.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": speech.tokens,
        "output_tokens_details": {"reasoning_tokens": len(speech.thought.split())},
        "total_tokens": asked.prompt_tokens + speech.tokens,
    }
    return {
        "id": "resp_stub",
        "object": "response",
        "created_at": frames.CREATED,
        "completed_at": frames.CREATED + 1,
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "model": asked.model,
        "instructions": body.get("instructions"),
        "output": _items(speech, body),
        "error": None,
        "tools": body.get("tools") or [],
        "tool_choice": body.get("tool_choice", "auto"),
        "parallel_tool_calls": True,
        "text": body.get("text") or {"format": {"type": "text"}},
        "temperature": body.get("temperature", 1.0),
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "max_output_tokens": body.get("max_output_tokens"),
        "previous_response_id": None,
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "store": False,
        "metadata": {},
        "usage": usage,
    }


def _response_stream(asked: Asked, speech: Speech, body: Mapping[str, Any]) -> Iterator[bytes]:
    for number, (kind, fields) in enumerate(_response_events(asked, speech, body)):
        event = {"type": kind, "sequence_number": number, **fields}
        yield frames.sse(event, event=kind)


def _response_events(
    asked: Asked, speech: Speech, body: Mapping[str, Any]
) -> Iterator[tuple[str, Object]]:
    done = _response(asked, speech, body)
    begun = {**done, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    begun["incomplete_details"] = None
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(done["output"]):
        start = {**item, **_EMPTY[item["type"]], "status": "in_progress"}
        start.pop("encrypted_content", None)
        yield "response.output_item.added", {"output_index": index, "item": start}
        place = {"item_id": item["id"], "output_index": index}
        for kind, fields in _item_events(item, speech):
            yield kind, {**place, **fields}
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield f"response.{done['status']}", {"response": done}


def _item_events(item: Mapping[str, Any], speech: Speech) -> Iterator[tuple[str, Object]]:
    match item["type"]:
        case "message":
            (part,) = item["content"]
            first = {"content_index": 0}
            empty = {**part, "text": "", "logprobs": []}
            yield "response.content_part.added", {**first, "part": empty}
            for at, word in enumerate(speech.words):
                delta = {**first, "delta": word, "logprobs": part["logprobs"][at : at + 1]}
                yield "response.output_text.delta", delta
            said = {**first, "text": part["text"], "logprobs": part["logprobs"]}
            yield "response.output_text.done", said
            yield "response.content_part.done", {**first, "part": part}
        case "function_call":
            for half in _halves(item["arguments"]):
                yield "response.function_call_arguments.delta", {"delta": half}
            whole = {"arguments": item["arguments"], "name": item["name"]}
            yield "response.function_call_arguments.done", whole
        case "custom_tool_call":
            for half in _halves(item["input"]):
                yield "response.custom_tool_call_input.delta", {"delta": half}
            yield "response.custom_tool_call_input.done", {"input": item["input"]}
        case "reasoning":
            first = {"summary_index": 0}
            (part,) = item["summary"]
            yield "response.reasoning_summary_part.added", {**first, "part": {**part, "text": ""}}
            delta = {**first, "delta": part["text"]}
            yield "response.reasoning_summary_text.delta", delta
            yield "response.reasoning_summary_text.done", {**first, "text": part["text"]}
            yield "response.reasoning_summary_part.done", {**first, "part": part}


_EMPTY: Mapping[str, Object] = {
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "custom_tool_call": {"input": ""},
    "reasoning": {"summary": []},
}
_Stream = Callable[[Asked, Speech, Mapping[str, Any]], Iterator[bytes]]
_Whole = Callable[[Asked, Speech, Mapping[str, Any]], Object]
_SPEAKERS: Mapping[Dialect, tuple[_Stream, _Whole]] = {
    "openai": (_chat_stream, _chat_whole),
    "anthropic": (_messages_stream, _messages_whole),
    "ollama": (_ollama_stream, _ollama_whole),
    "responses": (_response_stream, _response),
}
