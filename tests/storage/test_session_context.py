"""A summary stands for what came before it, in what the model sees and nowhere else."""

from collections.abc import Iterator

import pytest

from appliance.model.errors import NotFound
from appliance.storage.session_context import conversation
from appliance.storage.sessions import MessageKind, SessionStore
from tests.books import NOON
from tests.storage.talks import KEY, OTHER, assistant, begin, later, store_in_memory, turn, user


@pytest.fixture
def store() -> Iterator[SessionStore]:
    store = store_in_memory()
    yield store
    store._database._connection.close()


def test_the_model_sees_the_summary_and_what_came_after(store: SessionStore) -> None:
    for number in range(3):
        turn(store, f"question {number}", f"answer {number}")
    line = store.compact(KEY, summary="We spoke.", kept_from=5, tokens_before=63, now=later(1))
    assert (line.kind, line.seq) == (MessageKind.COMPACTION, 7)
    assert line.meta == {"keptFrom": 5, "tokensBefore": 63}
    assert store.history(KEY, limit_tokens=1_000) == [
        user("Summary of the conversation so far: We spoke."),
        user("question 2"),
        assistant("answer 2"),
    ]
    session = store.find(KEY)
    assert session is not None
    assert (session.summary, session.kept_from, session.compactions) == ("We spoke.", 5, 1)
    assert len(store.messages(KEY, limit=100)) == 7


def test_a_later_summary_replaces_it_and_never_goes_back(store: SessionStore) -> None:
    for number in range(3):
        turn(store, f"question {number}", f"answer {number}")
    store.compact(KEY, summary="one", kept_from=5, tokens_before=1, now=NOON)
    store.compact(KEY, summary="half \ud83d", kept_from=1, tokens_before=1, now=NOON)
    context = store.context(KEY, limit_tokens=1_000)
    assert (context.summary, [line.seq for line in context.lines]) == ("half ?", [5, 6])
    store.compact(KEY, summary="all", kept_from=10**6, tokens_before=1, now=NOON)
    turn(store, "next", "yes")
    assert conversation(store.context(KEY, limit_tokens=1_000))[1:] == [
        user("next"),
        assistant("yes"),
    ]


def test_the_summary_counts_and_the_turns_stay_whole(store: SessionStore) -> None:
    for number in range(3):
        turn(store, f"question {number}", f"answer {number}")  # 10 + 11 tokens
    store.compact(KEY, summary="x" * 40, kept_from=3, tokens_before=1, now=NOON)
    for limit, turns in ((52, 2), (51, 1), (31, 1), (30, 0), (0, 0)):
        context = store.context(KEY, limit_tokens=limit)
        assert len(context.lines) == 2 * turns
        assert context.tokens == 10 + 21 * turns


def test_a_note_is_not_shown_to_the_model(store: SessionStore) -> None:
    turn(store, "hello", "hi")
    store.append(KEY, role="assistant", message=assistant("noted"), kind="note", now=NOON)
    store.append(KEY, role="assistant", message=assistant("injected"), now=NOON)
    begin(store, "under way")
    assert store.history(KEY, limit_tokens=1_000) == [
        user("hello"), assistant("hi"), assistant("injected"),
    ]  # fmt: skip


def test_a_session_that_is_not_there_cannot_be_compacted(store: SessionStore) -> None:
    with pytest.raises(NotFound):
        store.compact(OTHER, summary="x", kept_from=1, tokens_before=1, now=NOON)
    assert store.context(OTHER, limit_tokens=100).lines == ()


def test_a_reset_forgets_the_summary(store: SessionStore) -> None:
    turn(store, "hello", "hi")
    store.compact(KEY, summary="x", kept_from=3, tokens_before=1, now=NOON)
    session = store.reset(KEY, reason="new", now=NOON)
    assert (session.summary, session.kept_from, session.compactions) == (None, 1, 0)
    assert store.history(KEY, limit_tokens=100) == []
