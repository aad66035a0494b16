"""A session is opened, labelled, reset, archived and deleted."""

from collections.abc import Iterator

import pytest

from appliance.model.errors import AlreadyExists, InvalidRequest, NotFound
from appliance.storage.session_changes import LARGEST_SETTINGS
from appliance.storage.sessions import RunStatus, SessionStore
from tests.books import NOON
from tests.storage.talks import (
    KEY,
    OTHER,
    USAGE,
    assistant,
    begin,
    later,
    store_in_memory,
    turn,
    user,
)


@pytest.fixture
def store() -> Iterator[SessionStore]:
    store = store_in_memory()
    yield store
    store._database._connection.close()


class TestOpening:
    def test_a_session_can_be_opened_before_anything_is_said(self, store: SessionStore) -> None:
        made = store.open_session(KEY, now=NOON, model="stub/m", facts={"chatType": "direct"})
        assert (made.key, made.title, made.messages, made.model) == (KEY.short, "", 0, "stub/m")
        assert made.facts == {"chatType": "direct"}
        assert made.last_interaction_at is None
        assert store.open_session(KEY, now=later(1)) == made

    def test_its_title_is_what_is_said_first(self, store: SessionStore) -> None:
        store.open_session(KEY, now=NOON)
        turn(store, "hello", "hi")
        turn(store, "later", "hi")
        session = store.find(KEY)
        assert session is not None
        assert session.title == "hello"

    def test_facts_are_merged_and_do_not_count_as_use(self, store: SessionStore) -> None:
        assert not store.note_facts(KEY, {"lastTo": "x"}, now=NOON)
        store.open_session(KEY, now=NOON, facts={"lastTo": "x", "chatType": "direct"})
        assert store.note_facts(KEY, {"lastTo": None, "origin": {"a": 1}}, now=later(5))
        session = store.find(KEY)
        assert session is not None
        assert session.facts == {"chatType": "direct", "origin": {"a": 1}}
        assert session.updated_at == NOON


class TestPatching:
    def test_settings_are_kept_until_they_are_cleared(self, store: SessionStore) -> None:
        store.open_session(KEY, now=NOON)
        store.patch(KEY, settings={"thinkingLevel": "low", "model": "a/b"}, now=NOON)
        patched = store.patch(KEY, settings={"thinkingLevel": None, "nul": "\0"}, now=later(1))
        assert patched.settings == {"model": "a/b", "nul": "\0"}
        assert patched.updated_at == later(1)
        assert store.find(KEY) == patched

    def test_a_label_leads_to_one_live_session(self, store: SessionStore) -> None:
        for key in (KEY, OTHER):
            store.open_session(key, now=NOON)
        assert store.patch(KEY, label="ours", now=NOON).label == "ours"
        with pytest.raises(AlreadyExists, match=r"^label already in use: ours$"):
            store.patch(OTHER, label="ours", settings={"a": 1}, now=NOON)
        other = store.find(OTHER)
        assert other is not None
        assert other.settings == {}
        assert store.patch(KEY, label="ours", now=NOON).label == "ours"
        store.archive(KEY, now=NOON)
        assert store.find_by_label("ours") is None
        store.patch(OTHER, label="ours", now=NOON)
        assert store.find_by_label("ours") == store.find(OTHER)
        assert store.patch(OTHER, label=None, now=NOON).label is None

    def test_a_session_that_is_not_there_cannot_be_patched(self, store: SessionStore) -> None:
        with pytest.raises(NotFound, match="No session found: agent:main:room"):
            store.patch(KEY, settings={"a": 1}, now=NOON)

    def test_half_a_character_is_refused_and_nothing_changes(self, store: SessionStore) -> None:
        before = store.open_session(KEY, now=NOON)
        with pytest.raises(InvalidRequest, match=r"label: .*surrogate"):
            store.patch(KEY, label="\ud83d", now=NOON)
        with pytest.raises(InvalidRequest, match=r"settings: .*surrogate"):
            store.patch(KEY, label="fine", settings={"a": "\ud83d"}, now=NOON)
        with pytest.raises(InvalidRequest, match=r"facts: .*surrogate"):
            store.note_facts(KEY, {"a": "\ud83d"}, now=NOON)
        assert store.find(KEY) == before

    def test_settings_have_a_largest_size(self, store: SessionStore) -> None:
        store.open_session(KEY, now=NOON)
        with pytest.raises(InvalidRequest, match="settings"):
            store.patch(KEY, settings={"a": "x" * LARGEST_SETTINGS}, now=NOON)


