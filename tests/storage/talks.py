"""What tests of sessions share: a store in memory, and a turn in it."""

from datetime import datetime, timedelta

from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.migrations import new_database
from appliance.storage.sessions import Message, Run, RunStatus, SessionStore
from appliance.storage.sessions_schema import SCHEMA
from tests.books import NOON

KEY = SessionKey("acme", "main", "room")
OTHER = SessionKey("acme", "main", "other")
USAGE = TokenUsage(input=10, cache_read=5, cache_write=2, output=3, reasoning=1)


def later(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def store_in_memory() -> SessionStore:
    connection = Connection(":memory:")
    connection.deserialize("main", new_database(SCHEMA))
    connection.execute("PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON").fetchall()
    return SessionStore(Database(connection, kind="sessions", path=":memory:", wal=-1))


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def begin(store: SessionStore, said: str, *, key: SessionKey = KEY, minutes: int = 0) -> Run:
    return store.begin_run(
        key, [user(said)], request_id="req_1", model="stub/m", now=later(minutes)
    )


def turn(
    store: SessionStore,
    said: str,
    answered: str,
    *,
    key: SessionKey = KEY,
    status: RunStatus = RunStatus.DONE,
    minutes: int = 0,
) -> Run:
    run = begin(store, said, key=key, minutes=minutes)
    store.finish_run(run, text=answered, usage=USAGE, status=status, now=later(minutes))
    return run
