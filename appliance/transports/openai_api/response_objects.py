"""``/v1/responses/{id}`` and what is below: responses that were answered before."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

import msgspec

from appliance.model.errors import NotFound
from appliance.model.tokens import Scope
from appliance.services.responses.responses import Responses
from appliance.storage.response_rows import ItemPage
from appliance.storage.responses import page_of
from appliance.transports.openai_api.responses import (
    PATH,
    Handler,
    flag_of,
    follow,
    id_in,
    number_of,
    query_of,
)
from appliance.transports.raw.exchange import Exchange


@dataclass(frozen=True, slots=True)
class ResponseObjects:
    """``asked`` are the routes below that are no response's: ``compact``, ``input_tokens``."""

    responses: Responses
    asked: Mapping[str, Handler]

    async def __call__(self, exchange: Exchange) -> None:
        first, _, rest = exchange.path.removeprefix(f"{PATH}/").partition("/")
        asked = self.asked.get(first)
        if asked is not None and not rest:
            await asked(exchange)
        elif not rest:
            exchange.require_method("GET", "DELETE")
            response_id = id_in(unquote(first), "response")
            await (self._get if exchange.method == "GET" else self._delete)(exchange, response_id)
        elif rest == "cancel":
            await self._cancel(exchange, id_in(unquote(first), "response"))
        elif rest == "input_items":
            await self._input_items(exchange, id_in(unquote(first), "response"))
        else:
            raise NotFound("there is nothing at this path; GET /docs lists what there is")

    async def _get(self, exchange: Exchange, response_id: str) -> None:
        exchange.admit(Scope.CHAT, Scope.READ)
        query = query_of(exchange)
        streams = flag_of(query, "stream")
        after = number_of(query, "starting_after", -1)
        runtime = await exchange.wake()
        if streams:
            await follow(exchange, self.responses, response_id, after=after)
            return
        found = await exchange.perform(partial(self.responses.find, runtime, response_id))
        await exchange.answer.whole(found.body)

    async def _delete(self, exchange: Exchange, response_id: str) -> None:
        exchange.admit(Scope.CHAT)
        runtime = await exchange.wake()
        await exchange.perform(partial(self.responses.delete, runtime, response_id))
        deleted = {"id": response_id, "object": "response", "deleted": True}
        await exchange.answer.whole(msgspec.json.encode(deleted))

    async def _cancel(self, exchange: Exchange, response_id: str) -> None:
        exchange.require_method("POST")
        exchange.admit(Scope.CHAT)
        runtime = await exchange.wake()
        found = await exchange.perform(partial(self.responses.cancel, runtime, response_id))
        await exchange.answer.whole(found.body)

    async def _input_items(self, exchange: Exchange, response_id: str) -> None:
        exchange.require_method("GET")
        exchange.admit(Scope.CHAT, Scope.READ)
        query = query_of(exchange)
        page = page_of(
            limit=number_of(query, "limit", 20),
            order=query.get("order", "desc"),
            after=query.get("after"),
        )
        runtime = await exchange.wake()
        work = partial(self.responses.input_items, runtime, response_id, page)
        await exchange.answer.whole(page_body(await exchange.perform(work)))


def page_body(page: ItemPage) -> bytes:
    items = page.items
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [msgspec.Raw(item.json) for item in items],
            "first_id": items[0].id if items else None,
            "last_id": items[-1].id if items else None,
            "has_more": page.has_more,
        }
    )


def label_of(path: str) -> str:
    """The route of a path, without anybody's id in it."""
    first, _, rest = path.removeprefix(f"{PATH}/").partition("/")
    if first in {"compact", "input_tokens"} and not rest:
        return f"{PATH}/{first}"
    if rest in {"cancel", "input_items"}:
        return f"{PATH}/{{response}}/{rest}"
    return f"{PATH}/{{response}}"
