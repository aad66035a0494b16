"""Previews, first words, and looking for a word."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import SessionKey
from appliance.storage.session_words import LARGEST_SHOWN, cut
from appliance.storage.sessions import PreviewItem, SessionPreview, SessionStore, message_text
from tests.books import NOON, directory
from tests.storage.talks import KEY, OTHER, assistant, turn, user


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    store = await SessionStore.open(directory(tmp_path), now=NOON)
    yield store
    await store.close()


async def test_a_preview_shows_what_was_said_last(store: SessionStore) -> None:
    turn(store, "one", "1")
    turn(store, "two\n lines", "x" * 30)
    store.append(KEY, role="tool", message={"role": "tool", "content": None}, now=NOON)
    store.append(KEY, role="user", message=user("p" * LARGEST_SHOWN), now=NOON)
    shown, missing = store.previews([KEY, OTHER], limit=3, max_chars=20)
    assert shown == SessionPreview(
        KEY.short,
        found=True,
        items=(
            PreviewItem("assistant", "1"),
            PreviewItem("user", "two lines"),
            PreviewItem("assistant", "x" * 19 + "…"),
        ),
    )
    assert missing == SessionPreview(OTHER.short, found=False)


async def test_the_words_of_a_message_are_the_texts_among_its_parts(store: SessionStore) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert message_text({"content": parts}) == "a\nb"
    assert message_text({"content": "a"}) == "a"
    assert message_text({"content": {"a": 1}}) == message_text({}) == ""


def test_text_is_cut_between_characters() -> None:
    assert cut("😀" * 5, 3) == "😀😀…"
    assert cut("😀" * 3, 3) == "😀😀😀"


async def test_the_first_words_are_those_of_the_user(store: SessionStore) -> None:
    assert store.first_user_text(KEY) == ""
    store.append(KEY, role="assistant", message=assistant("greeting"), now=NOON)
    assert store.first_user_text(KEY) == ""
    turn(store, "hello", "hi")
    assert store.first_user_text(KEY) == "hello"


async def test_a_word_is_found_where_it_was_said(store: SessionStore) -> None:
    pirate = SessionKey("acme", "pirate", "ship")
    turn(store, 'the "Treasure" map', "where?")
    turn(store, "no", "treasure here", key=pirate)
    store.append(KEY, role="user", message={"role": "user", "treasure": "x"}, now=NOON)
    turn(store, "old treasure", "x", key=OTHER)
    store.archive(OTHER, now=NOON)
    found = await store.search("TREASURE")
    assert [(hit.key, hit.seq, hit.text) for hit in found] == [
        (pirate.short, 2, "treasure here"),
        (KEY.short, 1, 'the "Treasure" map'),
    ]
    line = store.message(found[1].message_id)
    assert line is not None
    assert line.seq == 1
    assert [hit.key for hit in await store.search("treasure", agent="pirate")] == [pirate.short]
    assert [hit.key for hit in await store.search("treasure", keys=[KEY])] == [KEY.short]
    assert len(await store.search("treasure", limit=1)) == 1
    assert [hit.seq for hit in await store.search('e "Treas')] == [1]
    assert await store.search("%") == []


@pytest.mark.parametrize("query", ["", "  ", "x" * 4_097, "\ud83d"])
async def test_a_query_is_some_words(store: SessionStore, query: str) -> None:
    with pytest.raises(InvalidRequest, match="query"):
        await store.search(query)
