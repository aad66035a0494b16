"""The tools of the agents, with what each of them works on."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from appliance.services.approvals.approvals import Approvals
from appliance.services.chat import ChatService
from appliance.services.sandboxes.sandboxes import Sandboxes
from appliance.services.session_listing import SessionListings
from appliance.services.subagents import Subagents
from appliance.services.tools import exec as exec_tool
from appliance.services.tools import files, patching, processes, searching, sessions
from appliance.services.tools.base import Tool
from appliance.services.tools.image import image_tool
from appliance.services.tools.messaging import message_tool
from appliance.services.tools.toolbox import Toolbox
from appliance.services.tools.web_fetch import WebFetch
from appliance.services.tools.web_search import WebSearch
from appliance.services.web_pages import WebFetcher
from appliance.storage.credentials import Vault


def build_tools(
    *,
    sandboxes: Sandboxes,
    approvals: Approvals,
    chat: ChatService,
    listings: SessionListings,
    clock: Callable[[], datetime],
) -> Iterator[Tool[Any]]:
    """Every tool that is the same for all, in the order they are shown."""
    yield from files.tools()
    yield from patching.tools()
    yield from searching.tools(sandboxes)
    yield from exec_tool.tools(sandboxes, approvals, clock=clock)
    yield from processes.tools(approvals)
    subagents = Subagents(chat, clock=clock)
    yield from sessions.tools(sessions.SessionTools(listings, chat, subagents))
    yield message_tool(chat)


def add_web_tools(toolbox: Toolbox, *, vault: Vault) -> None:
    """What looks at the web; some of it only where a tenant has set it up."""
    fetcher = WebFetcher()
    toolbox.add(image_tool(fetcher))
    toolbox.add_source(WebFetch(fetcher))
    toolbox.add_source(WebSearch(fetcher, vault=vault))
