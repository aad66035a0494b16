"""An agent's responses continue the one they name, whatever came after it meanwhile."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from appliance.services.responses.conversations import ConversationService
from appliance.storage.response_rows import PageOf
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


async def test_what_ran_in_the_background_goes_on_in_its_session(house: House) -> None:
    first = await house.start("FIRST", **AGENT)
    live = house.tenant.state.responses.find(first)
    if live is not None:
        await live.ended.wait()

    await ask(house, "SECOND", first)

    assert read(house) == ["FIRST", "ok", "SECOND"]
    assert sessions(house) == 1


# Conversations


async def begin(house: House) -> str:
    made = await ConversationService(clock=house.clock).create(house.tenant, (), {})
    return made.id


async def test_a_conversation_goes_on_in_one_session(house: House) -> None:
    talk = await begin(house)

    for said in ("FIRST", "SECOND", "THIRD"):
        await ask(house, said, conversation=talk)

    assert read(house) == ["FIRST", "ok", "SECOND", "ok", "THIRD"]
    assert sessions(house) == 1


async def test_what_others_said_in_a_conversation_is_read_by_its_agent(house: House) -> None:
    talk = await begin(house)
    await ask(house, "FIRST", conversation=talk)
    await house.answer("BY A MODEL", conversation=talk)
    await ask(house, "SECOND", conversation=talk)

    assert read(house) == ["FIRST", "ok", "BY A MODEL", "ok", "SECOND"]


async def test_what_branches_off_a_conversation_is_not_read_there(house: House) -> None:
    talk = await begin(house)
    first = await ask(house, "FIRST", conversation=talk)
    await ask(house, "ELSEWHERE", first)

    await ask(house, "SECOND", conversation=talk)
    await ask(house, "THIRD", conversation=talk)

    assert read(house) == ["FIRST", "ok", "SECOND", "ok", "THIRD"]


async def test_what_was_deleted_from_a_conversation_is_not_read_any_more(house: House) -> None:
    talk = await begin(house)
    service = ConversationService(clock=house.clock)
    await ask(house, "SECRET", conversation=talk)
    await ask(house, "FIRST", conversation=talk)
    page = await service.items(house.tenant, talk, PageOf(newest_first=False))
    await service.delete_item(house.tenant, talk, page.items[0].id)

    second = await ask(house, "SECOND", conversation=talk)
    await ask(house, "THIRD", conversation=talk)

    assert read(house) == ["ok", "FIRST", "ok", "SECOND", "ok", "THIRD"]
    await ask(house, "APART", second)
    assert read(house) == ["ok", "FIRST", "ok", "SECOND", "ok", "APART"]


async def test_a_branch_does_not_read_what_was_deleted_from_its_conversation(house: House) -> None:
    talk = await begin(house)
    service = ConversationService(clock=house.clock)
    await ask(house, "SECRET", conversation=talk)
    first = await ask(house, "FIRST", conversation=talk)
    page = await service.items(house.tenant, talk, PageOf(newest_first=False))
    await service.delete_item(house.tenant, talk, page.items[0].id)

    await ask(house, "APART", first)

    assert read(house) == ["ok", "FIRST", "ok", "APART"]
