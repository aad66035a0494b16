"""A request that is sent again is recognised, also by the next process."""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.storage import requests
from appliance.storage.requests import RequestLog, Seen
from appliance.storage.sessions import SessionStore
from tests.books import NOON, directory
from tests.storage.talks import later, store_in_memory

DAY = timedelta(hours=24)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[RequestLog]:
    store = await SessionStore.open(directory(tmp_path), now=NOON)
    yield store.requests
    await store.close()


def begin(log: RequestLog, key: str, *, minutes: int = 0, space: str = "chat") -> Seen | None:
    return log.begin(space, key, fingerprint=b"f", run_id=f"run {key}", now=later(minutes))


async def test_the_second_of_a_key_hears_of_the_first(log: RequestLog) -> None:
    assert begin(log, "a") is None
    first = Seen("run a", b"f", None, NOON, interrupted=False)
    again = log.begin("chat", "a", fingerprint=b"other", run_id="other", now=later(1))
    assert again == log.find("chat", "a") == log.find_run("run a") == first
    assert log.finish("chat", "a", b"answer", now=later(2))
    done = begin(log, "a", minutes=3)
    assert done is not None
    assert (done.outcome, done.interrupted) == (b"answer", False)


async def test_spaces_do_not_share_keys(log: RequestLog) -> None:
    assert begin(log, "a") is None
    assert begin(log, "a", space="agent", minutes=1) is None
    newest = log.find_run("run a")
    assert newest is not None
    assert newest.started_at == later(1)
    assert not log.finish("send", "a", b"x", now=NOON)
    assert log.find("send", "a") is None


async def test_a_refused_request_can_be_forgotten(log: RequestLog) -> None:
    begin(log, "a")
    log.forget("chat", "a")
    assert begin(log, "a") is None


async def test_a_day_later_the_key_is_new_unless_it_still_runs(log: RequestLog) -> None:
    begin(log, "done")
    begin(log, "running")
    log.finish("chat", "done", b"", now=NOON)
    day = 24 * 60
    assert begin(log, "done", minutes=day) is not None
    assert begin(log, "done", minutes=day + 1) is None
    assert begin(log, "running", minutes=day + 1) is not None


async def test_what_is_old_is_cleared_away_with_each_new_one(log: RequestLog) -> None:
    for number in range(30):
        begin(log, str(number))
        log.finish("chat", str(number), b"", now=NOON)
    for number in range(4):
        begin(log, f"new {number}", minutes=24 * 60 + 1)
    count = "SELECT count(*) FROM requests"
    assert log._database.read(lambda tx: tx.execute(count).get) == 4
    assert log.prune(later(10**5)) == 0
    for number in range(4):
        log.finish("chat", f"new {number}", b"", now=NOON)
    assert log.prune(later(10**5)) == 4


async def test_beyond_the_cap_the_oldest_gives_way(
    log: RequestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MOST_REQUESTS", 5)
    for number in range(9):
        begin(log, str(number), minutes=number)
        if number == 6:
            log.forget("chat", "6")
    kept = [number for number in range(9) if log.find("chat", str(number)) is not None]
    assert kept == [3, 4, 5, 7, 8]


async def test_half_a_character_is_refused(log: RequestLog) -> None:
    with pytest.raises(InvalidRequest, match="idempotencyKey"):
        begin(log, "\ud83d")


async def test_what_a_dead_process_left_is_interrupted(tmp_path: Path) -> None:
    store = await SessionStore.open(directory(tmp_path / "live"), now=NOON)
    for key in ("done", "running"):
        begin(store.requests, key)
    store.requests.finish("chat", "done", b"answer", now=NOON)
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    await store.close()
    store = await SessionStore.open(directory(tmp_path / "copy"), now=later(1))
    done, running = (store.requests.find("chat", key) for key in ("done", "running"))
    assert done is not None
    assert running is not None
    assert (done.interrupted, done.outcome) == (False, b"answer")
    assert (running.interrupted, running.outcome) == (True, None)
    assert store.requests.mark_interrupted() == 0
    await store.close()
    store = await SessionStore.open(directory(tmp_path / "copy"), now=NOON + 2 * DAY)
    assert store.requests.find("chat", "done") is None
    await store.close()


async def test_one_tenants_requests_are_not_in_anothers_log(tmp_path: Path) -> None:
    stores = [await SessionStore.open(directory(tmp_path / name), now=NOON) for name in ("a", "b")]
    begin(stores[0].requests, "key")
    assert stores[1].requests.find("chat", "key") is None
    assert stores[1].requests.find_run("run key") is None
    assert not stores[1].requests.finish("chat", "key", b"x", now=NOON)
    assert begin(stores[1].requests, "key") is None
    for store in stores:
        await store.close()


DEEDS = st.lists(
    st.tuples(st.sampled_from(["begin", "finish", "forget"]), st.sampled_from("abc")), max_size=30
)


@settings(max_examples=60)
@given(DEEDS)
def test_each_key_is_begun_once(deeds: list[tuple[str, str]]) -> None:
    store = store_in_memory()
    log = store.requests
    known: dict[str, bytes | None] = {}
    for number, (deed, key) in enumerate(deeds):
        match deed:
            case "begin":
                seen = begin(log, key, minutes=number)
                assert (seen is None) == (key not in known)
                assert seen is None or seen.outcome == known[key]
                known.setdefault(key, None)
            case "finish":
                outcome = str(number).encode()
                assert log.finish("chat", key, outcome, now=NOON) == (key in known)
                if key in known:
                    known[key] = outcome
            case _:
                log.forget("chat", key)
                known.pop(key, None)
    store._database._connection.close()
