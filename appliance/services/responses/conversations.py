"""Conversations: begun, described, added to and ended by their callers."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from appliance.model.errors import NotFound
from appliance.protocols.responses.items import Item, new_id
from appliance.services.responses.contexts import no_conversation
from appliance.services.responses.keeping import expiry, limits
from appliance.services.responses.runs import ResponsesTenant, stored
from appliance.storage.response_rows import Conversation, ItemPage, PageOf
from appliance.storage.response_rows import Item as StoredItem


class ConversationService:
    """Everything raises :exc:`NotFound` for a conversation that is not there."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    async def create(
        self, tenant: ResponsesTenant, items: Sequence[Item], metadata: Mapping[str, str]
    ) -> Conversation:
        """Raises :exc:`QuotaExceeded` and ``DiskFull``; afterwards it is on disk."""
        store = await tenant.responses()
        now = self._clock()
        created = store.conversations.create(
            new_id("conv"),
            [stored(item) for item in items],
            metadata=msgspec.json.encode(metadata),
            now=now,
            expires=expiry(tenant.config, now),
            limits=limits(tenant.config),
        )
        await store.durable()
        return created

    async def find(self, tenant: ResponsesTenant, conversation_id: str) -> Conversation:
        store = await tenant.responses()
        found = store.conversations.find(conversation_id, now=self._clock())
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def update(
        self, tenant: ResponsesTenant, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation:
        store = await tenant.responses()
        text = msgspec.json.encode(metadata)
        if not store.conversations.set_metadata(conversation_id, text, now=self._clock()):
            raise no_conversation(conversation_id)
        await store.durable()
        return await self.find(tenant, conversation_id)

    async def delete(self, tenant: ResponsesTenant, conversation_id: str) -> None:
        store = await tenant.responses()
        if not await store.conversations.delete(conversation_id, now=self._clock()):
            raise no_conversation(conversation_id)
        await store.durable()

    async def add(
        self, tenant: ResponsesTenant, conversation_id: str, items: Sequence[Item]
    ) -> Sequence[StoredItem]:
        """Raises :exc:`AlreadyExists`, :exc:`InvalidRequest`, :exc:`QuotaExceeded`."""
        store = await tenant.responses()
        now = self._clock()
        added = [stored(item) for item in items]
        async with store.conversations.taken(conversation_id):
            is_there = store.conversations.add_items(
                conversation_id,
                added,
                now=now,
                expires=expiry(tenant.config, now),
                limits=limits(tenant.config),
            )
        if not is_there:
            raise no_conversation(conversation_id)
        await store.durable()
        return added

    async def items(self, tenant: ResponsesTenant, conversation_id: str, page: PageOf) -> ItemPage:
        """Raises :exc:`InvalidRequest` for an ``after`` that is not in it."""
        store = await tenant.responses()
        found = store.conversations.items(conversation_id, page, now=self._clock())
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def item(self, tenant: ResponsesTenant, conversation_id: str, item_id: str) -> StoredItem:
        await self.find(tenant, conversation_id)
        store = await tenant.responses()
        found = store.conversations.find_item(conversation_id, item_id, now=self._clock())
        if found is None:
            raise _no_item(item_id)
        return found

    async def delete_item(
        self, tenant: ResponsesTenant, conversation_id: str, item_id: str
    ) -> Conversation:
        found = await self.find(tenant, conversation_id)
        store = await tenant.responses()
        if not store.conversations.delete_item(conversation_id, item_id, now=self._clock()):
            raise _no_item(item_id)
        await store.durable()
        return found


def _no_item(item_id: str) -> NotFound:
    return NotFound(f"Item with id {item_id[:80]!r} not found.")
