"""What a call used is what the caller is told, whether the provider says it or not."""

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from appliance.model.calls import Dialect, Finished
from appliance.model.spending import Outcome, OutcomeStatus, SpendRequest
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.answers import AnswerWriter
from appliance.protocols.anthropic_writer import MessagesWriter
from appliance.providers.anthropic import AnthropicWire
from appliance.providers.connections import Response
from appliance.providers.errors import UpstreamFailed
from appliance.providers.http_provider import Wire
from appliance.providers.ollama import OllamaWire
from appliance.providers.openai import OpenAiWire
from appliance.providers.replies import Context, StreamedReply, WholeReply
from appliance.services.estimates import usage_of
from tests.fakes.writers import chat_writer

PROMPT = 30  # bytes
SAID = "x" * 41
ESTIMATE = TokenUsage(input=8, output=11, estimated=True)
WIRES: dict[str, Callable[[], Wire]] = {
    "openai": OpenAiWire,
    "anthropic": AnthropicWire,
    "ollama": OllamaWire,
}


class Pieces:
    """A response's body, as it comes."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = deque(pieces)

    async def receive(self) -> bytes:
        return self._pieces.popleft() if self._pieces else b""

    async def finish(self, *, patience: float) -> None:
        """The connection is nobody's."""

    def release(self) -> None:
        """Nor is it here."""


def context(prompt_bytes: int | None = PROMPT) -> Context:
    return Context("p", "m", None, idle_timeout=60, prompt_bytes=prompt_bytes)


def streamed(dialect: str, usage: object, *, prompt_bytes: int | None = PROMPT) -> StreamedReply:
    body = Pieces(STREAMS[dialect](usage))
    return WIRES[dialect]().reply(cast("Response", body), context(prompt_bytes))


def whole(dialect: str, usage: object) -> WholeReply:
    wire = WIRES[dialect]()
    answer = wire.read_whole(json.dumps(WHOLES[dialect](usage)).encode())
    return WholeReply(answer, context(), dialect=wire.dialect)


def _chunk(said: object, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": said, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


def _openai(usage: object) -> list[bytes]:
    last = json.dumps({"id": "c", "choices": [], "usage": usage}).encode()
    return [
        _chunk({"role": "assistant", "content": ""}),
        _chunk({"content": SAID}),
        _chunk({}, "stop") + (b"data: " + last + b"\n\n" if usage else b"") + b"data: [DONE]\n\n",
    ]


def _anthropic(usage: Any) -> list[bytes]:
    block = {"type": "text", "text": ""}
    delta = {"type": "text_delta", "text": SAID}
    ending: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    message: dict[str, Any] = {"id": "msg_1", "content": []}
    if usage is not None:
        message["usage"], ending["usage"] = usage, usage
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        ending,
        {"type": "message_stop"},
    ]
    return [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]


def _ollama(usage: Any) -> list[bytes]:
    lines = [
        {"message": {"content": SAID}, "done": False},
        {"message": {"content": ""}, "done": True, "done_reason": "stop", **(usage or {})},
    ]
    return [json.dumps(line).encode() + b"\n" for line in lines]


STREAMS = {"openai": _openai, "anthropic": _anthropic, "ollama": _ollama}
WHOLES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "openai": lambda usage: {
        "id": "c",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": SAID},
                "finish_reason": "stop",
            }
        ],
        "usage": usage,
    },
    "anthropic": lambda usage: {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": SAID}],
        "stop_reason": "end_turn",
        "usage": usage,
    },
}

