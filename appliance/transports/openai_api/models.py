"""``GET /v1/models`` and ``/v1/models/{id}``: what this tenant may name.

OpenAI and Anthropic list theirs at the same path. Who sends ``anthropic-version``
is answered in Anthropic's shape, page by page, everybody else in OpenAI's.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec

from appliance.config.schema import GatewayConfig
from appliance.model.agent_names import agent_of, names_of
from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest, ModelForbidden, ModelUnknown
from appliance.model.tokens import Scope
from appliance.protocols.chat_request import LONGEST_MODEL
from appliance.protocols.messages_request import read_version
from appliance.services.embeddings import embedding_entries
from appliance.services.routing import CatalogueEntry, Route, Target
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.anthropic_api.entrance import VERSION_HEADER
from appliance.transports.raw.exchange import Exchange, RawRoute

PATH = "/v1/models"

_ANTHROPIC = VERSION_HEADER.encode()
_PAGE = 20
_LONGEST_PAGE = 1000
_MOST_QUERIES = 20


class Names(Protocol):
    def require(self, tenant: TenantRuntime, caller: Caller, model: str, /) -> Route:
        """Where ``model`` leads; raise :exc:`ModelUnknown` or :exc:`ModelForbidden`."""


@dataclass(frozen=True, slots=True)
class Offered:
    """What a caller may name as a model: the one place that decides it."""

    list_models: Callable[[TenantRuntime], Awaitable[Sequence[CatalogueEntry]]]
    names: Names

    async def all(self, exchange: Exchange, caller: Caller) -> Sequence[CatalogueEntry]:
        """The models for a caller that was let in, each once, those for embeddings last."""
        runtime = await exchange.wake()
        offered: dict[str, CatalogueEntry] = {}
        for entry in (*await self.list_models(runtime), *embedding_entries(runtime.config)):
            if caller.may_ask(entry.id, entry.leads_to):
                offered.setdefault(entry.id, entry)
        return list(offered.values())

    async def one(self, exchange: Exchange, caller: Caller, name: str) -> CatalogueEntry:
        """Whatever may be asked for, listed or not; raise :exc:`ModelUnknown` for the rest."""
        listed = {entry.id: entry for entry in await self.all(exchange, caller)}
        found = listed.get(name)
        if found is not None:
            return found
        agent = agent_of(name)
        if agent is not None:
            for each in names_of(agent):
                if each in listed:
                    return replace(listed[each], id=name)
        elif name.isprintable() and len(name) <= LONGEST_MODEL:
            runtime = await exchange.wake()
            # One that is not for this caller is as one there is not.
            with suppress(ModelUnknown, ModelForbidden):
                target = self.names.require(runtime, caller, name).targets[0]
                if not _lists_all(runtime.config, target):
                    return CatalogueEntry(name, target.provider)
        raise ModelUnknown(f"there is no model {name[:200]!r}; GET {PATH} lists those there are")


def _lists_all(config: GatewayConfig, target: Target) -> bool:
    """Whether the provider has no models but those it lists: one that runs beside us."""
    section = config.providers.get(target.provider)
    return section is not None and section.dialect == "embedded"


def _let_in(exchange: Exchange) -> Caller:
    exchange.require_method("GET", "HEAD")
    return exchange.admit(Scope.CHAT, Scope.READ)


@dataclass(frozen=True, slots=True)
class ModelsHandler:
    """In OpenAI's shape."""

    offered: Offered
    since: datetime  # when this gateway began to offer them

    async def __call__(self, exchange: Exchange) -> None:
        caller = _let_in(exchange)
        wanted = _wanted(exchange.path)
        if wanted:
            shown: object = self._model(await self.offered.one(exchange, caller, wanted))
        else:
            entries = await self.offered.all(exchange, caller)
            shown = {"object": "list", "data": [self._model(entry) for entry in entries]}
        await exchange.answer.whole(msgspec.json.encode(shown))

    def _model(self, entry: CatalogueEntry) -> dict[str, object]:
        created = int(self.since.timestamp())
        return {"id": entry.id, "object": "model", "created": created, "owned_by": entry.owned_by}


@dataclass(frozen=True, slots=True)
class AnthropicModelsHandler:
    """In Anthropic's shape; its clients may send their key as ``x-api-key``."""

    offered: Offered
    since: datetime

    async def __call__(self, exchange: Exchange) -> None:
        request_id = exchange.answer.request_id.encode()
        exchange.more_headers = lambda: ((b"request-id", request_id),)
        exchange.presented = exchange.presented.with_api_key()
        caller = _let_in(exchange)
        version = exchange.header(_ANTHROPIC)
        read_version(None if version is None else version.decode("latin-1").strip())
        wanted = _wanted(exchange.path)
        if wanted:
            shown: object = self._model(await self.offered.one(exchange, caller, wanted))
        else:
            paging = _Paging.of(exchange.scope)
            page, has_more = paging.cut(await self.offered.all(exchange, caller))
            shown = {
                "data": [self._model(entry) for entry in page],
                "has_more": has_more,
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
            }
        await exchange.answer.whole(msgspec.json.encode(shown))

    def _model(self, entry: CatalogueEntry) -> dict[str, object]:
        return {
            "type": "model",
            "id": entry.id,
            "display_name": entry.id,
            "created_at": f"{self.since:%Y-%m-%dT%H:%M:%SZ}",
        }


@dataclass(frozen=True, slots=True)
class ByVersionHeader:
    """The endpoint of both: Anthropic's clients always say which version they speak."""

    openai: RawRoute
    anthropic: RawRoute

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        named = any(name == _ANTHROPIC for name, _ in scope["headers"])
        await (self.anthropic if named else self.openai)(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Paging:
    """A page of at most ``limit`` entries, after or before one of them."""

    limit: int
    after: str | None
    before: str | None

    @classmethod
    def of(cls, scope: dict[str, Any]) -> "_Paging":
        """Read a query; raise :exc:`InvalidRequest` naming the parameter."""
        text = scope.get("query_string", b"").decode("latin-1")
        try:
            query = dict(parse_qsl(text, max_num_fields=_MOST_QUERIES))
        except ValueError:
            raise InvalidRequest.at("", f"a query of more than {_MOST_QUERIES} fields") from None
        limit = query.get("limit", str(_PAGE))
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 4):
            limit = "0"
        if not 1 <= int(limit) <= _LONGEST_PAGE:
            raise InvalidRequest.at("limit", f"must lie between 1 and {_LONGEST_PAGE}")
        after, before = query.get("after_id"), query.get("before_id")
        if after is not None and before is not None:
            raise InvalidRequest.at("before_id", "comes with after_id", "send one of them")
        return cls(int(limit), after, before)

    def cut(self, entries: Sequence[CatalogueEntry]) -> tuple[Sequence[CatalogueEntry], bool]:
        """The page, and whether there is more in the direction that was asked for."""
        if self.before is not None:
            ahead = entries[: _position(entries, self.before, "before_id")]
            return ahead[-self.limit :], len(ahead) > self.limit
        start = 0 if self.after is None else _position(entries, self.after, "after_id") + 1
        return entries[start : start + self.limit], len(entries) > start + self.limit


def _position(entries: Sequence[CatalogueEntry], name: str, field: str) -> int:
    for index, entry in enumerate(entries):
        if entry.id == name:
            return index
    raise InvalidRequest.at(field, "is none of the models", f"GET {PATH} lists them")


def _wanted(path: str) -> str:
    # A slash in an id arrives encoded or not, depending on the client.
    return unquote(path.removeprefix(PATH).removeprefix("/"))
