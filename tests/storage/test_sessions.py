"""Sessions: what was said comes back, whole and only to whom it belongs."""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.storage import session_context, transcripts
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.migrations import new_database
from appliance.storage.sessions import FILE, Message, RunStatus, SessionStore
from appliance.storage.sessions_schema import SCHEMA
from tests.books import NOON, directory

KEY = SessionKey("acme", "main", "room")
USAGE = TokenUsage(input=10, cache_read=5, output=3, reasoning=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    store = await SessionStore.open(directory(tmp_path), now=NOON)
    yield store
    await store.close()


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def turn(
    store: SessionStore,
    said: str,
    answered: str,
    *,
    key: SessionKey = KEY,
    status: RunStatus = RunStatus.DONE,
    minutes: int = 0,
) -> None:
    now = NOON + timedelta(minutes=minutes)
    run = store.begin_run(key, [user(said)], request_id="req_1", model="stub/mock", now=now)
    store.finish_run(run, text=answered, usage=USAGE, status=status, now=now)


class TestTurns:
    async def test_a_turn_is_kept_with_its_answer(self, store: SessionStore) -> None:
        turn(store, "hello", "hi")
        assert [(line.seq, line.message, line.status) for line in store.transcript(KEY)] == [
            (1, user("hello"), RunStatus.DONE),
            (2, assistant("hi"), RunStatus.DONE),
        ]
        session = store.find(KEY)
        assert session is not None
        assert (session.key, session.agent, session.title) == ("agent:main:room", "main", "hello")
        assert (session.messages, session.input_tokens, session.output_tokens) == (2, 15, 4)
        assert (session.created_at, session.updated_at) == (NOON, NOON)

    async def test_what_was_said_is_kept_before_it_is_answered(self, store: SessionStore) -> None:
        store.begin_run(KEY, [user("hello")], request_id="r", model="m", now=NOON)
        (line,) = store.transcript(KEY)
        assert (line.message, line.status) == (user("hello"), RunStatus.RUNNING)

    async def test_a_message_keeps_every_field(self, store: SessionStore) -> None:
        message: Message = {
            "role": "user",
            "name": "ada",
            "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}],
            "odd": [1, None, True, 1.5],
        }
        store.begin_run(KEY, [message], request_id="r", model="m", now=NOON)
        assert store.transcript(KEY)[0].message == message

    async def test_half_a_character_is_refused_and_nothing_is_kept(
        self, store: SessionStore
    ) -> None:
        with pytest.raises(InvalidRequest, match="surrogate"):
            store.begin_run(
                KEY, [user("fine"), user("\ud83d")], request_id="r", model="m", now=NOON
            )
        assert store.find(KEY) is None

    async def test_half_a_character_of_the_model_costs_only_itself(
        self, store: SessionStore
    ) -> None:
        turn(store, "hello", "hi \ud83d there")
        assert store.transcript(KEY)[1].message == assistant("hi ? there")

    async def test_a_deleted_session_takes_no_late_answer(self, store: SessionStore) -> None:
        run = store.begin_run(KEY, [user("hello")], request_id="r", model="m", now=NOON)
        assert store.delete(KEY)
        assert not store.finish_run(run, text="late", usage=USAGE, status=RunStatus.DONE, now=NOON)
        assert store.find(KEY) is None
        assert store.transcript(KEY) == []
        assert not store.delete(KEY)

    async def test_a_session_of_the_same_name_starts_empty(self, store: SessionStore) -> None:
        turn(store, "old", "old answer")
        store.delete(KEY)
        turn(store, "new", "new answer")
        assert store.history(KEY, limit_tokens=1_000) == [user("new"), assistant("new answer")]
        assert [line.seq for line in store.transcript(KEY)] == [1, 2]

    async def test_the_title_is_how_the_first_words_began(self, store: SessionStore) -> None:
        turn(store, "  two\n\nlines " + "x" * 100, "")
        session = store.find(KEY)
        assert session is not None
        assert session.title == ("two lines " + "x" * 100)[:80]


class TestCrash:
    async def test_runs_that_a_dead_process_left_are_marked(self, tmp_path: Path) -> None:
        store = await SessionStore.open(directory(tmp_path / "live"), now=NOON)
        turn(store, "first", "answer")
        store.begin_run(KEY, [user("second")], request_id="r", model="m", now=NOON)
        shutil.copytree(tmp_path / "live", tmp_path / "copy")
        await store.close()
        later = NOON + timedelta(hours=1)
        store = await SessionStore.open(directory(tmp_path / "copy"), now=later)
        assert [line.status for line in store.transcript(KEY)] == ["done", "done", "crashed"]
        assert store.mark_crashed(now=later) == 0
        await store.close()


class TestHistory:
    async def test_it_is_the_latest_turns_that_fit_oldest_first(self, store: SessionStore) -> None:
        for number in range(5):
            turn(store, f"question {number}", f"answer {number}")
        # {"role":"user","content":"question 0"} is 38 bytes, the answer 41: 10 + 11 tokens.
        assert store.history(KEY, limit_tokens=42) == [
            user("question 3"),
            assistant("answer 3"),
            user("question 4"),
            assistant("answer 4"),
        ]

    async def test_a_turn_is_taken_whole_or_not_at_all(self, store: SessionStore) -> None:
        turn(store, "question 0", "answer 0")
        turn(store, "question 1", "answer 1")
        for limit in range(21, 42):
            assert store.history(KEY, limit_tokens=limit) == [
                user("question 1"),
                assistant("answer 1"),
            ]
        for limit in range(21):
            assert store.history(KEY, limit_tokens=limit) == []

    async def test_what_was_never_answered_is_left_out(self, store: SessionStore) -> None:
        turn(store, "one", "answered")
        turn(store, "two", "", status=RunStatus.FAILED)
        turn(store, "three", "cut sh", status=RunStatus.CANCELLED)
        store.begin_run(KEY, [user("four")], request_id="r", model="m", now=NOON)
        assert store.history(KEY, limit_tokens=1_000) == [
            user("one"),
            assistant("answered"),
            user("three"),
            assistant("cut sh"),
        ]
        assert len(store.transcript(KEY)) == 6

    async def test_a_session_nobody_began_has_none(self, store: SessionStore) -> None:
        assert store.history(KEY, limit_tokens=1_000) == []

    async def test_reading_leaves_no_transaction_open(
        self, store: SessionStore, tmp_path: Path
    ) -> None:
        for number in range(5):
            turn(store, f"question {number}", f"answer {number}")
        store.history(KEY, limit_tokens=25)
        assert store._database.read(lambda tx: tx.txn_state()) == apsw.SQLITE_TXN_NONE


class TestListing:
    async def test_pages_follow_each_other_last_used_first(self, store: SessionStore) -> None:
        for number in range(7):
            key = SessionKey("acme", "main", f"room {number}")
            turn(store, "hello", "hi", key=key, minutes=number // 2)
        seen: list[str] = []
        cursor = None
        for _ in range(3):
            page = store.page(limit=3, cursor=cursor)
            seen += [session.key.removeprefix("agent:main:room ") for session in page.sessions]
            cursor = page.cursor
        assert cursor is None
        assert seen == ["6", "5", "4", "3", "2", "1", "0"]

    async def test_a_page_that_ends_with_the_last_one_has_no_cursor(
        self, store: SessionStore
    ) -> None:
        turn(store, "hello", "hi")
        assert store.page(limit=1).cursor is None

    async def test_a_word_is_looked_for_in_keys_and_titles(self, store: SessionStore) -> None:
        turn(store, "About 100% of IT", "x", key=SessionKey("acme", "main", "one"))
        turn(store, "nothing", "x", key=SessionKey("acme", "helper", "two"))
        for query, found in (
            ("about 100%", ["agent:main:one"]),
            ("HELPER", ["agent:helper:two"]),
            ("%", ["agent:main:one"]),
            ("_", []),
            ("", ["agent:helper:two", "agent:main:one"]),
        ):
            assert [session.key for session in store.page(query=query).sessions] == found

    @pytest.mark.parametrize(
        "cursor", ["", "1", "x.1", "1.x", "-1.1", "9" * 30 + ".1", "1.1 ", "1.1; DROP", "\u0661.1"]
    )
    async def test_a_made_up_cursor_is_refused(self, store: SessionStore, cursor: str) -> None:
        with pytest.raises(InvalidRequest, match="cursor"):
            store.page(cursor=cursor)

    async def test_a_long_transcript_comes_in_pages(self, store: SessionStore) -> None:
        for number in range(4):
            turn(store, str(number), "x")
        assert [line.seq for line in store.transcript(KEY, after=2, limit=3)] == [3, 4, 5]


async def test_one_tenants_sessions_are_not_in_anothers_store(tmp_path: Path) -> None:
    stores = [await SessionStore.open(directory(tmp_path / name), now=NOON) for name in ("a", "b")]
    turn(stores[0], "secret", "answer")
    assert stores[1].find(KEY) is None
    assert stores[1].history(KEY, limit_tokens=10**6) == []
    assert stores[1].transcript(KEY) == []
    assert stores[1].page().sessions == ()
    assert not stores[1].delete(KEY)
    assert len(stores[0].transcript(KEY)) == 2
    for store in stores:
        await store.close()


async def test_every_query_of_a_turn_finds_its_rows_by_index(tmp_path: Path) -> None:
    database = await Database.open(directory(tmp_path), FILE, SCHEMA)

    def scans(tx: Connection) -> list[str]:
        found = []
        for query, values in (
            (session_context.HISTORY, (1, 1, None)),
            (transcripts.TRANSCRIPT, ("k", 0, 1)),
            ("UPDATE runs SET status = 'crashed' WHERE status = 'running'", ()),
            ("DELETE FROM sessions WHERE key = ?", ("k",)),
        ):
            plan = tx.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
            found += [str(row[3]) for row in plan if str(row[3]).startswith("SCAN")]
        return found

    assert database.read(scans) == []
    await database.close()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=60)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
async def test_any_text_comes_back_as_it_was(turns: list[tuple[str, str]]) -> None:
    connection = Connection(":memory:")
    connection.deserialize("main", new_database(SCHEMA))
    store = SessionStore(Database(connection, kind="sessions", path=":memory:", wal=-1))
    expected: list[Message] = []
    for said, answered in turns:
        turn(store, said, answered)
        expected.append(user(said))
        if answered:
            expected.append(assistant(answered))
    assert [line.message for line in store.transcript(KEY)] == expected
    connection.close()
