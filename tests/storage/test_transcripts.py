"""Lines of a transcript come back as they were sent, in pages and by id."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, NotFound
from appliance.storage import transcripts
from appliance.storage.sessions import MessageKind, SessionStore
from tests.books import NOON
from tests.storage.talks import KEY, OTHER, assistant, begin, later, store_in_memory, turn, user


@pytest.fixture
def store() -> Iterator[SessionStore]:
    store = store_in_memory()
    yield store
    store._database._connection.close()


def test_a_line_comes_back_with_all_that_is_known_of_it(store: SessionStore) -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "a\0b"}], "odd": [None]}
    stored = store.append(KEY, role="assistant", message=message, meta={"model": "m"}, now=later(1))
    assert (stored.seq, stored.role, stored.kind) == (1, "assistant", MessageKind.MESSAGE)
    assert (stored.message, stored.meta, stored.created_at) == (message, {"model": "m"}, later(1))
    assert (stored.run, stored.status, stored.omitted) == (None, None, False)
    assert store.message(stored.id) == stored
    assert store.messages(KEY, limit=5) == [stored]
    session = store.find(KEY)
    assert session is not None
    assert (session.messages, session.updated_at) == (1, later(1))


def test_a_line_may_belong_to_a_turn(store: SessionStore) -> None:
    run = begin(store, "hello")
    line = store.append(KEY, role="user", message=user("and"), now=NOON, run=run.id)
    assert (line.run, line.status, line.seq) == (run.id, "running", run.seq + 1)
    store.delete(KEY)
    with pytest.raises(NotFound, match="was deleted"):
        store.append(KEY, role="user", message=user("late"), now=NOON, run=run)
    assert store.find(KEY) is None


def test_half_a_character_is_refused_and_nothing_is_kept(store: SessionStore) -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        store.append(KEY, role="user", message=user("\ud83d"), now=NOON)
    with pytest.raises(InvalidRequest, match="surrogate"):
        store.append(KEY, role="user", message=user("x"), meta={"a": "\ud83d"}, now=NOON)
    assert store.find(KEY) is None


def test_the_newest_lines_come_oldest_first_in_pages(store: SessionStore) -> None:
    for number in range(4):
        turn(store, str(number), "x")

    def numbers(**where: int) -> list[int]:
        return [line.seq for line in store.messages(KEY, **where)]

    assert numbers(limit=3) == [6, 7, 8]
    assert numbers(limit=3, before_seq=6) == [3, 4, 5]
    assert numbers(limit=3, before_seq=3) == [1, 2]
    assert numbers(limit=3, after_seq=2) == [3, 4, 5]
    assert numbers(limit=2, after_seq=2, before_seq=6) == [4, 5]
    assert numbers(limit=9, after_seq=8) == numbers(limit=0) == []
    assert store.messages(OTHER, limit=5) == store.messages("ses_none", limit=5) == []


def test_a_page_has_a_largest_size_but_is_never_empty(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        store.append(KEY, role="user", message=user(f"{number}" * 100), now=NOON)
    monkeypatch.setattr(transcripts, "MOST_BYTES", 300)
    assert [line.seq for line in store.messages(KEY, limit=5)] == [4, 5]
    monkeypatch.setattr(transcripts, "MOST_BYTES", 10)
    assert [line.seq for line in store.messages(KEY, limit=5)] == [5]
    assert [line.seq for line in store.messages(KEY, limit=5, after_seq=0)] == [1]


def test_a_message_that_is_too_large_comes_without_its_content(store: SessionStore) -> None:
    store.append(KEY, role="user", message=user("x" * 500), now=NOON)
    store.append(KEY, role="user", message=user("short"), now=NOON)
    large, small = store.messages(KEY, limit=5, omit_over=100)
    assert (large.omitted, large.message, large.bytes) == (True, {}, 528)
    assert (small.omitted, small.message) == (False, user("short"))
    whole = store.message(large.id)
    assert whole is not None
    assert whole.message == user("x" * 500)


def test_hidden_lines_keep_their_numbers(store: SessionStore) -> None:
    for number in range(5):
        turn(store, str(number), "x")
    first = store.messages(KEY, limit=100)[0]
    assert store.truncate(KEY, keep_last=4, now=later(1)) == 4
    assert store.truncate(KEY, keep_last=6, now=later(1)) == 4
    assert [line.seq for line in store.messages(KEY, limit=100)] == [7, 8, 9, 10]
    assert [line.seq for line in store.messages(KEY, limit=100, after_seq=1)] == [7, 8, 9, 10]
    assert [line.seq for line in store.transcript(KEY)] == [7, 8, 9, 10]
    assert store.history(KEY, limit_tokens=10_000)[0] == user("3")
    session = store.find(KEY)
    assert session is not None
    assert (session.messages, session.first_seq, session.last_seq, session.kept_from) == (
        4,
        7,
        10,
        7,
    )
    assert store.message(first.id) == first
    turn(store, "on", "x")
    assert [line.seq for line in store.messages(KEY, limit=100)] == [7, 8, 9, 10, 11, 12]
    assert store.truncate(KEY, keep_last=0, now=later(2)) == 0
    assert store.messages(KEY, limit=100) == []
    assert store.history(KEY, limit_tokens=100) == []
    assert store.truncate(OTHER, keep_last=1, now=NOON) == 0


def test_the_last_message_is_no_note(store: SessionStore) -> None:
    assert store.last_message(KEY) is None
    turn(store, "hello", "hi")
    store.append(KEY, role="assistant", message=assistant("noted"), kind="note", now=NOON)
    store.compact(KEY, summary="s", kept_from=1, tokens_before=1, now=NOON)
    last = store.last_message(KEY)
    assert last is not None
    assert last.message == assistant("hi")


@pytest.mark.parametrize("made_up", ["", "msg_n", "msg_n1", "msg_n" + "9" * 30, "msg_n-1", "x"])
def test_an_id_that_nobody_gave_finds_nothing(store: SessionStore, made_up: str) -> None:
    turn(store, "hello", "hi")
    assert store.message(made_up) is None


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts | st.just("content"), values, max_size=3)


@settings(max_examples=60)
@given(st.lists(objects, max_size=6), st.integers(1, 7), st.integers(1, 8))
def test_any_json_comes_back_in_any_page(
    messages: list[dict[str, object]], limit: int, before: int
) -> None:
    store = store_in_memory()
    for message in messages:
        store.append(KEY, role="user", message=message, now=NOON)
    page = store.messages(KEY, limit=limit, before_seq=before)
    assert [line.message for line in page] == messages[: before - 1][-limit:]
    following = store.messages(KEY, limit=limit, after_seq=before)
    assert [line.message for line in following] == messages[before:][:limit]
    # Whatever their content is, it can be shown.
    store.previews([KEY])
    store.first_user_text(KEY)
    store._database._connection.close()
