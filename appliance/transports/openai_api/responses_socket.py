"""WebSockets at ``/v1/responses``: the same responses, one after the other on one connection.

A frame ``response.create`` asks as a body would; its events come as frames, as
Server-Sent Events without their framing. What is not stored can be continued
as long as the connection lasts.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol, TypeVar

import msgspec
import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.errors import (
    AlreadyExists,
    ApplianceError,
    RateLimited,
    ShuttingDown,
    TokenRejected,
    Unavailable,
)
from appliance.model.ids import new_id
from appliance.model.tokens import Scope
from appliance.protocols.json_body import parse_object
from appliance.protocols.responses.request import ResponsesRequest
from appliance.services.model_calls import OpenCall
from appliance.services.responses.chains import ChainMemory
from appliance.services.responses.responses import Responses
from appliance.services.responses.runs import Asked, ResponseRun
from appliance.tenants.jobs import Revoked
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.bodies import off_the_loop
from appliance.transports.callers import ACCEPTED_AT, Presented, read_headers
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.openai_api.responses import PATH, agent_named, failure_in, session_named
from appliance.transports.raw.call_headers import advised
from appliance.transports.raw.door import Noted
from appliance.transports.raw.failures import Failure
from appliance.transports.raw.wishes import with_wishes
from appliance.transports.websocket.socket import (
    BinaryRefused,
    Receive,
    Send,
    Socket,
    SocketClosed,
    open_socket,
)
from appliance.transports.websocket.throttle import LoginThrottle
from appliance.transports.websocket.upgrade import Upgrade

log = logging.getLogger(__name__)

LONGEST = 3600.0  # seconds
_MOST_BUFFERED = 1024 * 1024  # bytes that wait for a slow reader
_POLL = 0.05  # seconds between two looks at how far it has come
_SWITCHED = 101  # the status of a connection that became a WebSocket
_FRAME = "WS"  # stands for the method of what is asked on one
_LIMIT_REACHED = "websocket_connection_limit_reached"

T = TypeVar("T")


class Goodbye(Exception):
    """Ends the connection with a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class SocketDoor(Protocol):
    """What the raw door does for an upgrade."""

    @property
    def config(self) -> GatewayConfig: ...
    def admit_upgrade(self, scope: dict[str, Any], *, path: str) -> Upgrade: ...
    def client_ip(self, scope: dict[str, Any], presented: Presented) -> str: ...
    def count_refusal(self, error: Exception) -> None: ...
    def note(
        self, scope: Mapping[str, Any], caller: Caller | None, answer: Noted, *, route: str
    ) -> None: ...


class Tenants(Protocol):
    async def perform(
        self,
        tenant: str,
        work: Callable[[TenantRuntime], Awaitable[T]],
        *,
        caller: Caller,
    ) -> T: ...


