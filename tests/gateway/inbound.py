"""The three dialects callers speak, as one thing: asked alike, answered alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

Json = dict[str, Any]

WEATHER: Json = {
    "name": "get_weather",
    "description": "The weather somewhere",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
PERSON: Json = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
# One white pixel.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4//8/AwAI/A"
    "L+hc2rNAAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Ask:
    """What a caller wants, in no dialect. ``said`` alternates user, assistant, user, …"""

    said: Sequence[str]
    system: str = ""
    limit: int | None = None
    stop: str | None = None
    tools: bool = False
    custom: bool = False  # the tool is one that is called with a text
    grammar: str = ""  # of that text
    must_call: bool = False
    results: Mapping[str, str] = field(default_factory=dict)  # of the calls made last
    calls: Sequence[tuple[str, str, str]] = ()  # id, name, arguments or input: made last
    picture: bool = False
    schema: bool = False


@dataclass(frozen=True)
class Got:
    text: str
    calls: Sequence[tuple[str, str, str]]
    reason: str  # stop, length or tool_calls
    prompt_tokens: int
    answer_tokens: int
    is_custom: bool = False  # what is called


class Inbound(Protocol):
    path: str

    def body(self, ask: Ask) -> Json: ...
    def whole(self, answer: Json) -> Got: ...
    def stream(self, text: str) -> Got: ...


def events(text: str) -> Iterator[Json]:
    """The JSON of each event; a comment and the last word are none."""
    for block in text.split("\n\n"):
        for line in block.splitlines():
            if line.startswith("data: {"):
                yield msgspec.json.decode(line.removeprefix("data: "))


class Chat:
    path = "/v1/chat/completions"

    def body(self, ask: Ask) -> Json:
        messages: list[Json] = []
        if ask.system:
            messages.append({"role": "system", "content": ask.system})
        for number, text in enumerate(ask.said):
            messages.append({"role": ("user", "assistant")[number % 2], "content": text})
        if ask.picture:
            messages[-1]["content"] = [
                {"type": "text", "text": messages[-1]["content"]},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ]
        if ask.calls:
            kind, text = ("custom", "input") if ask.custom else ("function", "arguments")
            calls = [{"id": i, "type": kind, kind: {"name": n, text: a}} for i, n, a in ask.calls]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            messages += [
                {"role": "tool", "tool_call_id": i, "content": text}
                for i, text in ask.results.items()
            ]
        body: Json = {"messages": messages}
        if ask.limit:
            body["max_completion_tokens"] = ask.limit
        if ask.stop:
            body["stop"] = ask.stop
        if ask.tools:
            body["tools"] = [{"type": "function", "function": WEATHER}]
        if ask.custom:
            body["tools"] = [self._custom(ask)]
        if ask.must_call:
            kind = "custom" if ask.custom else "function"
            body["tool_choice"] = {"type": kind, kind: {"name": "get_weather"}}
        if ask.schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": PERSON, "strict": True},
            }
        return body

    def _custom(self, ask: Ask) -> Json:
        custom: Json = {"name": "get_weather", "description": "The weather somewhere"}
        if ask.grammar:
            grammar = {"syntax": "lark", "definition": ask.grammar}
            custom["format"] = {"type": "grammar", "grammar": grammar}
        return {"type": "custom", "custom": custom}

    def _called(self, piece: Json) -> tuple[str, str]:
        """The name, and what it is called with."""
        kind = "custom" if "custom" in piece else "function"
        assert piece.get("type", kind) == kind
        called = piece[kind]
        return called.get("name", ""), called["input" if kind == "custom" else "arguments"]

    def whole(self, answer: Json) -> Got:
        [choice] = answer["choices"]
        message = choice["message"]
        calls = [(c["id"], *self._called(c)) for c in message.get("tool_calls", ())]
        usage = answer["usage"]
        return Got(
            message["content"] or "",
            calls,
            choice["finish_reason"],
            usage["prompt_tokens"],
            usage["completion_tokens"],
            is_custom=any("custom" in call for call in message.get("tool_calls", ())),
        )

    def stream(self, text: str) -> Got:
        assert text.endswith("data: [DONE]\n\n")
        pieces: list[str] = []
        calls: dict[int, list[str]] = {}
        is_custom = False
        reason, usage = "", {"prompt_tokens": 0, "completion_tokens": 0}
        for chunk in events(text):
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                reason = choice["finish_reason"] or reason
                delta = choice["delta"]
                pieces.append(delta.get("content") or "")
                for piece in delta.get("tool_calls", ()):
                    call = calls.setdefault(piece["index"], ["", "", ""])
                    name, more = self._called(piece)
                    is_custom = piece.get("type", "") == "custom" or is_custom
                    call[0] += piece.get("id", "")
                    call[1] += name
                    call[2] += more
        made = [(i, n, a) for i, n, a in calls.values()]
        return Got(
            "".join(pieces),
            made,
            reason,
            usage["prompt_tokens"],
            usage["completion_tokens"],
            is_custom=is_custom,
        )


class Messages:
    path = "/v1/messages"

    def body(self, ask: Ask) -> Json:
        messages: list[Json] = [
            {"role": ("user", "assistant")[number % 2], "content": text}
            for number, text in enumerate(ask.said)
        ]
        if ask.picture:
            source = {"type": "base64", "media_type": "image/png", "data": PNG}
            messages[-1]["content"] = [
                {"type": "image", "source": source},
                {"type": "text", "text": messages[-1]["content"]},
            ]
        if ask.calls:
            made = [
                {"type": "tool_use", "id": i, "name": n, "input": msgspec.json.decode(a)}
                for i, n, a in ask.calls
            ]
            results = [
                {"type": "tool_result", "tool_use_id": i, "content": text}
                for i, text in ask.results.items()
            ]
            messages += [
                {"role": "assistant", "content": made},
                {"role": "user", "content": results},
            ]
        body: Json = {"messages": messages, "max_tokens": ask.limit or 500}
        if ask.system:
            body["system"] = ask.system
        if ask.stop:
            body["stop_sequences"] = [ask.stop]
        if ask.tools:
            tool = {"name": WEATHER["name"], "input_schema": WEATHER["parameters"]}
            body["tools"] = [tool]
        if ask.must_call:
            body["tool_choice"] = {"type": "tool", "name": "get_weather"}
        if ask.schema:
            body["output_config"] = {"format": {"type": "json_schema", "schema": PERSON}}
        return body

    _REASONS: Mapping[str, str] = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "tool_use": "tool_calls",
    }

    def whole(self, answer: Json) -> Got:
        texts = [b["text"] for b in answer["content"] if b["type"] == "text"]
        calls = [
            (b["id"], b["name"], msgspec.json.encode(b["input"]).decode())
            for b in answer["content"]
            if b["type"] == "tool_use"
        ]
        usage = answer["usage"]
        return Got(
            "".join(texts),
            calls,
            self._REASONS[answer["stop_reason"]],
            usage["input_tokens"],
            usage["output_tokens"],
        )

    def stream(self, text: str) -> Got:
        found = list(events(text))
        assert found[0]["type"] == "message_start"
        assert found[-1]["type"] == "message_stop"
        message = found[0]["message"]
        blocks: dict[int, Json] = {}
        for event in found:
            match event:
                case {"type": "content_block_start", "index": index, "content_block": block}:
                    blocks[index] = {**block, "partial": ""}
                case {"type": "content_block_delta", "index": index, "delta": delta}:
                    if delta["type"] == "text_delta":
                        blocks[index]["text"] += delta["text"]
                    elif delta["type"] == "input_json_delta":
                        blocks[index]["partial"] += delta["partial_json"]
                case {"type": "message_delta", "delta": delta, "usage": usage}:
                    message |= delta
                    message["usage"] |= usage
        for block in blocks.values():
            if block["type"] == "tool_use":
                block["input"] = msgspec.json.decode(block["partial"] or "{}")
        return self.whole({**message, "content": [blocks[i] for i in sorted(blocks)]})


class Responses:
    path = "/v1/responses"

    def body(self, ask: Ask) -> Json:
        items: list[Json] = [
            {"role": ("user", "assistant")[number % 2], "content": text}
            for number, text in enumerate(ask.said)
        ]
        if ask.picture:
            items[-1]["content"] = [
                {"type": "input_text", "text": items[-1]["content"]},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
            ]
        kind, text = ("custom_tool", "input") if ask.custom else ("function", "arguments")
        items += [
            {"type": f"{kind}_call", "call_id": i, "name": n, text: a} for i, n, a in ask.calls
        ]
        items += [
            {"type": f"{kind}_call_output", "call_id": i, "output": text}
            for i, text in ask.results.items()
        ]
        body: Json = {"input": items, "store": False}
        if ask.system:
            body["instructions"] = ask.system
        if ask.limit:
            body["max_output_tokens"] = ask.limit
        if ask.tools:
            body["tools"] = [{"type": "function", **WEATHER, "strict": None}]
        if ask.custom:
            body["tools"] = [self._custom(ask)]
        if ask.must_call:
            kind = "custom" if ask.custom else "function"
            body["tool_choice"] = {"type": kind, "name": "get_weather"}
        if ask.schema:
            form = {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}
            body["text"] = {"format": form}
        return body

    def _custom(self, ask: Ask) -> Json:
        tool: Json = {"type": "custom", "name": "get_weather", "description": "The weather"}
        if ask.grammar:
            tool["format"] = {"type": "grammar", "syntax": "lark", "definition": ask.grammar}
        return tool

    def whole(self, answer: Json) -> Got:
        texts = [
            part["text"]
            for item in answer["output"]
            if item["type"] == "message"
            for part in item["content"]
        ]
        texts_of = {"function_call": "arguments", "custom_tool_call": "input"}
        calls = [
            (i["call_id"], i["name"], i[texts_of[i["type"]]])
            for i in answer["output"]
            if i["type"] in texts_of
        ]
        reason = "length" if answer["status"] == "incomplete" else "stop"
        usage = answer["usage"]
        return Got(
            "".join(texts),
            calls,
            "tool_calls" if calls else reason,
            usage["input_tokens"],
            usage["output_tokens"],
            is_custom=any(i["type"] == "custom_tool_call" for i in answer["output"]),
        )

    def stream(self, text: str) -> Got:
        assert text.endswith("data: [DONE]\n\n")
        found = list(events(text))
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        deltas = [e["delta"] for e in found if e["type"] == "response.output_text.delta"]
        parts = [
            e["delta"] for e in found if e["type"].endswith(("input.delta", "arguments.delta"))
        ]
        got = self.whole(found[-1]["response"])
        assert "".join(deltas) == got.text
        assert "".join(parts) == "".join(text for _, _, text in got.calls)
        return got


INBOUND: Mapping[str, Inbound] = {"chat": Chat(), "messages": Messages(), "responses": Responses()}
