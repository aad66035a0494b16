"""A turn in rounds: each is part of the conversation from the moment it is kept."""

from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.storage.session_rows import Run, RunStatus
from appliance.storage.session_turns import SessionTurns
from appliance.storage.sessions import SessionStore
from tests.books import NOON
from tests.storage.talks import store_in_memory

KEY = SessionKey("acme", "main", "work")
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "x", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "done"}
LIMIT = 100_000


def begun(store: SessionStore, text: str = "go") -> Run:
    said = [{"role": "user", "content": text}]
    return store.begin_run(KEY, said, request_id="r", model="m", now=NOON)


def roles(store: SessionStore, **more: str) -> list[object]:
    return [m["role"] for m in store.history(KEY, limit_tokens=LIMIT, **more)]  # type: ignore[arg-type]  # but_run only


def test_a_session_store_keeps_turns() -> None:
    assert issubclass(SessionStore, SessionTurns)


def test_a_round_is_part_of_the_conversation_before_the_turn_ends() -> None:
    store = store_in_memory()
    run = begun(store)
    assert roles(store) == []

    ids = store.add_round(run, [(CALLING, {"stopReason": "toolUse"}), (RESULT, None)], now=NOON)

    assert len(set(ids)) == 2
    assert roles(store) == ["user", "assistant", "tool"]


def test_the_turn_under_way_can_be_left_out() -> None:
    store = store_in_memory()
    run = begun(store)
    store.add_round(run, [(CALLING, None), (RESULT, None)], now=NOON)

    assert roles(store, but_run=run.id) == []


def test_after_a_crash_what_was_done_is_known_and_what_was_not_answered_is_said_to_be_so() -> None:
    store = store_in_memory()
    store.add_round(begun(store), [(CALLING, None)], now=NOON)
    store.mark_crashed(now=NOON)

    history = store.history(KEY, limit_tokens=LIMIT)

    assert [m["role"] for m in history] == ["user", "assistant", "tool"]
    assert "interrupted" in str(history[-1]["content"])


def test_a_turn_that_did_something_stays_though_it_has_no_answer() -> None:
    store = store_in_memory()
    run = begun(store)
    store.add_round(run, [(CALLING, None), (RESULT, None)], now=NOON)
    store.finish_run(run, text="", usage=TokenUsage(), status=RunStatus.FAILED, now=NOON)

    assert roles(store) == ["user", "assistant", "tool"]


def test_nothing_is_kept_of_a_session_that_was_deleted_meanwhile() -> None:
    store = store_in_memory()
    run = begun(store)
    store.delete(KEY)

    assert store.add_round(run, [(CALLING, None)], now=NOON) == []
    assert roles(store) == []


def test_a_result_without_its_call_is_left_out() -> None:
    store = store_in_memory()
    run = begun(store)
    store.add_round(run, [(RESULT, None)], now=NOON)

    assert roles(store) == ["user"]


def test_calls_of_the_same_id_in_two_turns_keep_their_own_results() -> None:
    store = store_in_memory()
    for number in ("one", "two"):
        run = begun(store, number)
        store.add_round(run, [(CALLING, None), ({**RESULT, "content": number}, None)], now=NOON)
        store.finish_run(run, text="ok", usage=TokenUsage(), status=RunStatus.DONE, now=NOON)

    results = [m["content"] for m in store.history(KEY, limit_tokens=LIMIT) if m["role"] == "tool"]

    assert results == ["one", "two"]
