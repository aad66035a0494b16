"""A session's messages as a chat client shows them."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from appliance.model.session_keys import SessionKey
from appliance.services import chat_history
from appliance.services.chat_history import LARGEST, LONGEST_TEXT, OMITTED
from tests.books import NOON
from tests.services.chatting import MAIN, ChatBench, open_chat

OTHER = SessionKey("acme", "main", "other")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChatBench]:
    async with open_chat(tmp_path) as bench:
        yield bench


def add(bench: ChatBench, *texts: object, key: SessionKey = MAIN) -> list[str]:
    stored = [
        bench.store.append(key, role="user", message={"role": "user", "content": text}, now=NOON)
        for text in texts
    ]
    return [line.id for line in stored]


def texts(messages: list[dict[str, object]]) -> list[object]:
    found = [message["content"] for message in messages]
    return [part[0]["text"] for part in found if isinstance(part, list)]


async def test_an_unknown_session_is_empty(bench: ChatBench) -> None:
    page = await chat_history.page(bench.tenant, MAIN)

    assert (page.session, page.messages, page.total, page.next_offset) == (None, [], 0, None)


async def test_the_newest_come_first_and_offsets_go_back(bench: ChatBench) -> None:
    add(bench, *"abcdefg")

    page = await chat_history.page(bench.tenant, MAIN, limit=3)
    assert texts(page.messages) == ["e", "f", "g"]
    assert (page.total, page.next_offset) == (7, 3)
    page = await chat_history.page(bench.tenant, MAIN, limit=3, offset=3)
    assert texts(page.messages) == ["b", "c", "d"]
    page = await chat_history.page(bench.tenant, MAIN, limit=3, offset=page.next_offset or 0)
    assert (texts(page.messages), page.next_offset) == (["a"], None)
    page = await chat_history.page(bench.tenant, MAIN, offset=10**9)
    assert (page.messages, page.next_offset) == ([], None)


async def test_a_message_tells_what_is_known_of_it(bench: ChatBench) -> None:
    await bench.run("hi")
    await bench.run("/status", "r2")

    user, answer, command, _ = (await chat_history.page(bench.tenant, MAIN)).messages
    assert user["content"] == [{"type": "text", "text": "hi"}]
    assert user["idempotencyKey"] == "r1"
    assert answer["provider"] == "stub"
    assert answer["stopReason"] == "stop"
    assert isinstance(answer["__openclaw"], dict)
    assert answer["__openclaw"]["seq"] == 2
    assert isinstance(command["__openclaw"], dict)
    assert command["__openclaw"]["kind"] == "note"


async def test_long_texts_and_large_messages_are_cut(bench: ChatBench) -> None:
    parts = [{"type": "text", "text": "x" * 11_000}] * 20
    add(bench, "y" * (LONGEST_TEXT + 1), "z" * 200_000, parts)

    long, large, many = (await chat_history.page(bench.tenant, MAIN)).messages

    assert texts([long])[0] == "y" * LONGEST_TEXT + "\n...(truncated)..."
    assert str(texts([large])[0]).startswith("zzz")
    assert texts([many]) == [OMITTED]


async def test_pictures_are_named_and_left_out(bench: ChatBench) -> None:
    url = "data:image/png;base64," + "A" * 400_000
    content = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]
    add(bench, content)

    (message,) = (await chat_history.page(bench.tenant, MAIN)).messages

    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image", "mimeType": "image/png", "omitted": True, "bytes": 300_000},
    ]


async def test_a_page_is_never_larger_than_clients_take(bench: ChatBench) -> None:
    add(bench, *[[{"type": "text", "text": "x" * 11_900}] * 10 for _ in range(80)])

    page = await chat_history.page(bench.tenant, MAIN)

    assert len(msgspec.json.encode(page.messages)) <= LARGEST
    assert page.next_offset == len(page.messages) < 80


async def test_who_was_away_catches_up(bench: ChatBench) -> None:
    add(bench, "a")
    cursor = (await chat_history.page(bench.tenant, MAIN)).cursor
    add(bench, "b", "c")

    missed = await chat_history.missed(bench.tenant, MAIN, cursor)

    assert missed is not None
    assert texts(missed.messages) == ["b", "c"]
    again = await chat_history.missed(bench.tenant, MAIN, missed.cursor)
    assert again is not None
    assert again.messages == []


async def test_who_was_away_too_long_reads_anew(bench: ChatBench) -> None:
    add(bench, "a")
    cursor = (await chat_history.page(bench.tenant, MAIN)).cursor
    add(bench, *["x"] * 201)
    assert await chat_history.missed(bench.tenant, MAIN, cursor) is None
    bench.store.reset(MAIN, reason="new", now=NOON)
    for bad in (cursor, "", "nonsense", "ses_1:x", ":", f"{cursor}9"):
        assert await chat_history.missed(bench.tenant, MAIN, bad) is None


async def test_an_earlier_incarnation_is_read_by_its_id(bench: ChatBench) -> None:
    add(bench, "old")
    old = bench.store.find(MAIN)
    assert old is not None
    bench.store.reset(MAIN, reason="new", now=NOON)

    assert texts((await chat_history.page(bench.tenant, MAIN, session_id=old.id)).messages) == [
        "old"
    ]
    assert (await chat_history.page(bench.tenant, OTHER, session_id=old.id)).messages == []


async def test_one_message_is_given_in_full(bench: ChatBench) -> None:
    _, wanted, _ = add(bench, "a", "z" * 200_000, "c")
    (foreign,) = add(bench, "x", key=OTHER)

    found = await chat_history.one(bench.tenant, MAIN, wanted, max_chars=300_000)

    assert found.message is not None
    assert texts([found.message]) == ["z" * 200_000]
    for unknown in (foreign, "msg_guess"):
        missing = await chat_history.one(bench.tenant, MAIN, unknown, max_chars=10)
        assert (missing.message, missing.reason) == (None, "not_found")


async def test_a_message_too_large_for_an_answer_is_refused(bench: ChatBench) -> None:
    (large,) = add(bench, [{"type": "text", "text": "x" * 1_000_000}] * 7)

    found = await chat_history.one(bench.tenant, MAIN, large, max_chars=2_000_000)

    assert (found.message, found.reason) == (None, "oversized")
