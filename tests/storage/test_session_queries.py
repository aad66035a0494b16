"""Listings: newest first, by index, with totals that are right."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import SessionKey
from appliance.storage import session_context, session_queries, transcripts
from appliance.storage.runs import RUNS
from appliance.storage.session_queries import FARTHEST_USE, LIST, LOOK, PAGE, TOTAL
from appliance.storage.sessions import SessionFilter, SessionStore
from tests.books import NOON
from tests.storage.talks import begin, later, store_in_memory


@pytest.fixture
def store() -> Iterator[SessionStore]:
    store = store_in_memory()
    yield store
    store._database._connection.close()


def key(number: int, agent: str = "main") -> SessionKey:
    return SessionKey("acme", agent, f"room {number}")


def rooms(store: SessionStore, filters: SessionFilter) -> tuple[list[str], int]:
    found = store.list(filters=filters)
    return [each.key.rpartition(" ")[2] for each in found.sessions], found.total


def test_the_last_used_comes_first(store: SessionStore) -> None:
    for number in range(7):
        begin(store, "hello", key=key(number), minutes=number // 2)
    assert rooms(store, SessionFilter()) == (list("6543210"), 7)
    assert rooms(store, SessionFilter(limit=3, offset=2)) == (list("432"), 7)
    assert rooms(store, SessionFilter(limit=3, offset=6)) == (["0"], 7)
    assert rooms(store, SessionFilter(limit=3, offset=7)) == ([], 7)
    assert rooms(store, SessionFilter(limit=0)) == ([], 7)


def test_every_condition_holds_together_with_the_others(store: SessionStore) -> None:
    for number in range(6):
        agent = "pirate" if number % 2 else "main"
        begin(store, f"word{number}", key=key(number, agent), minutes=number)
    store.patch(key(2), label="Two", settings={"spawnedBy": "agent:main:room 0"}, now=later(2))
    store.patch(key(4), settings={"archived": True}, now=later(4))
    for filters, found in (
        (SessionFilter(agent="pirate"), "531"),
        (SessionFilter(agent="nobody"), ""),
        (SessionFilter(active_since=later(3)), "53"),
        (SessionFilter(active_since=later(3), archived=None), "543"),
        (SessionFilter(archived=True), "4"),
        (SessionFilter(archived=None), "543210"),
        (SessionFilter(label="Two"), "2"),
        (SessionFilter(spawned_by="agent:main:room 0"), "2"),
        (SessionFilter(search="WORD3"), "3"),
        (SessionFilter(search="two"), "2"),
        (SessionFilter(search="pirate:"), "531"),
        (SessionFilter(search="pirate:", active_since=later(2)), "53"),
        (SessionFilter(search="%"), ""),
    ):
        assert rooms(store, filters) == (list(found), len(found))
        one = SessionFilter(
            limit=1, agent=filters.agent, active_since=filters.active_since, search=filters.search,
            label=filters.label, spawned_by=filters.spawned_by, archived=filters.archived,
        )  # fmt: skip
        assert rooms(store, one) == (list(found[:1]), len(found))


def test_half_a_character_is_refused(store: SessionStore) -> None:
    for filters in (
        SessionFilter(search="\ud83d"), SessionFilter(label="\ud83d"), SessionFilter(agent="\ud83d")
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match="surrogate"):
            store.list(filters=filters)
    with pytest.raises(InvalidRequest, match="surrogate"):
        store.page(query="\ud83d")


def test_a_word_is_looked_for_among_the_last_used(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_queries, "FARTHEST", 3)
    for number in range(5):
        begin(store, "hello", key=key(number), minutes=number)
    assert rooms(store, SessionFilter(search="hello")) == (list("432"), 3)
    assert rooms(store, SessionFilter())[1] == 5


def test_no_listing_looks_at_every_session_or_at_a_message(store: SessionStore) -> None:
    names = {
        "since": 0, "put_away": 0, "agent": None, "label": None, "spawned_by": None,
        "search": "", "limit": 1, "offset": 0,
    }  # fmt: skip
    for query, values in (
        (LIST, names),
        (LOOK, names),
        (PAGE, (1, 1, "", "", "", 1)),
        (FARTHEST_USE, (5,)),
        (TOTAL, names),
        (RUNS, (1, 1)),
        (session_context.HISTORY, (1, 1, None)),
        (transcripts.BACKWARDS, (1, 1, 1, 1, 1)),
        (transcripts.FORWARDS, (1, 1, 1, 1, 1)),
        ("SELECT 1 FROM sessions WHERE label = ? AND archived_ns IS NULL", ("x",)),
        ("SELECT 1 FROM sessions WHERE live_key = ? AND archived_ns IS NOT NULL", ("x",)),
        ("SELECT 1 FROM messages WHERE public_id = ?", ("x",)),
    ):
        plan = store._database._connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
        steps = [str(row[3]) for row in plan]
        assert not any("TEMP B-TREE" in step for step in steps), (query, steps)
        for step in steps:
            assert "SCAN" not in step or "session_counts" in step or "INDEX" in step, (query, steps)
        assert query in {session_context.HISTORY, transcripts.BACKWARDS, transcripts.FORWARDS} or (
            "messages" not in "".join(steps) or "public_id" in query
        )


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "reset", "archive", "delete", "put away", "bring back", "keep"]),
        st.integers(0, 3),
        st.sampled_from(["main", "pirate"]),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(DEEDS)
def test_totals_are_right_whatever_was_done(deeds: list[tuple[str, int, str]]) -> None:
    store = store_in_memory()
    live: dict[str, bool] = {}  # put away or not
    for deed, number, agent in deeds:
        which = key(number, agent)
        match deed:
            case "begin":
                begin(store, "hello", key=which)
                live.setdefault(which.short, False)
            case "reset":
                store.reset(which, reason="new", now=NOON)
                live.setdefault(which.short, False)
            case "archive":
                assert (store.archive(which, now=NOON) is not None) == (which.short in live)
                live.pop(which.short, None)
            case "delete" | "keep":
                kept = deed == "keep"
                assert store.delete(which, keep_transcript=kept) == (which.short in live)
                live.pop(which.short, None)
            case _ if which.short in live:
                live[which.short] = deed == "put away"
                setting = True if live[which.short] else None
                store.patch(which, settings={"archived": setting}, now=NOON)
    for agent_or_all in (None, "main", "pirate"):
        for archived in (None, True, False):
            expected = sum(
                1
                for short, put_away in live.items()
                if archived in {None, put_away}
                and (agent_or_all is None or short.startswith(f"agent:{agent_or_all}:"))
            )
            wanted = SessionFilter(limit=0, agent=agent_or_all, archived=archived)
            assert store.list(filters=wanted).total == expected
    store._database._connection.close()
