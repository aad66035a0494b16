"""``image``: brings a picture into the conversation, from the workspace or from the web."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from appliance.model.chat_attachments import Part
from appliance.model.pictures import picture_type
from appliance.model.workspace_paths import file_path, printable
from appliance.services.tools.base import (
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)
from appliance.services.tools.file_reading import Picture, read_window
from appliance.services.tools.files import PathText, require_access
from appliance.services.tools.toolbox import occasion_of, policy_for
from appliance.services.tools.web_fetch import UrlText, fetch_page, picture_parts
from appliance.services.turns.requests import agent_of
from appliance.services.web_pages import FetchFailed, WebFetcher
from appliance.services.workspace_access import in_workspace


class ImageParams(ToolParams, frozen=True, kw_only=True):
    path: PathText | None = None
    url: UrlText | None = None
    prompt: Annotated[str, Meta(max_length=10_000, description="What to look for.")] = ""


def image_tool(fetcher: WebFetcher) -> Tool[Any]:
    async def look(call: ToolCall, params: ImageParams) -> ToolResult:
        if not call.model_reads_pictures:
            raise ToolFailed("this model does not read pictures")
        if params.path is not None and params.url is None:
            return _shown(printable(params.path), params, await _from_file(call, params.path))
        if params.url is None or params.path is not None:
            raise ToolFailed("give one of path and url")
        try:
            found = await _from_web(fetcher, call, params.url)
        except FetchFailed as problem:
            return ToolResult(text=str(problem), is_error=True, untrusted=Source.WEB)
        return _shown(params.url, params, found)

    return Tool(
        name="image",
        group="media",
        label="Look at a picture",
        description=(
            "Look at a picture (PNG, JPEG, GIF or WebP): a file of the workspace (path) or one "
            "on the web (url)."
        ),
        params=ImageParams,
        call=look,
        effect=Effect.FETCH,
    )


async def _from_file(call: ToolCall, written: str) -> Sequence[Part]:
    require_access(call)
    path = file_path(written)
    try:
        found = await in_workspace(
            call.tenant, call.key.agent, lambda place: read_window(place, path, lines=1), about=path
        )
    except ToolFailed as problem:
        raise ToolFailed(f"{printable(path)}: {problem}") from problem
    if not isinstance(found, Picture):
        raise ToolFailed(f"{printable(path)} is no picture (PNG, JPEG, GIF or WebP)")
    return found.parts


async def _from_web(fetcher: WebFetcher, call: ToolCall, url: str) -> Sequence[Part]:
    if not call.tenant.config.defaults.tools.web.fetch.enabled:
        raise ToolFailed("nothing is fetched from the web here (tools.web.fetch.enabled is off)")
    occasion = occasion_of(call.key, call.store.find(call.key), channel=call.channel)
    policy = policy_for(call.tenant.config, agent_of(call.tenant, call.key.agent), occasion)
    if not policy.allows("web_fetch", "web"):
        raise ToolFailed("pictures of the web are for who may use web_fetch; give a path")
    fetched = await fetch_page(fetcher, call, url)
    if not 200 <= fetched.status < 300:
        raise FetchFailed(f"{fetched.address.authority}: it answered with status {fetched.status}")
    mime = picture_type(fetched.body[:16])
    if mime is None:
        raise FetchFailed(f"{fetched.address.authority}: what it sent is no picture")
    return picture_parts(fetched, mime)


def _shown(name: str, params: ImageParams, parts: Sequence[Part]) -> ToolResult:
    text = f"The picture {name} follows."
    if params.prompt:
        text += f" Look for this: {params.prompt}"
    source = Source.FILE if params.url is None else Source.WEB
    return ToolResult(text=text, parts=parts, details={"name": name}, untrusted=source)
