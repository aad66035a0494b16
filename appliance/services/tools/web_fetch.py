"""``web_fetch``: a page on the web, as a model can read it."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import trio
from msgspec import Meta

from appliance.config.tool_schema import WebFetchConfig
from appliance.model.chat_attachments import LARGEST_IMAGE, Part, image_parts
from appliance.model.pictures import picture_type
from appliance.model.web_addresses import LONGEST, AddressInvalid, WebAddress
from appliance.protocols.charsets import decoded_text
from appliance.protocols.readable_text import ReadablePage, read_html, visible
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
from appliance.services.web_pages import Fetched, FetchFailed, FetchLimits, WebFetcher, WebRequest

_EXCERPT = 1000  # characters of a page that says what went wrong
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXT = frozenset(
    {
        "application/json", "application/xml", "application/javascript", "application/yaml",
        "application/x-yaml", "application/toml", "application/x-ndjson", "application/sql",
        "application/x-sh", "application/graphql", "application/rtf", "message/rfc822",
    }
)  # fmt: skip
_UNKNOWN = frozenset({"", "application/octet-stream", "binary/octet-stream"})

UrlText = Annotated[str, Meta(min_length=1, max_length=LONGEST, description="http:// or https://")]


class FetchParams(ToolParams, frozen=True, kw_only=True):
    url: UrlText
    extract_mode: Literal["markdown", "text"] = "markdown"
    max_chars: Annotated[int, Meta(ge=100, le=2_000_000)] | None = None


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is shown of an answer. ``picture`` is the type of one, else None."""

    page: ReadablePage
    picture: str | None = None


class WebFetch:
    """A ``ToolSource``: the tool is there unless ``defaults.tools.web.fetch.enabled`` is off."""

    def __init__(self, fetcher: WebFetcher) -> None:
        self._fetcher = fetcher
        self.tool: Tool[Any] = Tool(
            name="web_fetch",
            group="web",
            label="Fetch a web page",
            description=(
                "Fetch a URL and return what it says as Markdown or text. Scripts are not run; "
                "pages behind a login cannot be read."
            ),
            params=FetchParams,
            call=self._fetch,
            effect=Effect.FETCH,
        )

    async def tools(self, tenant: ToolTenant, agent: str, /) -> Sequence[Tool[Any]]:
        await trio.lowlevel.checkpoint()
        return (self.tool,) if tenant.config.defaults.tools.web.fetch.enabled else ()

    async def _fetch(self, call: ToolCall, params: FetchParams) -> ToolResult:
        settings = call.tenant.config.defaults.tools.web.fetch
        limit = min(params.max_chars or settings.max_chars, settings.max_chars)
        try:
            fetched = await fetch_page(self._fetcher, call, params.url)
            shown = await trio.to_thread.run_sync(
                partial(_shown, fetched, limit, with_marks=params.extract_mode == "markdown"),
                limiter=call.tenant.state.web_readers,
            )
        except FetchFailed as problem:
            # A redirect may have written some of this.
            return ToolResult(text=str(problem), is_error=True, untrusted=Source.WEB)
        return _result(call, fetched, shown)


async def fetch_page(fetcher: WebFetcher, call: ToolCall, url: str) -> Fetched:
    """By the tenant's settings. Raises :exc:`FetchFailed`, and :exc:`ToolFailed` for a bad URL."""
    settings = call.tenant.config.defaults.tools.web.fetch
    try:
        address = WebAddress.parse(url)
    except AddressInvalid as problem:
        raise ToolFailed(f"url: {problem}") from problem
    return await fetcher.fetch(call.tenant, WebRequest(address=address), limits_of(settings))


def limits_of(settings: WebFetchConfig) -> FetchLimits:
    return FetchLimits(
        max_bytes=settings.max_bytes,
        timeout=settings.timeout,
        max_redirects=settings.max_redirects,
    )


def picture_parts(fetched: Fetched, mime: str) -> Sequence[Part]:
    """The picture that was fetched, for a model. Raises :exc:`ToolFailed` for one too large."""
    if fetched.is_cut or len(fetched.body) > LARGEST_IMAGE:
        most = min(len(fetched.body), LARGEST_IMAGE)
        raise ToolFailed(f"the picture has more than {most} bytes, which is the limit")
    content = base64.b64encode(fetched.body).decode()
    return image_parts([{"mimeType": mime, "content": content}])


def _shown(fetched: Fetched, limit: int, *, with_marks: bool) -> _Shown:
    """Blocks. Raises :exc:`FetchFailed` for what is not to be read as text."""
    body, kind = fetched.body, fetched.media_type
    if (mime := picture_type(body[:16])) is not None:
        return _Shown(ReadablePage("", "", is_cut=False), mime)
    if kind in _UNKNOWN:
        kind = _guessed(body)
    if kind in _HTML:
        html = decoded_text(body, fetched.content_type)
        page = read_html(html, url=fetched.address.text, limit=limit, with_marks=with_marks)
        return _Shown(ReadablePage(page.title, page.text, page.is_cut or fetched.is_cut))
    if not _is_text(kind):
        raise FetchFailed(
            f"{fetched.address.authority}: it is {kind[:80]!r}, which cannot be shown as text"
        )
    text = visible(decoded_text(body, fetched.content_type).replace("\r\n", "\n"))
    return _Shown(ReadablePage("", text[:limit], len(text) > limit or fetched.is_cut))


def _guessed(body: bytes) -> str:
    head = body[:2048].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    return "application/octet-stream" if b"\0" in body[:8192] else "text/plain"


def _is_text(kind: str) -> bool:
    return kind.startswith("text/") or kind in _TEXT or kind.endswith(("+json", "+xml", "+yaml"))


def _result(call: ToolCall, fetched: Fetched, shown: _Shown) -> ToolResult:
    page = shown.page
    is_error = not 200 <= fetched.status < 300
    parts: Sequence[Part] = ()
    text = page.text
    if is_error:
        text = text[:_EXCERPT]
    elif shown.picture is not None:
        size = len(fetched.body)
        text = f"(a picture, {shown.picture}, {size} bytes)"
        if call.model_reads_pictures:
            parts = picture_parts(fetched, shown.picture)
        else:
            text += " This model does not read pictures."
    elif page.is_cut:
        text += f"\n\n[Only the first {len(text)} characters are shown.]"
    lines = [f"URL: {fetched.address.text}", f"Status: {fetched.status}"]
    if page.title:
        lines.append(f"Title: {page.title}")
    return ToolResult(
        text="\n".join(lines) + f"\n\n{text or '(there is nothing to read)'}",
        parts=parts,
        is_error=is_error,
        details={
            "url": fetched.address.text,
            "status": fetched.status,
            "contentType": fetched.media_type,
            "title": page.title,
            "length": len(page.text),
            "truncated": page.is_cut,
        },
        untrusted=Source.WEB,
    )
