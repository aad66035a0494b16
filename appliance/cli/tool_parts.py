"""The tools of the agents, with what each of them works on."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from appliance.services.approvals import Approvals
from appliance.services.chat import ChatService
from appliance.services.sandboxes import Sandboxes
from appliance.services.session_listing import SessionListings
from appliance.services.subagents import Subagents
from appliance.services.tools import exec as exec_tool
from appliance.services.tools import files, patching, processes, searching, sessions
from appliance.services.tools.base import Tool
from appliance.services.tools.messaging import message_tool


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
