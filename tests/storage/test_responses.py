"""What is kept of responses: found again, continued, expired, and never too much."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
import trio

from appliance.model.errors import InvalidRequest, QuotaExceeded, TooLarge
from appliance.storage import response_reading, response_threads
from appliance.storage.database import Database
from appliance.storage.response_rows import (
    Item,
    NewResponse,
    PageOf,
    ResponseState,
    ResponseStatus,
)
from appliance.storage.response_threads import Limits, Totals
from appliance.storage.responses import FILE, ResponseStore, page_of
from appliance.storage.responses_schema import SCHEMA
from tests.books import NOON, tenant_root
from tests.fakes.cancelling import each_cancellation

MONTH = timedelta(days=30)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResponseStore]:
    root = tenant_root(tmp_path / "acme")
    opened = await ResponseStore.open(root, now=NOON)
    try:
        yield opened
    finally:
        await opened.close()
        root.close()


def item(item_id: str, text: str = "", **more: Any) -> Item:
    return Item(item_id, msgspec.json.encode({"id": item_id, "text": text, **more}))


def body(response_id: str, *outputs: Item, status: str = "completed") -> bytes:
    head = msgspec.json.encode({"id": response_id, "status": status})[:-1]
    return head + b',"output":[' + b",".join(each.json for each in outputs) + b"]}"


def response(
    name: str, *, outputs: tuple[Item, ...] | None = None, inputs: int = 1, **more: Any
) -> NewResponse:
    shown = (item(f"{name}-out", "answer"),) if outputs is None else outputs
    values: dict[str, Any] = {
        "id": name,
        "status": ResponseStatus.COMPLETED,
        "model": "stub/mock",
        "body": body(name, *shown),
        "inputs": [item(f"{name}-in{number}", "question") for number in range(inputs)],
    }
    return NewResponse(**(values | more))


def ended(name: str, *outputs: Item, **more: Any) -> ResponseState:
    return ResponseState(status=ResponseStatus.COMPLETED, body=body(name, *outputs), **more)


def add(store: ResponseStore, new: NewResponse, *, now: datetime = NOON, **more: Any) -> None:
    store.add(new, now=now, expires=now + MONTH, **more)


def totals(store: ResponseStore) -> Totals:
    return store._database.read(response_threads.totals)


async def said(store: ResponseStore, name: str, *, now: datetime = NOON) -> list[str] | None:
    found = await store.context(name, now=now)
    return None if found is None else [each.id for each in found]


async def test_what_was_added_is_found_as_it_was(store: ResponseStore) -> None:
    new = response("resp_1", session="agent:main:x")

    add(store, new)

    found = store.find("resp_1", now=NOON)
    assert found is not None
    assert (found.body, found.session, found.created_at) == (new.body, "agent:main:x", NOON)
    assert (found.previous, found.conversation, found.has_events) == (None, None, False)


async def test_a_chain_gives_input_and_output_of_all_in_order(store: ResponseStore) -> None:
    add(store, response("a"))
    add(store, response("b", previous="a", inputs=2))
    add(store, response("c", previous="b"))

    assert await said(store, "c") == ["a-in0", "a-out", "b-in0", "b-in1", "b-out", "c-in0", "c-out"]


async def test_two_may_continue_the_same(store: ResponseStore) -> None:
    add(store, response("a"))
    add(store, response("b1", previous="a"))
    add(store, response("b2", previous="a"))

    assert await said(store, "b1") == ["a-in0", "a-out", "b1-in0", "b1-out"]
    assert await said(store, "b2") == ["a-in0", "a-out", "b2-in0", "b2-out"]


async def test_what_models_read_may_differ_from_what_is_shown(store: ResponseStore) -> None:
    shown = item("rs_1", "")
    sealed = item("rs_1", "", encrypted_content="ocm1.x")
    new = response("a", outputs=(shown, item("m", "hi")))
    hidden = item("otc_1", "what the agent did itself")

    add(store, _with(new, sealed, item("m", "hi"), hidden))

    found = await store.context("a", now=NOON)
    assert found is not None
    assert [each.json for each in found[1:]] == [sealed.json, item("m", "hi").json, hidden.json]
    kept = store.find("a", now=NOON)
    assert kept is not None
    assert b"ocm1" not in kept.body
    assert (await store.find_items(["rs_1"], now=NOON)) == {"rs_1": sealed.json}


def _with(new: NewResponse, *outputs: Item) -> NewResponse:
    return NewResponse(
        id=new.id,
        status=new.status,
        model=new.model,
        body=new.body,
        inputs=new.inputs,
        outputs=outputs,
    )


async def test_a_large_context_is_read_beside_the_loop(store: ResponseStore) -> None:
    large = item("big", "x" * 300_000)
    add(store, response("a", outputs=(large,)))
    add(store, response("b", previous="a"))

    assert await said(store, "b") == ["a-in0", "big", "b-in0", "b-out"]


async def test_a_chain_without_its_beginning_is_none(store: ResponseStore) -> None:
    add(store, response("a"))
    add(store, response("b", previous="a"))

    assert await store.delete("a", now=NOON)

    assert await said(store, "b") is None
    assert await said(store, "a") is None
    assert store.find("b", now=NOON) is not None


async def test_a_chain_has_an_end(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_reading, "LONGEST_CHAIN", 2)
    add(store, response("a"))
    add(store, response("b", previous="a"))
    add(store, response("c", previous="b"))

    assert await said(store, "b") is not None
    with pytest.raises(TooLarge):
        await store.context("c", now=NOON)


async def test_deleting_twice_finds_nothing(store: ResponseStore) -> None:
    add(store, response("a"))

    assert await store.delete("a", now=NOON)
    assert not await store.delete("a", now=NOON)
    assert store.find("a", now=NOON) is None
    assert (await store.find_items(["a-in0", "a-out"], now=NOON)) == {}
    assert totals(store) == Totals(0, 0, 0)


# Time


async def test_it_is_there_until_the_last_moment(store: ResponseStore) -> None:
    add(store, response("a"))
    last = NOON + MONTH - timedelta(microseconds=1)

    assert store.find("a", now=last) is not None
    assert store.find("a", now=NOON + MONTH) is None
    assert await said(store, "a", now=NOON + MONTH) is None
    assert store.input_items("a", PageOf(), now=NOON + MONTH) is None
    assert (await store.find_items(["a-out"], now=NOON + MONTH)) == {}
    assert not await store.delete("a", now=NOON + MONTH)


async def test_whoever_goes_on_keeps_what_was_before(store: ResponseStore) -> None:
    add(store, response("a"))
    add(store, response("b", previous="a"), now=NOON + timedelta(days=20))

    assert await said(store, "b", now=NOON + timedelta(days=40)) is not None
    assert store.find("a", now=NOON + timedelta(days=40)) is not None
    assert store.find("a", now=NOON + timedelta(days=50)) is None


async def test_what_expired_is_removed_a_few_rows_at_a_time(store: ResponseStore) -> None:
    for number in range(40):
        add(store, response(f"r{number}", previous=f"r{number - 1}" if number else None))
    assert totals(store).responses == 40
    after = NOON + 2 * MONTH

    left = []
    for number in range(4):
        add(store, response(f"new{number}"), now=after)
        left.append(totals(store).responses)

    assert left == [25, 10, 3, 4]


# Bounds


async def test_the_oldest_make_room(store: ResponseStore) -> None:
    limits = Limits(responses=3)
    for number in range(5):
        now = NOON + timedelta(minutes=number)
        add(store, response(f"r{number}"), now=now, limits=limits)

    assert [store.find(f"r{n}", now=NOON) is None for n in range(5)] == [True, True, *[False] * 3]


async def test_bytes_make_room_too(store: ResponseStore) -> None:
    limits = Limits(bytes=10_000)
    for number in range(5):
        large = response(f"r{number}", outputs=(item(f"o{number}", "x" * 4_000),))
        add(store, large, now=NOON + timedelta(minutes=number), limits=limits)

    assert totals(store).bytes <= 10_000
    assert store.find("r4", now=NOON) is not None


async def test_what_is_continued_or_under_way_does_not_make_room(store: ResponseStore) -> None:
    limits = Limits(responses=2)
    running = response(
        "bg", status=ResponseStatus.QUEUED, background=True, outputs=(), body=body("bg")
    )
    add(store, running)
    add(store, response("a"))

    with pytest.raises(QuotaExceeded):
        add(store, response("b", previous="a"), limits=limits)

    assert store.find("a", now=NOON) is not None
    assert store.find("bg", now=NOON) is not None


async def test_a_full_disk_quota_refuses_before_anything_changes(store: ResponseStore) -> None:
    store._room.told(left=10, refusal=None)  # type: ignore[attr-defined]

    with pytest.raises(QuotaExceeded):
        add(store, response("a"))

    assert store.find("a", now=NOON) is None
    assert totals(store) == Totals(0, 0, 0)


# Input items


@pytest.mark.parametrize(
    ("page", "ids", "more"),
    [
        (PageOf(), ["a-in4", "a-in3", "a-in2", "a-in1", "a-in0"], False),
        (PageOf(newest_first=False, limit=2), ["a-in0", "a-in1"], True),
        (PageOf(newest_first=False, limit=3, after="a-in1"), ["a-in2", "a-in3", "a-in4"], False),
        (PageOf(limit=2, after="a-in3"), ["a-in2", "a-in1"], True),
        (PageOf(limit=2, after="a-in0"), [], False),
    ],
)
async def test_input_is_listed_in_pages(
    store: ResponseStore,
    page: PageOf,
    ids: list[str],
    more: bool,  # noqa: FBT001 - a parameter
) -> None:
    add(store, response("a", inputs=5))

    found = store.input_items("a", page, now=NOON)

    assert found is not None
    assert [each.id for each in found.items] == ids
    assert found.has_more is more


async def test_a_page_after_nothing_known_is_refused(store: ResponseStore) -> None:
    add(store, response("a"))

    with pytest.raises(InvalidRequest, match="after"):
        store.input_items("a", PageOf(after="a-out"), now=NOON)


@pytest.mark.parametrize("limit", [0, 101])
def test_a_page_has_1_to_100_items(limit: int) -> None:
    with pytest.raises(InvalidRequest, match="limit"):
        page_of(limit=limit, order="asc", after=None)


async def test_the_latest_item_of_an_id_is_the_one(store: ResponseStore) -> None:
    first, second = item("same", "one"), item("same", "two")
    add(store, response("a", inputs=0, outputs=(first,)))
    add(store, response("b", inputs=0, outputs=(second,)))

    assert (await store.find_items(["same", "none"], now=NOON)) == {"same": second.json}


# Runs in the background


def queued(name: str = "bg", **more: Any) -> NewResponse:
    return response(
        name,
        status=ResponseStatus.QUEUED,
        background=True,
        body=body(name, status="queued"),
        **more,
    )


async def test_a_run_is_queued_goes_on_and_ends(store: ResponseStore) -> None:
    add(store, queued())
    begun = ResponseState(status=ResponseStatus.IN_PROGRESS, body=body("bg", status="in_progress"))
    store.update("bg", begun, now=NOON)
    last = (3, b'{"type":"response.completed"}')

    assert store.update("bg", ended("bg", item("m1", "done"), events=[last]), now=NOON)

    found = store.find("bg", now=NOON)
    assert found is not None
    assert (found.status, found.has_events) == (ResponseStatus.COMPLETED, True)
    assert await said(store, "bg") == ["bg-in0", "m1"]
    assert store.events("bg", after=-1, now=NOON) == [(3, b'{"type":"response.completed"}')]


async def test_a_deleted_run_stays_deleted(store: ResponseStore) -> None:
    add(store, queued())
    await store.delete("bg", now=NOON)

    assert not store.update("bg", ended("bg"), now=NOON)
    assert not store.add_events("bg", [(0, b"{}")])
    assert store.find("bg", now=NOON) is None


async def test_each_event_is_kept_once_and_in_order(store: ResponseStore) -> None:
    add(store, queued())

    assert store.add_events("bg", [(1, b"b"), (0, b"a")])
    assert store.add_events("bg", [(1, b"other"), (2, b"c")])

    assert store.events("bg", after=-1, now=NOON) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert store.events("bg", after=1, now=NOON) == [(2, b"c")]


async def test_events_have_a_bound(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.storage.responses.MOST_EVENT_BYTES", 10)
    add(store, queued())

    assert store.add_events("bg", [(0, b"x" * 10)])
    assert not store.add_events("bg", [(1, b"x")])

    assert [number for number, _ in store.events("bg", after=-1, now=NOON)] == [0]


async def test_events_go_a_day_after_the_end(store: ResponseStore) -> None:
    add(store, queued())
    store.add_events("bg", [(0, b"a")])
    store.update("bg", ended("bg"), now=NOON)

    add(store, response("x"), now=NOON + timedelta(hours=23))
    assert store.events("bg", after=-1, now=NOON) != []
    add(store, response("y"), now=NOON + timedelta(hours=24))

    found = store.find("bg", now=NOON + timedelta(hours=24))
    assert found is not None
    assert not found.has_events
    assert store.events("bg", after=-1, now=NOON) == []


async def test_what_a_process_left_under_way_has_failed(tmp_path: Path) -> None:
    root = tenant_root(tmp_path / "acme")
    first = await ResponseStore.open(root, now=NOON)
    add(first, queued())
    half = body("bg", item("m", status="in_progress"), status="in_progress")
    first.update("bg", ResponseState(status=ResponseStatus.IN_PROGRESS, body=half), now=NOON)
    add(first, queued("quiet"))
    first.add_events("bg", [(0, b'{"type":"response.created"}')])
    await first.close()

    second = await ResponseStore.open(root, now=NOON)

    found = second.find("bg", now=NOON)
    assert found is not None
    assert found.status is ResponseStatus.FAILED
    shown = msgspec.json.decode(found.body)
    assert shown["status"] == "failed"
    assert shown["error"]["code"] == "interrupted"
    assert [each["status"] for each in shown["output"]] == ["incomplete"]
    events = second.events("bg", after=0, now=NOON)
    assert [number for number, _ in events] == [1, 2]
    error, failed = [msgspec.json.decode(event) for _, event in events]
    assert (error["type"], error["sequence_number"]) == ("error", 1)
    assert error["error"]["code"] == error["code"] == "interrupted"
    assert failed == {"type": "response.failed", "sequence_number": 2, "response": shown}
    quiet = second.find("quiet", now=NOON)
    assert quiet is not None
    assert (quiet.status, quiet.has_events) == (ResponseStatus.FAILED, False)
    assert second.mark_interrupted(now=NOON) == 0
    await second.close()
    root.close()


async def test_a_crash_at_any_moment_leaves_all_of_a_change_or_nothing(tmp_path: Path) -> None:
    root = tenant_root(tmp_path / "acme")
    store = await ResponseStore.open(root, now=NOON)
    add(store, response("a"))
    add(store, queued(previous="a"))
    store.add_events("bg", [(0, b'{"type":"response.created"}')])
    # What a killed process leaves: the files as they are, the -wal among them.
    shutil.copytree(tmp_path / "acme", tmp_path / "crashed")
    store.update("bg", ended("bg", item("m")), now=NOON)
    shutil.copytree(tmp_path / "acme", tmp_path / "later")
    await store.close()
    root.close()

    for name, status, said_then in (
        ("crashed", ResponseStatus.FAILED, ["a-in0", "a-out", "bg-in0"]),
        ("later", ResponseStatus.COMPLETED, ["a-in0", "a-out", "bg-in0", "m"]),
    ):
        again = tenant_root(tmp_path / name)
        opened = await ResponseStore.open(again, now=NOON)
        found = opened.find("bg", now=NOON)
        assert found is not None
        assert found.status is status
        assert await said(opened, "bg") == said_then
        assert totals(opened).responses == 2
        await opened.close()
        again.close()


# Very many items


LARGE = 1_000  # items; written in several steps


async def keep(store: ResponseStore, new: NewResponse, limits: Limits | None = None) -> None:
    await store.keep(new, now=NOON, expires=NOON + MONTH, limits=limits)


@pytest.mark.parametrize("inputs", [1, LARGE])
async def test_what_is_kept_step_by_step_is_found_as_if_it_were_added_at_once(
    store: ResponseStore, inputs: int
) -> None:
    await keep(store, response("a", inputs=inputs))
    add(store, response("b", previous="a"))

    expected = [f"a-in{number}" for number in range(inputs)]
    assert await said(store, "b") == [*expected, "a-out", "b-in0", "b-out"]
    assert totals(store) == Totals(2, 0, response("a", inputs=inputs).size + response("b").size)


async def test_a_large_one_is_in_its_conversation_too(store: ResponseStore) -> None:
    store.conversations.create("conv", [], metadata=b"{}", now=NOON, expires=NOON + MONTH)

    await keep(store, response("a", inputs=LARGE, conversation="conv"))

    found = await store.conversations.context("conv", now=NOON)
    assert found is not None
    assert [each.id for each in found] == [*(f"a-in{n}" for n in range(LARGE)), "a-out"]


async def test_a_large_one_that_is_under_way_is_finished_later(store: ResponseStore) -> None:
    await keep(store, queued(inputs=LARGE))

    found = store.find("bg", now=NOON)
    assert found is not None
    assert found.status is ResponseStatus.QUEUED
    assert store.update("bg", ended("bg"), now=NOON)


async def test_nobody_finds_it_before_it_is_whole_and_others_go_on_meanwhile(
    store: ResponseStore,
) -> None:
    seen: list[object] = []

    async def look() -> None:
        for number in range(2):
            seen.append(store.find("a", now=NOON))
            add(store, response(f"other{number}"))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await keep(store, response("a", inputs=LARGE))

    assert seen == [None, None]
    assert totals(store).responses == 3


async def test_cancelled_anywhere_it_is_all_there_or_nothing_is(store: ResponseStore) -> None:
    whole = Totals(1, 0, response("a", inputs=LARGE).size)

    async for _ in each_cancellation(lambda: keep(store, response("a", inputs=LARGE))):
        found = store.find("a", now=NOON)
        assert totals(store) == (Totals(0, 0, 0) if found is None else whole)
        await store.delete("a", now=NOON)


async def test_what_cannot_be_kept_leaves_nothing(store: ResponseStore) -> None:
    await keep(store, response("a"))

    with pytest.raises(apsw.ConstraintError):
        await keep(store, response("a", inputs=LARGE))  # the id is taken

    assert totals(store) == Totals(1, 0, response("a").size)


async def test_a_process_that_died_leaves_no_half_of_one(tmp_path: Path) -> None:
    root = tenant_root(tmp_path / "acme")
    store = await ResponseStore.open(root, now=NOON)
    add(store, response("a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, store, response("b", inputs=LARGE))
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert totals(store).responses == 2
        shutil.copytree(tmp_path / "acme", tmp_path / "crashed")
    await store.close()
    root.close()

    again = tenant_root(tmp_path / "crashed")
    opened = await ResponseStore.open(again, now=NOON)
    assert totals(opened) == Totals(1, 0, response("a").size)
    assert opened.find("b", now=NOON) is None
    await opened.close()
    again.close()


async def turns_during(work: Callable[[], Awaitable[object]]) -> int:
    """How often others have their turn while ``work`` is done."""
    turns = 0
    async with trio.open_nursery() as nursery:

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        await work()
        found = turns - before
        nursery.cancel_scope.cancel()
    return found


async def test_very_many_items_are_removed_while_others_go_on(store: ResponseStore) -> None:
    await keep(store, response("a", inputs=LARGE))

    async def look() -> None:
        assert store.find("a", now=NOON) is None
        assert await store.find_items(["a-in0"], now=NOON) == {}

    async with trio.open_nursery() as nursery:

        async def delete() -> None:
            nursery.start_soon(look)
            assert await store.delete("a", now=NOON)

        turns = await turns_during(delete)

    assert turns
    assert totals(store) == Totals(0, 0, 0)


async def test_very_many_items_make_room_while_others_go_on(store: ResponseStore) -> None:
    await keep(store, response("a", inputs=LARGE))

    turns = await turns_during(lambda: keep(store, response("b"), limits=Limits(responses=1)))

    assert turns
    assert store.find("a", now=NOON) is None
    assert totals(store) == Totals(1, 0, response("b").size)


async def test_very_many_items_that_have_expired_go_a_few_with_each_write(
    store: ResponseStore,
) -> None:
    await keep(store, response("a", inputs=LARGE))
    later = NOON + 2 * MONTH

    writes = 0
    while totals(store).responses:
        await store.delete("nobody", now=later)
        writes += 1

    assert writes > LARGE // 500


async def test_a_deletion_that_is_cancelled_is_one_all_the_same(store: ResponseStore) -> None:
    await keep(store, response("a", inputs=LARGE))

    with trio.CancelScope() as scope:
        scope.cancel()
        await store.delete("a", now=NOON)

    assert totals(store) == Totals(0, 0, 0)


async def test_one_tenants_store_does_not_reach_anothers(tmp_path: Path) -> None:
    roots = [tenant_root(tmp_path / name, name) for name in ("acme", "other")]
    stores = [await ResponseStore.open(root, now=NOON) for root in roots]
    add(stores[0], response("a"))

    assert stores[1].find("a", now=NOON) is None
    assert await said(stores[1], "a") is None
    assert (await stores[1].find_items(["a-in0"], now=NOON)) == {}
    assert not await stores[1].delete("a", now=NOON)
    assert stores[0].find("a", now=NOON) is not None
    for opened in stores:
        await opened.close()
    for root in roots:
        root.close()


async def test_it_is_a_database_of_its_own_kind(tmp_path: Path) -> None:
    root = tenant_root(tmp_path / "acme")
    await (await ResponseStore.open(root, now=NOON)).close()

    database = await Database.open(root, FILE, SCHEMA)
    assert database.read(lambda tx: tx.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    await database.close()
    root.close()


async def test_what_could_not_be_kept_is_known_before(store: ResponseStore) -> None:
    limits = Limits(responses=2)
    wanted: dict[str, Any] = {"conversation": None, "now": NOON, "limits": limits}
    add(store, response("a"))
    store.require_place(previous="a", **wanted)
    add(store, response("b", previous="a"))

    with pytest.raises(QuotaExceeded):
        store.require_place(previous="b", **wanted)
    store.require_place(previous=None, **wanted)
    add(store, response("c"), limits=limits)
