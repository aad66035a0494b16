"""Conversations: a list of items that responses add to."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from appliance.model.errors import AlreadyExists, InvalidRequest, QuotaExceeded, TooLarge
from appliance.storage import conversations
from appliance.storage.response_rows import Item, PageOf, ResponseStatus
from appliance.storage.response_threads import Limits, Totals
from appliance.storage.responses import ResponseStore
from tests.books import NOON, tenant_root
from tests.fakes.cancelling import each_cancellation
from tests.storage.test_responses import (
    LARGE,
    MONTH,
    add,
    ended,
    item,
    keep,
    queued,
    response,
    totals,
    turns_during,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ResponseStore]:
    root = tenant_root(tmp_path / "acme")
    opened = await ResponseStore.open(root, now=NOON)
    try:
        yield opened
    finally:
        await opened.close()
        root.close()


def begin(store: ResponseStore, name: str = "conv_1", *items: Item) -> None:
    store.conversations.create(name, items, metadata=b"{}", now=NOON, expires=NOON + MONTH)


async def held(store: ResponseStore, name: str = "conv_1") -> list[str] | None:
    found = await store.conversations.context(name, now=NOON)
    return None if found is None else [each.id for each in found]


async def test_it_is_found_as_it_was_begun(store: ResponseStore) -> None:
    begin(store, "conv_1", item("a"), item("b"))

    found = store.conversations.find("conv_1", now=NOON)
    assert found is not None
    assert (found.metadata, found.session, found.created_at) == (b"{}", "", NOON)
    assert await held(store) == ["a", "b"]


async def test_its_metadata_can_be_replaced(store: ResponseStore) -> None:
    begin(store)

    assert store.conversations.set_metadata("conv_1", b'{"k":"v"}', now=NOON)
    assert not store.conversations.set_metadata("conv_2", b"{}", now=NOON)

    found = store.conversations.find("conv_1", now=NOON)
    assert found is not None
    assert found.metadata == b'{"k":"v"}'


async def test_a_response_adds_what_was_asked_and_what_was_said(store: ResponseStore) -> None:
    begin(store, "conv_1", item("a"))
    sealed = Item("r-out", item("r-out", "answer", encrypted="x").json)

    add(store, response("r", conversation="conv_1"))
    add(store, response("s", conversation="conv_1", status=ResponseStatus.FAILED))

    assert await held(store) == ["a", "r-in0", "r-out"]
    found = store.conversations.find_item("conv_1", "r-out", now=NOON)
    assert found is not None
    assert found.json != sealed.json


async def test_a_run_in_the_background_adds_when_it_is_complete(store: ResponseStore) -> None:
    begin(store)
    add(store, queued(conversation="conv_1"))
    assert await held(store) == []
    out, sealed = item("m"), item("m", "", encrypted_content="ocm1.x")

    store.update("bg", ended("bg", out, outputs=[sealed]), now=NOON)

    found = await store.conversations.context("conv_1", now=NOON)
    assert found is not None
    assert [each.json for each in found] == [item("bg-in0", "question").json, sealed.json]
    page = store.conversations.items("conv_1", PageOf(limit=1), now=NOON)
    assert page is not None
    assert page.items[0].json == out.json


async def test_an_item_is_in_it_once(store: ResponseStore) -> None:
    begin(store, "conv_1", item("a"))

    with pytest.raises(AlreadyExists, match="'a'"):
        store.conversations.add_items(
            "conv_1", [item("b"), item("a")], now=NOON, expires=NOON + MONTH
        )
    add(store, response("r", conversation="conv_1", outputs=(item("a"), item("c"))))

    assert await held(store) == ["a", "r-in0", "c"]


async def test_whose_words_are_its_latest_is_known(store: ResponseStore) -> None:
    begin(store)
    latest = store.conversations.last_response
    assert latest("conv_1", now=NOON) is None
    add(store, response("a", conversation="conv_1"))
    add(store, response("b", conversation="conv_1"))
    add(store, response("elsewhere", previous="b"))
    assert latest("conv_1", now=NOON) == "b"

    store.conversations.add_items("conv_1", [item("x")], now=NOON, expires=NOON + MONTH)

    assert latest("conv_1", now=NOON) is None
    assert latest("conv_2", now=NOON) is None
    assert latest("conv_1", now=NOON + MONTH) is None


async def test_what_is_deleted_from_it_ends_its_session(store: ResponseStore) -> None:
    begin(store, "conv_1", item("x"))
    store.conversations.note_session("conv_1", "agent:main:s")

    assert not store.conversations.delete_item("conv_1", "y", now=NOON)
    found = store.conversations.find("conv_1", now=NOON)
    assert found is not None
    assert found.session == "agent:main:s"
    assert store.conversations.delete_item("conv_1", "x", now=NOON)

    found = store.conversations.find("conv_1", now=NOON)
    assert found is not None
    assert found.session == ""


async def test_a_response_in_it_continues_what_was_before(store: ResponseStore) -> None:
    begin(store, "conv_1", item("x"))
    add(store, response("a", conversation="conv_1"))
    add(store, response("b", conversation="conv_1"))
    add(store, response("c", conversation="conv_1"))
    add(store, response("apart", previous="b"))
    add(store, response("failed", conversation="conv_1", status=ResponseStatus.FAILED))

    found = await store.context("apart", now=NOON)

    assert found is not None
    assert [each.id for each in found] == [
        "x", "a-in0", "a-out", "b-in0", "b-out", "apart-in0", "apart-out",
    ]  # fmt: skip
    assert await store.context("failed", now=NOON) is None, "nobody knows where it was"
    await store.conversations.delete("conv_1", now=NOON)
    assert await store.context("apart", now=NOON) is None


async def test_items_are_added_found_listed_and_removed(store: ResponseStore) -> None:
    begin(store)
    added = [item(name) for name in "abc"]

    assert store.conversations.add_items("conv_1", added, now=NOON, expires=NOON + MONTH)
    assert not store.conversations.add_items("conv_2", added, now=NOON, expires=NOON + MONTH)

    page = store.conversations.items("conv_1", PageOf(limit=2), now=NOON)
    assert page is not None
    assert ([each.id for each in page.items], page.has_more) == (["c", "b"], True)
    rest = store.conversations.items("conv_1", PageOf(after="b"), now=NOON)
    assert rest is not None
    assert ([each.id for each in rest.items], rest.has_more) == (["a"], False)
    with pytest.raises(InvalidRequest, match="after"):
        store.conversations.items("conv_1", PageOf(after="z"), now=NOON)
    assert store.conversations.items("conv_2", PageOf(), now=NOON) is None
    assert store.conversations.find_item("conv_1", "b", now=NOON) == item("b")
    assert store.conversations.delete_item("conv_1", "b", now=NOON)
    assert not store.conversations.delete_item("conv_1", "b", now=NOON)
    assert store.conversations.find_item("conv_1", "b", now=NOON) is None
    assert (await store.find_items(["a", "b"], now=NOON)) == {"a": item("a").json}


async def test_deleting_it_leaves_its_responses(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "ITEMS_AT_ONCE", 2)
    begin(store, "conv_1", *(item(str(number)) for number in range(5)))
    add(store, response("r", conversation="conv_1"))

    assert await store.conversations.delete("conv_1", now=NOON)

    assert not await store.conversations.delete("conv_1", now=NOON)
    assert await held(store) is None
    assert store.find("r", now=NOON) is not None
    add(store, response("s", conversation="conv_1"))  # it went while the answer was on its way


async def test_it_expires_a_while_after_its_last_use(store: ResponseStore) -> None:
    begin(store, "conv_1", item("a"))
    later = NOON + timedelta(days=20)
    add(store, response("r", conversation="conv_1"), now=later)

    assert store.conversations.find("conv_1", now=later + MONTH - timedelta(seconds=1)) is not None
    assert store.conversations.find("conv_1", now=later + MONTH) is None
    assert not await store.conversations.delete("conv_1", now=later + MONTH)
    for number in range(4):  # each takes a step
        add(store, response(f"x{number}"), now=later + 2 * MONTH)
    assert totals(store).conversations == 0


async def test_there_is_an_end_to_how_many_there_are(store: ResponseStore) -> None:
    begin(store)

    with pytest.raises(QuotaExceeded, match="delete some"):
        store.conversations.create(
            "conv_2", [], metadata=b"{}", now=NOON, expires=NOON + MONTH,
            limits=Limits(conversations=1),
        )  # fmt: skip


async def test_there_is_an_end_to_how_large_they_are(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store)
    monkeypatch.setattr(conversations, "MOST_ITEMS", 2)
    more = [item(name) for name in "abc"]

    with pytest.raises(InvalidRequest, match="2 items"):
        store.conversations.add_items("conv_1", more, now=NOON, expires=NOON + MONTH)
    with pytest.raises(QuotaExceeded):
        store.conversations.add_items(
            "conv_1", more[:1], now=NOON, expires=NOON + MONTH, limits=Limits(bytes=10)
        )
    add(store, response("r", conversation="conv_1", inputs=3))
    assert await held(store) == ["r-in2", "r-out"]  # an answer that was given is not refused
    monkeypatch.setattr(conversations, "LARGEST", 10)
    with pytest.raises(TooLarge):
        await held(store)


async def test_a_large_one_is_read_beside_the_loop(store: ResponseStore) -> None:
    begin(store, "conv_1", item("big", "x" * 300_000))

    assert await held(store) == ["big"]
    assert totals(store) == Totals(0, 1, len(item("big", "x" * 300_000).json))


# Very many items come in steps


def many(name: str = "r") -> list[str]:
    return [f"{name}-in{number}" for number in range(LARGE)]


async def run_in_background(store: ResponseStore, name: str) -> None:
    """The last step of one that was begun before."""
    out = item(f"{name}-out")
    await store.end(name, ended(name, out), now=NOON)


@pytest.fixture(params=["at once", "in the background"])
def bring(request: pytest.FixtureRequest, store: ResponseStore) -> Callable[[], Awaitable[None]]:
    """Keep the response "r", which was asked with very many items."""
    if request.param == "at once":
        return lambda: keep(store, response("r", inputs=LARGE, conversation="conv_1"))

    async def end() -> None:
        if store.find("r", now=NOON) is None:
            add(store, queued("r", inputs=LARGE, conversation="conv_1"))
        await run_in_background(store, "r")

    return end


async def test_very_many_items_come_in_their_order_while_others_go_on(
    store: ResponseStore, bring: Callable[[], Awaitable[None]]
) -> None:
    begin(store, "conv_1", item("a"), item("r-in7"))

    assert await turns_during(bring)

    rest = [name for name in many() if name != "r-in7"]
    assert await held(store) == ["a", "r-in7", *rest, "r-out"]


async def test_who_reads_or_adds_meanwhile_waits_for_all_of_them(
    store: ResponseStore, bring: Callable[[], Awaitable[None]]
) -> None:
    begin(store)
    read: list[list[str] | None] = []

    async def look() -> None:
        read.append(await held(store))
        await keep(store, response("s", conversation="conv_1"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(look)

    whole = [*many(), "r-out"]
    said = ["s-in0", "s-out"]
    assert (read, await held(store)) in [([whole], [*whole, *said]), ([[]], [*said, *whole])]


async def test_cancelled_anywhere_all_have_come_or_none(
    store: ResponseStore, bring: Callable[[], Awaitable[None]]
) -> None:
    begin(store, "conv_1", item("a"))

    async for _ in each_cancellation(bring):
        assert await held(store) in (["a"], ["a", *many(), "r-out"])
        assert not store._database.read(conversations.arriving)
        await store.delete("r", now=NOON)
        await store.conversations.delete("conv_1", now=NOON)
        begin(store, "conv_1", item("a"))


async def test_a_process_that_died_leaves_none_of_those_on_their_way(tmp_path: Path) -> None:
    root = tenant_root(tmp_path / "acme")
    store = await ResponseStore.open(root, now=NOON)
    begin(store, "conv_1", item("a"))
    begin(store, "conv_2", item("a"))
    add(store, queued("q", inputs=LARGE, conversation="conv_1"))
    copied = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_in_background, store, "q")
        nursery.start_soon(keep, store, response("r", inputs=LARGE, conversation="conv_2"))
        while not copied:
            await trio.lowlevel.checkpoint()
            if len(store._database.read(conversations.arriving)) == 2:
                shutil.copytree(tmp_path / "acme", tmp_path / "crashed")
                copied = True
    await store.close()
    root.close()

    again = tenant_root(tmp_path / "crashed")
    opened = await ResponseStore.open(again, now=NOON)
    assert await held(opened, "conv_1") == await held(opened, "conv_2") == ["a"]
    assert not opened._database.read(conversations.arriving)
    await opened.close()
    again.close()


async def test_one_that_is_full_loses_its_oldest_in_steps(
    store: ResponseStore, bring: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MOST_ITEMS", 10)
    begin(store, "conv_1", item("a"))

    await bring()

    assert await held(store) == [*many()[-9:], "r-out"]
