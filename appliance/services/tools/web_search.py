"""``web_search``: asks the search service that the config names, with the tenant's own key.

Where none is set, or its key is missing, the tool is not offered: a model that
is shown it would try it again and again.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import trio
from msgspec import Meta

from appliance.model.errors import ApplianceError
from appliance.model.web_addresses import AddressInvalid, WebAddress
from appliance.protocols.readable_text import visible
from appliance.protocols.search_answers import (
    DIALECTS,
    Freshness,
    SearchDialect,
    SearchQuery,
    SearchResult,
)
from appliance.services.tools.base import (
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
    ToolTenant,
)
from appliance.services.web_pages import FetchFailed, FetchLimits, WebFetcher, WebRequest
from appliance.storage.credentials import CredentialStore, Vault

log = logging.getLogger(__name__)

_LARGEST_ANSWER = 4 * 1024 * 1024
_KEY = re.compile(r"[\x21-\x7e]{1,16000}", re.ASCII)


class SearchParams(ToolParams, frozen=True, kw_only=True):
    query: Annotated[str, Meta(min_length=1, max_length=1000)]
    count: Annotated[int, Meta(ge=1, le=20, description="Results.")] | None = None
    country: (
        Annotated[str, Meta(pattern="^[A-Za-z]{2}$", description="Two letters, such as DE.")] | None
    ) = None
    freshness: Annotated[Freshness, Meta(description="Not older than that.")] | None = None


@dataclass(frozen=True, slots=True)
class _Service:
    name: str
    dialect: SearchDialect
    base: WebAddress
    key: str | None


class WebSearch:
    """A ``ToolSource``: the tool is there where a search service is set up."""

    def __init__(self, fetcher: WebFetcher, *, vault: Vault) -> None:
        self._fetcher = fetcher
        self._vault = vault
        self._tool: Tool[Any] = Tool(
            name="web_search",
            group="web",
            label="Search the web",
            description="Search the web; returns titles, URLs and snippets.",
            params=SearchParams,
            call=self._search,
            effect=Effect.FETCH,
        )

    async def tools(self, tenant: ToolTenant, agent: str, /) -> Sequence[Tool[Any]]:
        await trio.lowlevel.checkpoint()
        return () if self._service(tenant) is None else (self._tool,)

    async def _search(self, call: ToolCall, params: SearchParams) -> ToolResult:
        service = self._service(call.tenant)
        if service is None:
            raise ToolFailed("no search service is set up (defaults.tools.web.search)")
        settings = call.tenant.config.defaults.tools.web.search
        query = SearchQuery(
            text=params.query,
            count=min(params.count or settings.max_results, settings.max_results),
            country=params.country,
            freshness=params.freshness,
        )
        limits = FetchLimits(max_bytes=_LARGEST_ANSWER, timeout=settings.timeout)
        try:
            results = await self._ask(call, service, query, limits)
        except FetchFailed as problem:
            raise ToolFailed(f"the search failed: {problem}") from problem
        return _result(service.name, query, results[: query.count])

    async def _ask(
        self, call: ToolCall, service: _Service, query: SearchQuery, limits: FetchLimits
    ) -> Sequence[SearchResult]:
        asked = service.dialect.ask(query, service.key)
        base = service.base
        target = base.target.rstrip("/") + asked.path
        request = WebRequest(
            address=WebAddress(base.scheme, base.host, base.port, target),
            method=asked.method,
            headers=asked.headers,
            body=asked.body,
            is_configured=True,
        )
        fetched = await self._fetcher.fetch(call.tenant, request, limits)
        if not 200 <= fetched.status < 300:
            # What it says may quote the key, so only the number is passed on.
            raise FetchFailed(f"{service.name} answered with status {fetched.status}")
        try:
            return service.dialect.read(fetched.body)
        except ValueError as exc:
            raise FetchFailed(f"{service.name} answered with what is no list of results") from exc

    def _service(self, tenant: ToolTenant) -> _Service | None:
        """The service that is set up, with its key; None if anything is missing."""
        settings = tenant.config.defaults.tools.web.search
        if settings.provider is None:
            return None
        dialect = DIALECTS[settings.provider]
        url = settings.base_url or dialect.base_url
        if url is None:
            return None
        name = settings.credential or (settings.provider if dialect.needs_key else None)
        key = None if name is None else self._key(tenant, name)
        try:
            base = WebAddress.parse(url)
        except AddressInvalid:
            return None
        if (name is not None and key is None) or not _may_carry(tenant, base, key):
            return None
        return _Service(settings.provider, dialect, base, key)

    def _key(self, tenant: ToolTenant, name: str) -> str | None:
        """One small file, read where it is needed so that a changed key is used at once."""
        try:
            found = CredentialStore(tenant.root, self._vault).get(name)
        except ApplianceError as error:
            log.warning(
                "the credential of the search service cannot be used",
                extra={"tenant": tenant.id, "credential": name, "reason": error.detail},
            )
            return None
        return None if found is None or not _KEY.fullmatch(found.api_key) else found.api_key


def _may_carry(tenant: ToolTenant, base: WebAddress, key: str | None) -> bool:
    """Whether the key does not cross the internet for everybody to read."""
    return key is None or base.is_encrypted or tenant.config.egress.allow_private


def _result(service: str, query: SearchQuery, results: Sequence[SearchResult]) -> ToolResult:
    blocks = [
        f"{number}. {result.title or result.url}\n   {result.url}\n   {result.snippet}".rstrip()
        for number, result in enumerate(results, start=1)
    ]
    return ToolResult(
        text=visible("\n\n".join(blocks)) or "Nothing was found.",
        details={
            "provider": service,
            "query": query.text,
            "count": len(results),
            "results": [{"title": each.title, "url": each.url} for each in results],
        },
        untrusted=Source.WEB,
    )