class ResponsesSocket:
    def __init__(self, responses: Responses, *, door: SocketDoor, tenants: Tenants) -> None:
        self._responses = responses
        self._door = door
        self._tenants = tenants
        self._open: dict[str, int] = {}  # by tenant
        self._sessions: set[_Session] = set()
        self._closing = False
        self._throttle = LoginThrottle(clock=trio.current_time)

    def __len__(self) -> int:
        """Connections that are open."""
        return sum(self._open.values())

    def shut_down(self) -> None:
        """Let nobody in and end all connections, each once its answer is complete."""
        self._closing = True
        for session in self._sessions:
            session.listening.cancel()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        asked = {"method": "GET", "path": scope["path"], ACCEPTED_AT: scope[ACCEPTED_AT]}
        try:
            upgrade, caller = self._admit(scope)
        except ApplianceError as error:
            presented = read_headers(scope["headers"])
            error = self._throttled(error, scope, presented)
            self._door.count_refusal(error)
            failure = advised(failure_of(error, presented.request_id), error)
            noted = _Noted(presented.request_id, failure.status, len(failure.body))
            self._door.note(asked, None, noted, route=PATH)
            await _refuse(send, failure, presented.request_id)
            return
        self._door.note(asked, caller, _Noted(caller.request_id, _SWITCHED), route=PATH)
        tenant = caller.require_tenant()
        self._open[tenant] = self._open.get(tenant, 0) + 1
        named = _Named.of(scope)  # the server empties the scope of an idle connection
        try:
            headers = [(b"x-request-id", caller.request_id.encode())]
            accept = {"subprotocol": upgrade.subprotocol, "headers": headers}
            await send({"type": "websocket.accept", **accept})
            async with open_socket(scope, receive, send) as socket:
                socket.limit_messages(self._door.config.server.websocket.max_frame_bytes)
                session = _Session(self._responses, self._door, socket, caller, named)
                self._sessions.add(session)
                try:
                    goodbye = await self._serve(session, tenant, caller)
                finally:
                    self._sessions.discard(session)
                await socket.close(goodbye.code, goodbye.reason)
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    def _admit(self, scope: dict[str, Any]) -> tuple[Upgrade, Caller]:
        upgrade = self._door.admit_upgrade(scope, path=PATH)
        if upgrade.caller is None:
            raise TokenRejected
        # Browsers send `Cache-Control: no-cache` with every upgrade; it says nothing here.
        caller = with_wishes(upgrade.caller, scope["headers"])
        caller.require(Scope.CHAT)
        tenant = caller.require_tenant()
        if self._closing:
            raise ShuttingDown("the gateway is shutting down")
        limits = self._door.config.server.websocket
        if len(self) >= limits.max_connections:
            raise Unavailable("the gateway has as many connections as it takes", retry_after=5)
        if self._open.get(tenant, 0) >= limits.max_connections_per_tenant:
            raise RateLimited(
                f"a tenant has at most {limits.max_connections_per_tenant} connections",
                retry_after=5,
            )
        return upgrade, caller

    def _throttled(
        self, error: ApplianceError, scope: dict[str, Any], presented: Presented
    ) -> ApplianceError:
        """``error``, or that there were too many wrong tokens from there."""
        if not isinstance(error, TokenRejected):
            return error
        limits = self._door.config.server.websocket
        wait = self._throttle.note_failure(
            self._door.client_ip(scope, presented),
            most=limits.login_failures_per_minute,
            lockout=limits.login_lockout or 0,
        )
        if wait is None:
            return error
        return RateLimited("too many wrong tokens came from this address", retry_after=wait)

    async def _serve(self, session: "_Session", tenant: str, caller: Caller) -> Goodbye:
        try:
            return await self._tenants.perform(tenant, session.live, caller=caller)
        except Revoked:
            return Goodbye(1008, "token revoked")
        except ShuttingDown:
            return Goodbye(1012, "service restart")
        except ApplianceError as error:
            session.tell(failure_of(error, caller.request_id))
            return Goodbye(1013 if error.retry_after is not None else 1008, error.title)
        except Exception:
            # The transport's edge: the server below would drop it without a word.
            log.exception("a connection failed")
            return Goodbye(1011, "something broke on our side")


@dataclass(frozen=True, slots=True)
class _Noted:
    """What is noted of an upgrade or of a frame; satisfies ``raw.door.Noted``."""

    request_id: str
    status: int
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Named:
    """The headers of the upgrade that say which agent and session are meant."""

    agent: bytes | None
    session: bytes | None

    @classmethod
    def of(cls, scope: dict[str, Any]) -> "_Named":
        headers = dict(scope["headers"])
        return cls(headers.get(b"x-openclaw-agent-id"), headers.get(b"x-openclaw-session-key"))


