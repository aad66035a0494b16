"""``/v1/conversations`` and what is below."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

import msgspec

from appliance.model.errors import MISSING, InvalidRequest, NotFound
from appliance.model.tokens import Scope
from appliance.protocols.responses.items import Item, input_items
from appliance.protocols.responses.options import read_metadata
from appliance.services.responses.conversations import ConversationService
from appliance.storage.response_rows import Conversation, ItemPage
from appliance.storage.responses import page_of
from appliance.transports.openai_api.response_objects import page_body
from appliance.transports.openai_api.responses import id_in, number_of, query_of, read_members
from appliance.transports.raw.exchange import Exchange

PATH = "/v1/conversations"
MOST_ITEMS = 100  # that are added at once


@dataclass(frozen=True, slots=True)
class ConversationsHandler:
    service: ConversationService

    async def __call__(self, exchange: Exchange) -> None:
        rest = exchange.path.removeprefix(PATH).removeprefix("/")
        match [unquote(part) for part in rest.split("/")] if rest else []:
            case []:
                await self._create(exchange)
            case [conversation]:
                await self._one(exchange, id_in(conversation, "conversation"))
            case [conversation, "items"]:
                await self._items(exchange, id_in(conversation, "conversation"))
            case [conversation, "items", item]:
                await self._item(exchange, id_in(conversation, "conversation"), id_in(item, "item"))
            case _:
                raise NotFound("there is nothing at this path; GET /docs lists what there is")

    async def _create(self, exchange: Exchange) -> None:
        exchange.require_method("POST")
        exchange.admit(Scope.CHAT)
        members = await read_members(exchange)
        _refuse_unknown(members, "items", "metadata")
        items = _items(members)
        metadata = _metadata(members)
        runtime = await exchange.wake()
        created = await exchange.perform(
            partial(self.service.create, runtime, items or (), metadata)
        )
        await exchange.answer.whole(_body(created))

    async def _one(self, exchange: Exchange, conversation_id: str) -> None:
        exchange.require_method("GET", "POST", "DELETE")
        if exchange.method == "GET":
            exchange.admit(Scope.CHAT, Scope.READ)
            runtime = await exchange.wake()
            found = await exchange.perform(partial(self.service.find, runtime, conversation_id))
            await exchange.answer.whole(_body(found))
            return
        exchange.admit(Scope.CHAT)
        if exchange.method == "DELETE":
            runtime = await exchange.wake()
            await exchange.perform(partial(self.service.delete, runtime, conversation_id))
            deleted = {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
            await exchange.answer.whole(msgspec.json.encode(deleted))
            return
        members = await read_members(exchange)
        _refuse_unknown(members, "metadata")
        if "metadata" not in members:
            raise InvalidRequest.at("metadata", MISSING, "send null to have none")
        metadata = _metadata(members)
        runtime = await exchange.wake()
        work = partial(self.service.update, runtime, conversation_id, metadata)
        await exchange.answer.whole(_body(await exchange.perform(work)))

    async def _items(self, exchange: Exchange, conversation_id: str) -> None:
        exchange.require_method("GET", "POST")
        if exchange.method == "GET":
            exchange.admit(Scope.CHAT, Scope.READ)
            query = query_of(exchange)
            page = page_of(
                limit=number_of(query, "limit", 20),
                order=query.get("order", "desc"),
                after=query.get("after"),
            )
            runtime = await exchange.wake()
            work = partial(self.service.items, runtime, conversation_id, page)
            await exchange.answer.whole(page_body(await exchange.perform(work)))
            return
        exchange.admit(Scope.CHAT)
        members = await read_members(exchange)
        _refuse_unknown(members, "items")
        items = _items(members)
        if not items:
            raise InvalidRequest.at("items", "is missing", "send a list of items")
        runtime = await exchange.wake()
        add = partial(self.service.add, runtime, conversation_id, items)
        added = await exchange.perform(add)
        await exchange.answer.whole(page_body(ItemPage(added, has_more=False)))

    async def _item(self, exchange: Exchange, conversation_id: str, item_id: str) -> None:
        exchange.require_method("GET", "DELETE")
        if exchange.method == "GET":
            exchange.admit(Scope.CHAT, Scope.READ)
            runtime = await exchange.wake()
            get = partial(self.service.item, runtime, conversation_id, item_id)
            await exchange.answer.whole((await exchange.perform(get)).json)
            return
        exchange.admit(Scope.CHAT)
        runtime = await exchange.wake()
        remove = partial(self.service.delete_item, runtime, conversation_id, item_id)
        await exchange.answer.whole(_body(await exchange.perform(remove)))


def label_of(path: str) -> str:
    """The route of a path, without anybody's id in it."""
    parts = path.removeprefix(PATH).removeprefix("/").split("/")
    if parts[1:2] == ["items"]:
        return f"{PATH}/{{conversation}}/items" + ("/{item}" if len(parts) > 2 else "")
    return f"{PATH}/{{conversation}}"


def _body(conversation: Conversation) -> bytes:
    return msgspec.json.encode(
        {
            "id": conversation.id,
            "object": "conversation",
            "created_at": int(conversation.created_at.timestamp()),
            "metadata": msgspec.Raw(conversation.metadata),
        }
    )


def _refuse_unknown(members: Mapping[str, bytes], *known: str) -> None:
    for name in members:
        if name not in known:
            raise InvalidRequest.at(name[:80], "is not a parameter of this request", "leave it out")


def _items(members: Mapping[str, bytes]) -> tuple[Item, ...]:
    raw = msgspec.json.decode(members.get("items", b"null"))
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise InvalidRequest.at("items", "must be a list of items")
    if len(raw) > MOST_ITEMS:
        raise InvalidRequest.at("items", f"has more than {MOST_ITEMS}", "add them in several steps")
    items = input_items(raw, "items")
    for number, item in enumerate(items):
        if item["type"] == "item_reference":
            raise InvalidRequest.at(f"items[{number}]", "must be the item itself")
    return items


def _metadata(members: Mapping[str, bytes]) -> Mapping[str, str]:
    return read_metadata(msgspec.json.decode(members.get("metadata", b"null")))
