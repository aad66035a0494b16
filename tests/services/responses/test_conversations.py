"""Conversations as their callers begin, describe, add to and end them."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.model.errors import AlreadyExists, NotFound
from appliance.protocols.responses.items import Item, input_items
from appliance.services.responses.conversations import ConversationService
from appliance.storage.response_rows import PageOf
from tests.services.responding import open_house


def items(*texts: str) -> tuple[Item, ...]:
    return input_items([{"role": "user", "content": text} for text in texts], "items")


async def test_it_holds_what_was_put_into_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        service = ConversationService(clock=house.clock)
        made = await service.create(house.tenant, items("one"), {"k": "v"})
        added = await service.add(house.tenant, made.id, items("two"))

        page = await service.items(house.tenant, made.id, PageOf())

        texts = [msgspec.json.decode(item.json)["content"][0]["text"] for item in page.items]
        assert texts == ["two", "one"]
        assert (await service.find(house.tenant, made.id)).metadata == b'{"k":"v"}'
        assert await service.item(house.tenant, made.id, added[0].id) == added[0]
        await service.delete_item(house.tenant, made.id, added[0].id)
        with pytest.raises(NotFound):
            await service.item(house.tenant, made.id, added[0].id)
        changed = await service.update(house.tenant, made.id, {})
        assert changed.metadata == b"{}"


async def test_the_same_item_is_not_added_twice(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        service = ConversationService(clock=house.clock)
        said = items("one")
        made = await service.create(house.tenant, said, {})

        with pytest.raises(AlreadyExists):
            await service.add(house.tenant, made.id, said)


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        service = ConversationService(clock=house.clock)
        made = await service.create(house.tenant, (), {})
        await service.delete(house.tenant, made.id)
        tenant: Any = house.tenant
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: service.find(tenant, made.id),
            lambda: service.update(tenant, made.id, {}),
            lambda: service.delete(tenant, made.id),
            lambda: service.add(tenant, made.id, items("x")),
            lambda: service.items(tenant, made.id, PageOf()),
            lambda: service.item(tenant, made.id, "msg_x"),
            lambda: service.delete_item(tenant, made.id, "msg_x"),
        ]

        for ask in asked:
            with pytest.raises(NotFound, match="Conversation with id"):
                await ask()
