"""Turns that wait for their caller, found again by its calls."""

from datetime import timedelta
from pathlib import Path

import pytest

from appliance.model.session_keys import SessionKey
from appliance.storage.database import Database
from appliance.storage.migrations import Schema
from appliance.storage.paused_calls import KEPT_NS, Resumption
from appliance.storage.sessions import FILE, Message, Run, RunStatus, SessionStore
from appliance.storage.sessions_schema import SCHEMA
from tests.books import NOON, directory
from tests.storage.talks import USAGE, assistant, store_in_memory, user

KEY = SessionKey("acme", "main", "openai:1")
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
CALLING: Message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
MINE = "tenant:tok_1"


@pytest.fixture
def store() -> SessionStore:
    return store_in_memory()


def paused(store: SessionStore, *calls: str) -> Run:
    # What its caller sent may hold answers of others: they are none of this turn's.
    said = [user("hi"), assistant("hello"), user("weather?")]
    run = store.begin_run(KEY, said, request_id="r", model="m", now=NOON)
    store.add_round(run, [(CALLING, {"stopReason": "toolUse"})], now=NOON)
    store.pause(run, calls or ["c1"], owner=MINE, digest=b"said", now=NOON)
    return run


def test_what_the_agent_did_is_found_by_the_callers_call(store: SessionStore) -> None:
    run = paused(store)

    found = store.paused(["c1"], owner=MINE)

    assert found is not None
    assert (found.run, found.digest, found.session) == (run.id, b"said", KEY.short)
    assert store.own_rounds(found.run) == [(CALLING, {"stopReason": "toolUse"})]


def test_somebody_elses_and_unknown_calls_find_nothing(store: SessionStore) -> None:
    paused(store)

    assert store.paused(["c1"], owner="tenant:tok_2") is None
    assert store.paused(["c1"], owner="") is None
    assert store.paused(["other"], owner=MINE) is None
    assert store.paused(["c1", "other"], owner=MINE) is None
    assert store.paused([], owner=MINE) is None


def test_calls_of_two_turns_are_not_those_of_one(store: SessionStore) -> None:
    paused(store, "c1")
    paused(store, "c2")

    assert store.paused(["c1"], owner=MINE) is not None
    assert store.paused(["c1", "c2"], owner=MINE) is None


def test_they_are_forgotten_after_a_week(store: SessionStore) -> None:
    first = paused(store)
    resume(store, first)
    later = NOON + timedelta(microseconds=KEPT_NS / 1000 + 1)
    run = store.begin_run(KEY, [user("x")], request_id="r", model="m", now=later)

    store.pause(run, ["c2"], owner=MINE, digest=b"", now=later)

    assert store.paused(["c1"], owner=MINE) is None
    assert store.resumed(first.id, b"sun") is None


def test_they_go_with_their_session(store: SessionStore) -> None:
    run = paused(store)

    store.delete(KEY)

    assert store.paused(["c1"], owner=MINE) is None
    assert store.own_rounds(run.id) == []


def resume(store: SessionStore, before: Run, resumption: Resumption | None = None) -> Run:
    run = store.begin_run(
        KEY,
        [{"role": "tool", "tool_call_id": "c1", "content": "sun"}],
        request_id="r",
        model="m",
        now=NOON,
        resumption=resumption or Resumption(before.id, b"sun"),
    )
    store.finish_run(run, text="Sunny.", usage=USAGE, status=RunStatus.DONE, now=NOON)
    return run


def test_a_turn_that_went_on_is_known_by_the_answers_it_had(store: SessionStore) -> None:
    before = paused(store)
    after = resume(store, before)

    assert store.resumed(before.id, b"sun") == after.id
    assert store.resumed(before.id, b"rain") is None
    assert store.last_run(KEY) == after.id
    assert store.last_run(KEY, but_run=after.id) == before.id


def test_a_turn_that_takes_anothers_place_begins_with_its_rounds(store: SessionStore) -> None:
    before = paused(store)
    first = resume(store, before)

    again = resume(store, before, Resumption(before.id, b"sun", [(CALLING, None)], first.id))

    assert store.last_run(KEY, but_run=again.id) == before.id, "the first is not read any more"
    assert store.resumed(before.id, b"sun") == again.id
    own = [message for message, _ in store.own_rounds(again.id)]
    assert own == [CALLING, assistant("Sunny.")]
    told = [line.message["content"] for line in store.transcript(KEY)]
    assert told.count("Sunny.") == 2, "people still see both"


async def test_what_the_release_before_paused_is_nobodys(tmp_path: Path) -> None:
    older = await Database.open(directory(tmp_path), FILE, Schema("sessions", SCHEMA.steps[:4]))
    older.write(lambda tx: tx.execute("INSERT INTO paused_calls VALUES ('c1', 'run_1', 0)"))
    await older.close()

    store = await SessionStore.open(directory(tmp_path), now=NOON)

    assert store.paused(["c1"], owner="") is None
    run = paused(store)
    assert store.paused(["c1"], owner=MINE) is not None
    assert len(store.own_rounds(run.id)) == 1
    await store.close()