# A usage that cannot be, in each dialect, and what of it can.
LIES: list[tuple[str, dict[str, Any] | None, TokenUsage]] = [
    ("openai", None, ESTIMATE),
    ("openai", {"prompt_tokens": 0, "completion_tokens": 0}, ESTIMATE),
    (
        "openai",
        {"prompt_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 4}},
        TokenUsage(input=5, output=11, cache_read=4, estimated=True),
    ),
    (
        "openai",
        {"prompt_tokens": 0, "completion_tokens": 12},
        TokenUsage(input=8, output=12, estimated=True),
    ),
    ("openai", {"prompt_tokens": 10**10, "completion_tokens": 1}, ESTIMATE),
    ("anthropic", None, ESTIMATE),
    ("anthropic", {"input_tokens": 0, "output_tokens": 0}, ESTIMATE),
    (
        "anthropic",
        {"input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 0},
        TokenUsage(cache_read=5, output=11, estimated=True),
    ),
    ("ollama", None, ESTIMATE),
    ("ollama", {"eval_count": 12}, TokenUsage(input=8, output=12, estimated=True)),
]


def told(events: bytes) -> tuple[int, int] | None:
    """The figures at the end of a stream or in an answer in one piece, of either API."""
    found = [json.loads(payload) for payload in sse.payloads(events)] or [json.loads(events)]
    usage = found[-1].get("usage") or {}
    if "prompt_tokens" in usage:
        return usage["prompt_tokens"], usage["completion_tokens"]
    if "input_tokens" in usage:
        cached = usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
        return usage["input_tokens"] + cached, usage["output_tokens"]
    return None


def writers() -> list[AnswerWriter]:
    return [chat_writer(include_usage=True), MessagesWriter(id="msg_1", prompt_tokens=8)]


async def drained(reply: StreamedReply, writer: AnswerWriter) -> bytes:
    reply.begin()
    try:
        events = b"".join([events async for events in reply.events(writer)])
    except UpstreamFailed as failure:
        await reply.end(failure)
        raise
    await reply.end(None)
    return events


@pytest.mark.parametrize(("dialect", "usage", "expected"), LIES)
@pytest.mark.parametrize("writer", [0, 1], ids=["chat", "messages"])
async def test_the_estimate_of_a_stream_is_told_and_settled(
    dialect: str, usage: dict[str, Any] | None, expected: TokenUsage, writer: int
) -> None:
    reply = streamed(dialect, usage)

    events = await drained(reply, writers()[writer])

    assert reply.usage == expected
    assert told(events) == (expected.prompt, expected.completion)


@pytest.mark.parametrize(
    ("dialect", "usage", "expected"), [lie for lie in LIES if lie[0] in WHOLES]
)
@pytest.mark.parametrize("writer", [0, 1], ids=["chat", "messages"])
async def test_the_estimate_of_a_whole_answer_is_told_and_settled(
    dialect: str, usage: dict[str, Any] | None, expected: TokenUsage, writer: int
) -> None:
    reply = whole(dialect, usage)

    assert reply.usage == expected
    text = await reply.whole(writers()[writer])
    assert told(text) == (expected.prompt, expected.completion)
    assert SAID in text.decode()


@pytest.mark.parametrize("dialect", STREAMS)
async def test_whoever_reads_the_deltas_is_told_it_too(dialect: str) -> None:
    reply = streamed(dialect, None)
    reply.begin()
    deltas = [delta async for several in reply.deltas() for delta in several]
    await reply.end(None)

    assert isinstance(deltas[-1], Finished)
    assert deltas[-1].usage == ESTIMATE


async def test_an_answer_in_one_piece_for_a_stream_tells_it_too() -> None:
    events = [
        events async for events in whole("openai", None).events(chat_writer(include_usage=True))
    ]

    assert told(b"".join(events)) == (8, 11)


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
async def test_the_meter_estimates_the_same(dialect: str) -> None:
    """Where a reply does not know what was asked: there are no two kinds of estimate."""
    reply = streamed(dialect, None, prompt_bytes=None)
    events = await drained(reply, MessagesWriter(id="msg_1", prompt_tokens=8))

    request = SpendRequest(
        request_id="r", kind="chat", model="m", prompt_bytes=PROMPT, output_limit=None, price=None
    )
    outcome = Outcome(
        status=OutcomeStatus.OK,
        usage=reply.usage,
        text_bytes=reply.text_bytes,
        provider="p",
        model="m",
        price=None,
    )

    assert usage_of(request, outcome) == ESTIMATE
    assert told(events) == (8, 11)


async def test_half_an_answer_has_the_usage_of_nobody() -> None:
    """The caller is told nothing of it; whoever settles it estimates."""
    pieces = STREAMS["openai"]({"prompt_tokens": 0, "completion_tokens": 0})
    reply = OpenAiWire().reply(cast("Response", Pieces(pieces[:-1])), context())

    with pytest.raises(UpstreamFailed):
        await drained(reply, chat_writer())

    assert reply.usage is None
    assert reply.text_bytes == len(SAID)


async def test_figures_that_can_be_are_the_providers_own() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    pieces = STREAMS["openai"](usage)
    reply = streamed("openai", usage)

    events = await drained(reply, chat_writer(include_usage=True))

    assert reply.usage == TokenUsage(input=3, output=2)
    assert events + b"data: [DONE]\n\n" == b"".join(pieces)


@pytest.mark.parametrize("reads", ["events", "deltas"])
async def test_a_stream_that_ends_well_without_a_last_word_is_complete(reads: str) -> None:
    pieces = [each.replace(b"data: [DONE]\n\n", b"") for each in STREAMS["openai"](None)]
    reply = OpenAiWire().reply(cast("Response", Pieces(pieces)), context())
    writer = chat_writer() if reads == "events" else MessagesWriter(id="msg_1")

    events = await drained(reply, writer)

    assert reply.finished
    assert (b'"stop"' if reads == "events" else b'"end_turn"') in events
    assert writer.dialect is (Dialect.OPENAI if reads == "events" else Dialect.ANTHROPIC)
