"""Turns that wait for their caller, found again by its calls."""

from datetime import timedelta

import pytest

from appliance.model.session_keys import SessionKey
from appliance.storage.paused_calls import KEPT_NS
from appliance.storage.sessions import SessionStore
from tests.books import NOON
from tests.storage.talks import store_in_memory

KEY = SessionKey("acme", "main", "openai:1")
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.fixture
def store() -> SessionStore:
    return store_in_memory()


def paused(store: SessionStore) -> None:
    run = store.begin_run(
        KEY, [{"role": "user", "content": "hi"}], request_id="r", model="m", now=NOON
    )
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    store.add_round(run, [(calling, {"stopReason": "toolUse"})], now=NOON)
    store.pause(run, ["c1"], now=NOON)


def test_what_the_agent_did_is_found_by_the_callers_call(store: SessionStore) -> None:
    paused(store)

    assert store.paused_rounds(["c1"]) == [
        {"role": "assistant", "content": None, "tool_calls": [CALL]}
    ]


def test_unknown_calls_find_nothing(store: SessionStore) -> None:
    paused(store)

    assert store.paused_rounds(["other"]) == []
    assert store.paused_rounds([]) == []


def test_they_are_forgotten_after_a_week(store: SessionStore) -> None:
    paused(store)
    later = NOON + timedelta(microseconds=KEPT_NS / 1000 + 1)
    run = store.begin_run(
        KEY, [{"role": "user", "content": "x"}], request_id="r", model="m", now=later
    )

    store.pause(run, ["c2"], now=later)

    assert store.paused_rounds(["c1"]) == []


def test_they_go_with_their_session(store: SessionStore) -> None:
    paused(store)

    store.delete(KEY)

    assert store.paused_rounds(["c1"]) == []
