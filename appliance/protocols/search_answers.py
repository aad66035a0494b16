"""How search services are asked, and what they answer. One dialect for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

import msgspec

Freshness = Literal["day", "week", "month", "year"]

_LONGEST_SNIPPET = 1000
_LONGEST_TITLE = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    text: str
    count: int
    country: str | None = None  # two letters
    freshness: Freshness | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    path: str  # below the base URL, with its query
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class SearchResult:
    title: str
    url: str
    snippet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDialect:
    base_url: str | None  # None: there is no usual one
    needs_key: bool
    ask: Callable[[SearchQuery, str | None], SearchRequest]
    # Raises ``ValueError`` for what is no answer.
    read: Callable[[bytes], Sequence[SearchResult]]


class _Entry(msgspec.Struct):
    url: str
    title: str = ""
    description: str | None = None  # Brave
    content: str | None = None  # the others


class _Entries(msgspec.Struct):
    results: list[_Entry] = []


class _BraveAnswer(msgspec.Struct):
    web: _Entries | None = None


_brave_decoder = msgspec.json.Decoder(_BraveAnswer)
_decoder = msgspec.json.Decoder(_Entries)
_BRAVE_FRESHNESS = {"day": "pd", "week": "pw", "month": "pm", "year": "py"}


def _ask_brave(query: SearchQuery, key: str | None) -> SearchRequest:
    asked = {"q": query.text, "count": str(query.count), "text_decorations": "false"}
    if query.country:
        asked["country"] = query.country.upper()
    if query.freshness:
        asked["freshness"] = _BRAVE_FRESHNESS[query.freshness]
    headers = {"Accept": "application/json"} | ({"X-Subscription-Token": key} if key else {})
    return SearchRequest(path=f"/res/v1/web/search?{urlencode(asked)}", headers=headers)


def _read_brave(body: bytes) -> Sequence[SearchResult]:
    web = _brave_decoder.decode(body).web
    return () if web is None else _results(web)


def _ask_tavily(query: SearchQuery, key: str | None) -> SearchRequest:
    # It knows countries by their English names only, so ours is left out.
    asked: dict[str, object] = {"query": query.text, "max_results": query.count}
    if query.freshness:
        asked["time_range"] = query.freshness
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    return SearchRequest(
        path="/search",
        method="POST",
        headers=headers | _bearer(key),
        body=msgspec.json.encode(asked),
    )


def _ask_searxng(query: SearchQuery, key: str | None) -> SearchRequest:
    asked = {"q": query.text, "format": "json"}
    if query.freshness:
        asked["time_range"] = query.freshness
    headers = {"Accept": "application/json"}
    return SearchRequest(path=f"/search?{urlencode(asked)}", headers=headers | _bearer(key))


def _read(body: bytes) -> Sequence[SearchResult]:
    return _results(_decoder.decode(body))


def _bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _results(entries: _Entries) -> Sequence[SearchResult]:
    return [
        SearchResult(
            " ".join(entry.title.split())[:_LONGEST_TITLE],
            entry.url[:2000],
            " ".join((entry.description or entry.content or "").split())[:_LONGEST_SNIPPET],
        )
        for entry in entries.results
    ]


DIALECTS: Mapping[str, SearchDialect] = {
    "brave": SearchDialect(
        base_url="https://api.search.brave.com", needs_key=True, ask=_ask_brave, read=_read_brave
    ),
    "tavily": SearchDialect(
        base_url="https://api.tavily.com", needs_key=True, ask=_ask_tavily, read=_read
    ),
    "searxng": SearchDialect(base_url=None, needs_key=False, ask=_ask_searxng, read=_read),
}