class TestReset:
    def test_it_begins_anew_and_keeps_label_and_settings(self, store: SessionStore) -> None:
        turn(store, "hello", "hi")
        old = store.patch(KEY, label="ours", settings={"model": "a/b"}, now=NOON)
        store.note_facts(KEY, {"lastTo": "x"}, now=NOON)
        new = store.reset(KEY, reason="new", now=later(1))
        assert new.id != old.id
        assert (new.key, new.label, new.settings, new.facts, new.model) == (
            KEY.short, "ours", {"model": "a/b"}, {"lastTo": "x"}, "stub/m",
        )  # fmt: skip
        assert (new.messages, new.input_tokens, new.context_tokens, new.title) == (0, 0, 0, "")
        assert store.find(KEY) == new
        assert store.history(KEY, limit_tokens=1_000) == []

    def test_what_was_said_before_is_found_by_its_id(self, store: SessionStore) -> None:
        turn(store, "hello", "hi")
        old = store.find(KEY)
        assert old is not None
        new = store.reset(KEY, reason="new", now=later(1))
        turn(store, "again", "yes", minutes=2)
        archived = store.find_by_id(old.id)
        assert archived is not None
        assert (archived.key, archived.archived_at, archived.archive_reason) == (
            KEY.short, later(1), "new",
        )  # fmt: skip
        said = store.messages(old.id, limit=10)
        assert [line.message for line in said] == [user("hello"), assistant("hi")]
        assert [run.status for run in store.runs(old.id)] == ["done"]
        assert [each.id for each in store.incarnations(KEY)] == [new.id, old.id]

    def test_an_answer_that_comes_after_it_goes_to_the_old_one(self, store: SessionStore) -> None:
        run = begin(store, "hello")
        new = store.reset(KEY, reason="reset", now=later(1))
        assert store.finish_run(run, text="late", usage=USAGE, status=RunStatus.DONE, now=later(2))
        note = store.append(
            KEY, role="assistant", message=assistant("x"), kind="note", now=later(2), run=run
        )
        assert store.messages(KEY, limit=10) == []
        assert [line.message for line in store.messages(run.session_id, limit=10)] == [
            user("hello"), assistant("late"), assistant("x"),
        ]  # fmt: skip
        assert store.message(note.id) == note
        assert store.find(KEY) == new

    def test_a_session_that_is_not_there_is_made(self, store: SessionStore) -> None:
        assert store.reset(KEY, reason="new", now=NOON) == store.find(KEY)
        assert store.incarnations(KEY) == [store.find(KEY)]

    def test_many_in_a_row_each_leave_one_behind(self, store: SessionStore) -> None:
        ids = [store.reset(KEY, reason="new", now=NOON).id for _ in range(5)]
        assert [each.id for each in store.incarnations(KEY)] == ids[::-1]
        assert len(store.page().sessions) == store.list().total == 1


class TestTheEnd:
    def test_an_archived_session_leaves_its_key_free(self, store: SessionStore) -> None:
        assert store.archive(KEY, now=NOON) is None
        turn(store, "hello", "hi")
        archived = store.archive(KEY, now=later(1), reason="idle")
        assert archived is not None
        assert (archived.key, archived.archive_reason) == (KEY.short, "idle")
        assert store.find(KEY) is None
        assert store.page().sessions == store.list().sessions == ()
        turn(store, "anew", "hi")
        assert [line.message["content"] for line in store.transcript(KEY)] == ["anew", "hi"]

    def test_the_transcript_of_a_deleted_one_can_be_kept(self, store: SessionStore) -> None:
        turn(store, "hello", "hi")
        session = store.find(KEY)
        assert session is not None
        assert store.delete(KEY, keep_transcript=True)
        assert not store.delete(KEY, keep_transcript=True)
        assert len(store.messages(session.id, limit=10)) == 2
        assert store.delete_by_id(session.id)
        assert not store.delete_by_id(session.id)
        assert store.messages(session.id, limit=10) == []
        assert store._database.read(
            lambda tx: tx.execute("SELECT (SELECT count(*) FROM messages), count(*) FROM runs").get
        ) == (0, 0)
