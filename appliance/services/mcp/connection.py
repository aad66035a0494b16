"""Connections to MCP servers, made with the official SDK.

Loading this takes a second or two and tens of megabytes, so nobody does who
has no server. Of the SDK we use the handshake, the correlation of requests.
Its transports start programs of the machine and dial what they like, so
those are ours; listings and results are read by ourselves, too: its own
reading checks results against schemas that the server wrote, whose patterns
could keep the gateway busy for ever. Nothing is offered to servers: no
sampling, no elicitation, no roots.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import mcp_types
import trio
from mcp.client._transport import WriteStream
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage

import appliance
from appliance.config.tool_schema import McpServerConfig
from appliance.model.mcp_tools import MOST_TOOLS, RemoteTool, read_tools
from appliance.services.mcp.http import http_streams
from appliance.services.mcp.server import CallTimedOut, Link, ServerGone, ServerRefused
from appliance.services.mcp.streams import GuardedStream, GuardedStreams, sandbox_streams
from appliance.services.sandboxes.sandboxes import Sandboxes, SandboxRequest
from appliance.services.tools.base import ToolTenant
from appliance.storage.credentials import Vault

_LEAST_MESSAGE = 4 * 1024 * 1024  # bytes; a listing may be longer than a result
_ENVELOPE = 64 * 1024  # bytes around a result
_MOST_PAGES = 20
_MOST_PROGRESS = 500  # characters
_LISTING = 30.0  # seconds
_TELLING = 6.0  # seconds for the server to take notice that nobody waits any more

# They write down what servers say, in whole; what we need to know we log ourselves.
for _name in ("mcp", "client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@asynccontextmanager
async def connect(
    tenant: ToolTenant,
    name: str,
    config: McpServerConfig,
    *,
    sandboxes: Sandboxes,
    vault: Vault,
) -> AsyncIterator[Link]:
    """Start the server, or dial it, and shake hands.

    Raises :exc:`ServerGone`, and what ``Sandboxes.open`` raises.
    """
    longest = max(config.max_result_bytes, _LEAST_MESSAGE) + _ENVELOPE
    opened: AbstractAsyncContextManager[GuardedStreams]
    if config.url is not None:
        opened = http_streams(tenant, config.url, config, vault=vault, longest=longest)
    elif config.command is not None:
        request = SandboxRequest(
            agent="main",
            command=config.command,
            environment=config.environment,
            purpose="mcp",
        )
        opened = sandbox_streams(sandboxes.open(tenant, request), longest=longest)
    else:
        raise ServerGone("it has neither a command nor a url")
    async with opened as (incoming, outgoing), _session(name, incoming, outgoing) as link:
        yield link


@asynccontextmanager
async def _session(
    name: str, guard: GuardedStream, outgoing: WriteStream[SessionMessage]
) -> AsyncIterator[Link]:
    dispatcher: JSONRPCDispatcher[Any] = JSONRPCDispatcher(guard, outgoing)
    link = _SdkLink(name, dispatcher, guard)
    async with ClientSession(
        dispatcher=dispatcher,
        message_handler=link.take,
        client_info=mcp_types.Implementation(name="OpenClawMU", version=appliance.__version__),
    ) as session:
        try:
            await session.initialize()
        except MCPError as error:
            raise ServerGone(link.why(error)) from None
        except (RuntimeError, ValueError) as error:
            raise ServerGone("its handshake is not MCP's") from error
        yield link


class _SdkLink:
    """Satisfies ``Link``."""

    def __init__(
        self, server: str, dispatcher: JSONRPCDispatcher[Any], guard: GuardedStream
    ) -> None:
        self.changed = trio.Event()
        self._server = server
        self._dispatcher = dispatcher
        self._guard = guard

    @property
    def ended(self) -> trio.Event:
        return self._guard.ended

    @property
    def reason(self) -> str:
        return self._guard.reason

    async def take(self, message: object) -> None:
        """What the server says unasked."""
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self.changed.set()

    async def list(self) -> Sequence[RemoteTool]:
        self.changed = trio.Event()
        listed: list[object] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            answer = await self._ask("tools/list", params, limit=_LISTING)
            page = answer.get("tools")
            if isinstance(page, list):
                listed += page[:MOST_TOOLS]
            following = answer.get("nextCursor")
            if not isinstance(following, str) or not following or len(listed) >= MOST_TOOLS:
                break
            cursor = following
        return read_tools(self._server, listed)

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        limit: float,
        progress: Callable[[str], None],
    ) -> Mapping[str, Any]:
        async def tell(done: float, total: float | None, message: str | None) -> None:
            of = "" if total is None else f" of {total:g}"
            progress(f"{done:g}{of} {message or ''}".rstrip()[:_MOST_PROGRESS] + "\n")

        params = {"name": name, "arguments": dict(arguments)}
        return await self._ask("tools/call", params, limit=limit, tell=tell)

    async def _ask(
        self, method: str, params: Mapping[str, Any], *, limit: float, tell: Any = None
    ) -> Mapping[str, Any]:
        options: dict[str, Any] = {"timeout": limit}
        if tell is not None:
            options["on_progress"] = tell
        if self.ended.is_set():
            raise ServerGone(self.reason)
        try:
            # A server that reads nothing holds up the sending as well.
            with trio.fail_after(limit + _TELLING):
                answer = await self._dispatcher.send_raw_request(
                    method, params, cast("Any", options)
                )
        except trio.TooSlowError:
            raise CallTimedOut from None
        except MCPError as error:
            if error.error.code == mcp_types.REQUEST_TIMEOUT:
                raise CallTimedOut from None
            if self._tells_the_end(error):
                raise ServerGone(self.why(error)) from None
            raise ServerRefused(str(error.error.message)) from None
        return answer if isinstance(answer, dict) else {}

    def _tells_the_end(self, error: MCPError) -> bool:
        """Servers use the same code for failures of their own."""
        is_sdks = error.error.message == "Connection closed"
        is_end = self.ended.is_set() or is_sdks
        return error.error.code == mcp_types.CONNECTION_CLOSED and is_end

    def why(self, error: MCPError) -> str:
        """Why there is no connection, in our own words where we know."""
        if self.reason:
            return self.reason
        if error.error.code == mcp_types.CONNECTION_CLOSED:
            return "it closed the connection"
        return "it refuses the handshake"
