"""MCP's streamable HTTP over connections of ours. Loads the SDK; see ``mcp_connection``.

The SDK has such a transport as well. It follows a server's orders on when and
how often to come again, has no bound on one answer, leaves requests under
way that nobody waits for, and ends as a whole if one of them fails. This one
does the same work within bounds: a request that fails, fails alone.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import trio
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import (
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from appliance.config.tool_schema import McpServerConfig
from appliance.protocols.sse import EventSplitter, payloads
from appliance.providers.connections import AnswerTooLarge, Response
from appliance.services.mcp.address import FAILURES, Address, why
from appliance.services.mcp.server import ServerGone
from appliance.services.mcp.streams import GuardedStream, GuardedStreams
from appliance.services.tools.base import ToolTenant
from appliance.storage.credentials import Vault

log = logging.getLogger(__name__)

_NOTIFYING = 10.0  # seconds for what has no answer
_MOST_ERROR = 64 * 1024  # bytes of an answer that is an error
_MOST_EVENTS = 2  # of the longest message: all events before an answer
_SILENCE = 3600.0  # seconds that a stream of what is said unasked may be silent
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0  # seconds before such a stream is opened again
_GOODBYE = 5.0  # seconds
_LONGEST_SESSION = 512  # characters
_FAILED = -32_000
_CLOSED = (anyio.BrokenResourceError, anyio.ClosedResourceError)


@asynccontextmanager
async def http_streams(
    tenant: ToolTenant, address: str, config: McpServerConfig, *, vault: Vault, longest: int
) -> AsyncIterator[GuardedStreams]:
    """Raises :exc:`ServerGone` where the address may not be reached."""
    door = Address(tenant, address, config, vault=vault)
    to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_us = anyio.create_memory_object_stream[SessionMessage](0)
    guard = GuardedStream(incoming)
    try:
        async with trio.open_nursery() as nursery:
            client = _Client(
                door, to_us, guard, nursery, patience=config.call_timeout, longest=longest
            )
            nursery.start_soon(client.send_all, from_us)
            yield guard, outgoing
            if not guard.ended.is_set():
                await client.say_goodbye()
            nursery.cancel_scope.cancel()
    finally:
        door.close()
        for stream in (to_us, incoming, outgoing, from_us):
            stream.close()


class _Client:
    def __init__(
        self,
        door: Address,
        to_us: "anyio.abc.ObjectSendStream[SessionMessage | Exception]",
        guard: GuardedStream,
        nursery: trio.Nursery,
        *,
        patience: float,
        longest: int,
    ) -> None:
        self._door = door
        self._to_us = to_us
        self._guard = guard
        self._nursery = nursery
        self._patience = patience
        self._longest = longest
        self._session = ""
        self._version = ""
        self._under_way: dict[int | str, trio.CancelScope] = {}

    async def send_all(self, from_us: "anyio.abc.ObjectReceiveStream[SessionMessage]") -> None:
        async for session_message in from_us:
            message, metadata = session_message.message, session_message.metadata
            if isinstance(metadata, ClientMessageMetadata) and metadata.headers:
                self._version = metadata.headers.get("mcp-protocol-version", self._version)
            if isinstance(message, JSONRPCRequest):
                scope = self._under_way[message.id] = trio.CancelScope()
                self._nursery.start_soon(self._ask, message, scope)
            elif isinstance(message, JSONRPCNotification) and message.method == (
                "notifications/initialized"
            ):
                # Before anything else, so it is waited for.
                await self._tell(message)
                self._nursery.start_soon(self._listen)
            else:
                self._nursery.start_soon(self._tell, message)

    async def say_goodbye(self) -> None:
        if self._session:
            with trio.move_on_after(_GOODBYE):
                await self._finish("DELETE", b"")

    # One message

    async def _tell(self, message: JSONRPCMessage) -> None:
        """Send what has no answer. Whether that works is seen with the next request."""
        await self._finish("POST", _encoded(message))
        if isinstance(message, JSONRPCNotification) and message.method == (
            "notifications/cancelled"
        ):
            # Nobody waits for it any more, whatever the server makes of that.
            scope = self._under_way.get((message.params or {}).get("requestId", ""))
            if scope is not None:
                scope.cancel()

    async def _finish(self, method: str, body: bytes) -> None:
        try:
            response = await self._door.exchange(method, self._headers(), body, patience=_NOTIFYING)
            response.release()
        except (ServerGone, *FAILURES) as error:
            log.debug("an MCP server was not told", extra={"failure": type(error).__name__})

    async def _ask(self, message: JSONRPCRequest, scope: trio.CancelScope) -> None:
        try:
            with scope:
                problem = await self._outcome(message)
                if problem:
                    if message.method == "initialize":
                        self._guard.end(problem)
                    error = ErrorData(code=_FAILED, message=problem)
                    await self._hand(JSONRPCError(jsonrpc="2.0", id=message.id, error=error))
        except _CLOSED:
            pass  # nobody listens any more
        finally:
            del self._under_way[message.id]

    async def _outcome(self, message: JSONRPCRequest) -> str:
        """Hand on what is answered, or return why there is no answer."""
        try:
            response = await self._door.exchange(
                "POST", self._headers(), _encoded(message), patience=self._patience
            )
            try:
                return await self._answered(message, response)
            finally:
                response.release()
        except ServerGone as error:
            return str(error)
        except FAILURES as error:
            return why(error, longest=self._longest)

    async def _answered(self, message: JSONRPCRequest, response: Response) -> str:
        kind = _header(response, b"content-type").lower()
        if _header(response, b"content-encoding").lower() not in {"", "identity"}:
            return "it compressed its answer without being asked to"
        if response.status == 404 and self._session:
            # Only another connection helps, which begins another session.
            self._guard.end("it has ended the session")
        if 300 <= response.status < 400:
            return "it redirects to another address; configure that one if it is right"
        if response.status >= 400:
            return await self._failed(message, response)
        if message.method == "initialize":
            session = _header(response, b"mcp-session-id")
            if session.isascii() and session.isprintable() and len(session) <= _LONGEST_SESSION:
                self._session = session
        if kind.startswith("text/event-stream"):
            return await self._events(message, response)
        content = await response.read_all(limit=self._longest, patience=self._patience)
        return "" if await self._take(content, message) else "its answer is not MCP's"

    async def _failed(self, message: JSONRPCRequest, response: Response) -> str:
        """The server's own words if they are MCP's, else ours."""
        remedy = "; look at its credential" if response.status in {401, 403} else ""
        ours = f"it answered HTTP {response.status}{remedy}"
        try:
            content = await response.read_all(limit=_MOST_ERROR, patience=_NOTIFYING)
            told = msgspec.json.decode(content)
        except (AnswerTooLarge, ValueError, RecursionError):
            return ours
        # It may not have come as far as to know what it answers to.
        if not isinstance(told, dict) or not isinstance(told.get("error"), dict):
            return ours
        told["id"] = message.id
        return "" if await self._take(msgspec.json.encode(told), message) else ours

    async def _events(self, message: JSONRPCRequest, response: Response) -> str:
        deadline = trio.current_time() + self._patience
        splitter = EventSplitter(limit_bytes=self._longest)
        left = _MOST_EVENTS * self._longest
        while data := await response.read_some(patience=max(0.0, deadline - trio.current_time())):
            left -= len(data)
            if left < 0:
                raise AnswerTooLarge
            for payload in payloads(splitter.feed(data)):
                if await self._take(payload, message):
                    return ""
        return "it ended its answer before there was one"

    # What the server says

    async def _take(self, text: bytes, asked: JSONRPCRequest | None) -> bool:
        """Hand a message on; return whether it is the answer to what was ``asked``."""
        if not self._guard.spend(len(text) / self._longest):
            return False
        try:
            message = jsonrpc_message_adapter.validate_json(text, by_name=False)
        except (ValidationError, ValueError):
            return False
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            await self._hand(message)
            return False
        if asked is None or message.id != asked.id:
            return False
        await self._hand(message)
        return True

    async def _hand(self, message: JSONRPCMessage) -> None:
        await self._to_us.send(SessionMessage(message))

    async def _listen(self) -> None:
        """Keep a stream open for what the server says unasked, if it has such a thing."""
        pause = _FIRST_PAUSE
        while self._session and not self._guard.ended.is_set():
            began = trio.current_time()
            try:
                if not await self._listen_once():
                    return
            except _CLOSED:
                return
            except (ServerGone, *FAILURES) as error:
                log.debug("an MCP stream ended", extra={"failure": type(error).__name__})
            lasted = trio.current_time() - began
            pause = _FIRST_PAUSE if lasted > _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)
            await trio.sleep(pause)

    async def _listen_once(self) -> bool:
        """False where there is no such stream."""
        response = await self._door.exchange("GET", self._headers(), b"", patience=self._patience)
        try:
            kind = _header(response, b"content-type").lower()
            if response.status != 200 or not kind.startswith("text/event-stream"):
                return False
            splitter = EventSplitter(limit_bytes=self._longest)
            while data := await response.read_some(patience=_SILENCE):
                for payload in payloads(splitter.feed(data)):
                    await self._take(payload, None)
                if self._guard.ended.is_set():
                    return False
            return True
        finally:
            response.release()

    def _headers(self) -> dict[str, str]:
        headers = {
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "mcp-session-id": self._session,
            "mcp-protocol-version": self._version,
        }
        return {name: value for name, value in headers.items() if value}


def _encoded(message: JSONRPCMessage) -> bytes:
    text = message.model_dump_json(by_alias=True, exclude_unset=True)
    return text.encode(errors="replace")


def _header(response: Response, name: bytes) -> str:
    return (response.header(name) or b"").decode("latin-1").strip()
