"""An agent's responses continue the one they name, whatever came after it meanwhile."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.fakes.providers import FakeReply
from tests.services.responding import House, open_house

AGENT: dict[str, Any] = {"agent": "main", "model": "openclaw"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, *[FakeReply(["ok"]) for _ in range(10)]) as house:
        yield house


def read(house: House, number: int = -1) -> list[object]:
    """What a call of the model read."""
    messages = msgspec.json.decode(house.stub.calls[number].body["messages"])
    return [message["content"] for message in messages if message["role"] != "system"]


def sessions(house: House) -> int:
    return house.tenant.store.list().total


async def ask(house: House, said: str, previous: str | None = None, **more: Any) -> str:
    response = await house.answer(said, previous_response_id=previous, **AGENT, **more)
    found: str = response["id"]
    return found


async def test_a_chain_goes_on_in_one_session(house: House) -> None:
    first = await ask(house, "FIRST")
    second = await ask(house, "SECOND", first)
    await ask(house, "THIRD", second)

    assert read(house) == ["FIRST", "ok", "SECOND", "ok", "THIRD"]
    assert sessions(house) == 1


async def test_a_branch_reads_what_it_branches_from(house: House) -> None:
    first = await ask(house, "FIRST")
    second = await ask(house, "SECOND", first)

    third = await ask(house, "THIRD", first)
    assert read(house) == ["FIRST", "ok", "THIRD"]

    await ask(house, "AFTER THIRD", third)
    assert read(house) == ["FIRST", "ok", "THIRD", "ok", "AFTER THIRD"]

    await ask(house, "AFTER SECOND", second)
    assert read(house) == ["FIRST", "ok", "SECOND", "ok", "AFTER SECOND"]


async def test_branches_that_begin_at_once_do_not_read_each_other(house: House) -> None:
    first = await ask(house, "FIRST")

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(ask, house, f"branch {number}", first)

    found = sorted(str(read(house, -number)[2]) for number in (1, 2, 3))
    assert found == ["branch 0", "branch 1", "branch 2"]
    assert all(len(read(house, -number)) == 3 for number in (1, 2, 3))


async def test_what_is_not_stored_is_not_remembered_by_the_session(house: House) -> None:
    first = await ask(house, "FIRST")

    await ask(house, "ASIDE", first, store=False)
    assert read(house) == ["FIRST", "ok", "ASIDE"]

    await ask(house, "SECOND", first)
    assert read(house) == ["FIRST", "ok", "SECOND"]


async def test_a_session_that_was_deleted_is_read_from_the_chain(house: House) -> None:
    first = await ask(house, "FIRST")
    (session,) = house.tenant.store.list().sessions
    assert house.tenant.store.delete_by_id(session.id)

    await ask(house, "SECOND", first)

    assert read(house) == ["FIRST", "ok", "SECOND"]