@dataclass(slots=True, eq=False)
class _Session:
    """One connection. :meth:`live` is work of its tenant."""

    responses: Responses
    door: SocketDoor
    socket: Socket
    caller: Caller
    named: _Named
    memory: ChainMemory = field(default_factory=ChainMemory)
    is_busy: bool = False
    sent_bytes: int = 0
    listening: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def live(self, tenant: TenantRuntime) -> Goodbye:
        """Answer what comes in until somebody ends it; return how to say goodbye."""
        self.memory = ChainMemory(tenant.state.responses.chains)
        try:
            return await self._live(tenant)
        finally:
            self.memory.clear()

    async def _live(self, tenant: TenantRuntime) -> Goodbye:
        goodbye = Goodbye(1012, "service restart")
        with trio.move_on_after(LONGEST) as limit:
            async with trio.open_nursery() as nursery:
                with self.listening:
                    goodbye = await self._listen(tenant, nursery)
                    nursery.cancel_scope.cancel()
        if limit.cancelled_caught:
            reason = "the connection has been open for 60 minutes; open another"
            error = {
                "type": "invalid_request_error", "code": _LIMIT_REACHED, "message": reason,
                "param": None,
            }  # fmt: skip
            self._send_error(400, error)
            return Goodbye(1000, _LIMIT_REACHED)
        return goodbye

    async def _listen(self, tenant: TenantRuntime, nursery: trio.Nursery) -> Goodbye:
        while True:
            if not await self._is_read():
                return Goodbye(1008, "the events are not read")
            try:
                frame = await self.socket.receive()
            except SocketClosed as closed:
                if closed.code == 1009:
                    return Goodbye(1009, "the message is too large")
                return Goodbye(1000, "")
            except BinaryRefused:
                return Goodbye(1003, "text frames only")
            if self.is_busy:
                busy = AlreadyExists("a response is under way on this connection; wait for its end")
                self.tell(failure_of(busy, self.caller.request_id))
                continue
            self.is_busy = True
            nursery.start_soon(self._answer, tenant, frame, nursery)

    async def _answer(self, tenant: TenantRuntime, frame: bytes, nursery: trio.Nursery) -> None:
        caller = replace(self.caller, request_id=new_id("req"))
        asked = {"method": _FRAME, "path": PATH, ACCEPTED_AT: perf_counter()}
        sent = self.sent_bytes
        status = 0  # as over HTTP: nothing was answered
        run: ResponseRun | None = None
        try:
            run = self.responses.begin(await self._read(tenant, frame))
            await self.responses.answer(tenant, caller, run, _FrameSink(self, run))
            status = 200
        except Goodbye:
            self.socket.abort()
            nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - the edge: whoever asked is told
            self.door.count_refusal(error)
            status = self._tell_failure(run, error, caller)
        finally:
            self.is_busy = False
            noted = _Noted(caller.request_id, status, self.sent_bytes - sent)
            self.door.note(asked, caller, noted, route=PATH)

    async def _read(self, tenant: TenantRuntime, frame: bytes) -> Asked:
        limit = self.door.config.server.max_body_bytes

        def read() -> ResponsesRequest:
            return ResponsesRequest.of_frame(parse_object(frame, limit_bytes=limit))

        request = await off_the_loop(frame, read)
        agent = agent_named(request.model, self.named.agent)
        session = (
            None
            if agent is None
            else session_named(tenant.id, agent, self.named.session, request.user)
        )
        return Asked(request=request, agent=agent, session=session, memory=self.memory)

    def _tell_failure(self, run: ResponseRun | None, error: Exception, caller: Caller) -> int:
        """Return its status; 200 where events were told before."""
        if run is not None and run.has_begun:
            if not run.failure:
                failure_in(run, error, caller.request_id)  # writes the events
            self._send_events(run)
            return 200
        if run is None:
            failure = failure_of(error, caller.request_id)
        else:
            run.events.clear()
            failure = failure_in(run, error, caller.request_id)
        self.tell(failure)
        return failure.status

    def _send_events(self, run: ResponseRun) -> None:
        for _, event in run.take_events():
            self._send(event)

    def _send(self, text: bytes) -> None:
        self.socket.send(text)
        self.sent_bytes += len(text)

    def tell(self, failure: Failure) -> None:
        """Send a failure that belongs to no response."""
        self._send_error(failure.status, msgspec.json.decode(failure.body)["error"])

    def _send_error(self, status: int, error: object) -> None:
        self._send(msgspec.json.encode({"type": "error", "status": status, "error": error}))

    async def send(self, run: ResponseRun) -> None:
        """Send the events that were written; raises :exc:`Goodbye` for who does not read them."""
        self._send_events(run)
        await trio.lowlevel.checkpoint()
        if not await self._is_read():
            raise Goodbye(1008, "the events are not read")

    async def _is_read(self) -> bool:
        """Wait until the client has read most of what was sent; False: it takes too long.

        Whoever only sends is not listened to either: each frame has an answer that waits.
        """
        patience = trio.current_time() + self.door.config.server.body_timeout
        while self.socket.buffered > _MOST_BUFFERED:
            if trio.current_time() > patience:
                return False
            await trio.sleep(_POLL)
        return True


class _FrameSink:
    """Satisfies ``services.responses.runs.ResponseSink``."""

    def __init__(self, session: _Session, run: ResponseRun) -> None:
        self._session = session
        self._run = run

    async def begin(self, call: OpenCall) -> None:
        await trio.lowlevel.checkpoint()

    async def send(self, events: bytes) -> None:
        await self._session.send(self._run)

    async def finish(self, call: OpenCall, rest: bytes) -> None:
        await self._session.send(self._run)


async def _refuse(send: Send, failure: Failure, request_id: str) -> None:
    """Answer the upgrade with an error instead of a WebSocket."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(failure.body)).encode()),
        (b"connection", b"close"),
        (b"x-request-id", request_id.encode()),
        *failure.headers,
    ]
    start = {"status": failure.status, "headers": headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": failure.body, "more_body": False})
