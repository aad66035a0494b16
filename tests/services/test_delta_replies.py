"""A reply written from deltas, whatever the provider's dialect is."""

import json
from contextlib import aclosing

from appliance.services.delta_replies import DeltaReply
from tests.fakes.providers import USED, FakeReply
from tests.fakes.writers import chat_writer


async def test_a_stream_is_written_from_the_deltas() -> None:
    reply = DeltaReply(FakeReply(pieces=("Hello", " there")), "mock")
    async with aclosing(reply.events(chat_writer(include_usage=True))) as answer:
        events = [event async for event in answer]

    text = b"".join(events)
    assert b'"content":"Hello"' in text
    assert b'"finish_reason":"stop"' in text
    assert b'"completion_tokens":5' in text
    assert all(event.endswith(b"\n\n") for event in events)


async def test_a_whole_answer_is_written_from_the_deltas() -> None:
    reply = DeltaReply(FakeReply(pieces=("Hello", " there")), "mock")

    answer = json.loads(await reply.whole(chat_writer()))

    assert answer["choices"][0]["message"]["content"] == "Hello there"
    assert answer["model"] == "mock"


async def test_what_the_books_want_to_know_is_the_other_replys() -> None:
    inner = FakeReply()
    reply = DeltaReply(inner, "mock")
    await reply.whole(chat_writer())

    assert (reply.usage, reply.finished, reply.provider_request_id) == (USED, True, "up_1")
    assert reply.text_bytes == inner.text_bytes > 0
