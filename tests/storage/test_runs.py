"""A run keeps how it went, and adds up what it used."""

from collections.abc import Iterator

import pytest

from appliance.model.usage import TokenUsage
from appliance.storage import runs
from appliance.storage.sessions import RunStatus, SessionStore
from tests.books import NOON
from tests.storage.talks import KEY, USAGE, begin, later, store_in_memory, turn, user


@pytest.fixture
def store() -> Iterator[SessionStore]:
    store = store_in_memory()
    yield store
    store._database._connection.close()


def test_a_run_has_the_id_that_its_client_gave(store: SessionStore) -> None:
    run = store.begin_run(
        KEY, [user("hello")], run_id="mine", meta={"idempotencyKey": "mine"}, source="chat",
        request_id="r", model="m", now=NOON,
    )  # fmt: skip
    assert (run.id, run.seq) == ("mine", 1)
    line = store.messages(run.session_id, limit=1)[0]
    assert (line.run, line.meta) == ("mine", {"idempotencyKey": "mine"})
    record = store.run("mine")
    assert record is not None
    assert (record.source, record.status, record.ended_at) == ("chat", RunStatus.RUNNING, None)
    again = store.begin_run(KEY, [user("x")], run_id="mine", request_id="r", model="m", now=NOON)
    assert again.id != "mine"
    assert [each.id for each in store.runs(KEY)].count("mine") == 1


def test_sums_are_kept_on_the_session(store: SessionStore) -> None:
    turn(store, "one", "1")
    run = begin(store, "two", minutes=1)
    store.finish_run(
        run, text="cut", usage=USAGE, status=RunStatus.CANCELLED, now=later(2),
        meta={"model": "m", "odd": "\ud83d"}, error="stopped \ud83d", context_tokens=7,
    )  # fmt: skip
    session = store.find(KEY)
    assert session is not None
    assert (session.input_tokens, session.output_tokens) == (34, 8)
    assert (session.cache_read_tokens, session.cache_write_tokens) == (10, 4)
    assert (session.context_tokens, session.aborted) == (7, True)
    assert (session.updated_at, session.last_interaction_at) == (later(2), later(1))
    last = store.messages(KEY, limit=1)[0]
    assert (last.meta, last.status) == ({"model": "m", "odd": "?"}, RunStatus.CANCELLED)
    first, second = store.runs(KEY)
    assert (first.status, second.status, second.error) == ("done", "cancelled", "stopped ?")
    assert (second.started_at, second.ended_at) == (later(1), later(2))
    assert (second.input_tokens, second.cache_read_tokens) == (17, 5)
    turn(store, "three", "3", minutes=3)
    session = store.find(KEY)
    assert session is not None
    assert (session.context_tokens, session.aborted) == (21, False)


def test_a_run_without_a_call_leaves_the_context_as_it_was(store: SessionStore) -> None:
    turn(store, "one", "1")
    run = begin(store, "two")
    store.finish_run(run, text="", usage=TokenUsage(), status=RunStatus.FAILED, now=NOON)
    session = store.find(KEY)
    assert session is not None
    assert session.context_tokens == 21


def test_a_heartbeat_is_no_use_of_the_session(store: SessionStore) -> None:
    turn(store, "hello", "hi")
    run = store.begin_run(
        KEY, [user("beat")], request_id="r", model="m", now=later(9), source=runs.HEARTBEAT
    )
    store.finish_run(run, text="ok", usage=USAGE, status=RunStatus.DONE, now=later(9))
    session = store.find(KEY)
    assert session is not None
    assert (session.updated_at, session.last_interaction_at) == (NOON, NOON)


def test_what_cron_says_is_use_but_no_person_spoke(store: SessionStore) -> None:
    store.begin_run(KEY, [user("x")], request_id="r", model="m", now=later(1), source="cron")
    session = store.find(KEY)
    assert session is not None
    assert (session.updated_at, session.last_interaction_at) == (later(1), None)


def test_the_newest_runs_come_oldest_first(store: SessionStore) -> None:
    ids = [turn(store, str(number), "x", minutes=number).id for number in range(4)]
    assert [run.id for run in store.runs(KEY, limit=2)] == ids[2:]
    assert store.runs("ses_none") == []
    assert store.run("run_none") is None
