"""One live connection: its requests, its events, its backlog.

A connection is served as one job of its tenant. Requests that only read
memory are answered where they are read; the others are tasks of the
connection, bounded in number, and leave with it. What must outlive it (a run
of an agent) is started as work of the tenant by the service concerned.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec
import trio

from appliance.log import log_context
from appliance.model.callers import Caller
from appliance.model.operator_scopes import OperatorScope, Role, covers
from appliance.protocols.gateway import WireError
from appliance.protocols.json_body import INLINE_BYTES
from appliance.services.clients import ClientInfo
from appliance.services.events import Audience, Event
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.rpc.dispatch import Dispatcher, encode
from appliance.transports.rpc.failures import too_many_in_flight
from appliance.transports.rpc.method import Answer, Method
from appliance.transports.rpc.permissions import Permissions, Rights
from appliance.transports.websocket.aliases import SPEAKS_FOR_ITSELF, SessionAliases
from appliance.transports.websocket.delivered import Delivered
from appliance.transports.websocket.dialects import Dialect, MessageInvalid, Request
from appliance.transports.websocket.socket import BinaryRefused, Socket, SocketClosed

log = logging.getLogger(__name__)

TOOL_EVENTS = "tool-events"  # the capability of clients that show tools at work


class ConnectionLimits(Protocol):
    """The part of ``server.websocket`` that matters here."""

    @property
    def max_in_flight(self) -> int: ...
    @property
    def max_buffered_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What the handshake found out about a client."""

    conn_id: str
    caller: Caller
    role: Role
    scopes: frozenset[OperatorScope]
    info: ClientInfo
    device_id: str | None
    node_id: str | None
    connected_at: datetime


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Why a connection ends: a WebSocket close code and a reason for people."""

    code: int
    reason: str


CLIENT_LEFT = Goodbye(1000, "")
SLOW_CONSUMER = Goodbye(1008, "slow consumer")


class Connection:
    """Satisfies :class:`~appliance.services.clients.Client` and ``events.Subscriber``."""

    __slots__ = (
        "_admission",
        "_aliases",
        "_audiences",
        "_dialect",
        "_dispatcher",
        "_errands",
        "_errands_done",
        "_goodbye",
        "_in_flight",
        "_limits",
        "_lost",
        "_nursery",
        "_outside",
        "_permissions",
        "_rights",
        "_seq",
        "_socket",
        "_table",
        "_tenant",
        "_watched",
        "came_after",
        "delivered",
        "is_welcome",
        "watches_sessions",
    )  # fmt: skip

    def __init__(
        self,
        socket: Socket,
        dialect: Dialect,
        admission: Admission,
        *,
        dispatcher: Dispatcher,
        permissions: Permissions,
        limits: Callable[[], ConnectionLimits],
        errands: trio.Nursery,
    ) -> None:
        self._socket = socket
        self._dialect = dialect
        self._admission = admission
        self._dispatcher = dispatcher
        self._permissions = permissions
        self._limits = limits
        self._errands = errands  # outlives the tenant's job, by a little
        self._rights = Rights.of(admission.caller, admission.role, admission.scopes)
        self._table: Mapping[str, Method] = permissions.table(self._rights)
        self._audiences = _audiences(admission)
        self._outside = 0  # errands under way
        self._errands_done: trio.Event | None = None
        self._nursery: trio.Nursery | None = None
        self._tenant: TenantRuntime | None = None
        self._goodbye: Goodbye | None = None
        self._in_flight = 0
        self._seq = 0
        self._lost = 0
        self.is_welcome = False  # its greeting was answered
        self.came_after = 0  # the tenant's latest event then
        self.delivered: Delivered | None = None  # made with the first event
        self.watches_sessions = False
        self._aliases: SessionAliases | None = None
        self._watched: set[str] | None = None  # made with the first of them

    # -- Client ----------------------------------------------------------

    @property
    def id(self) -> str:
        return self._admission.conn_id

    @property
    def protocol(self) -> int:
        return self._dialect.protocol

    @property
    def caller(self) -> Caller:
        return self._admission.caller

    @property
    def role(self) -> Role:
        return self._admission.role

    @property
    def scopes(self) -> frozenset[OperatorScope]:
        return self._admission.scopes

    @property
    def info(self) -> ClientInfo:
        return self._admission.info

    @property
    def device_id(self) -> str | None:
        return self._admission.device_id

    @property
    def node_id(self) -> str | None:
        return self._admission.node_id

    @property
    def connected_at(self) -> datetime:
        return self._admission.connected_at

    @property
    def watched_sessions(self) -> set[str]:
        if self._watched is None:
            self._watched = set()
        return self._watched

    @property
    def buffered(self) -> int:
        return self._socket.buffered

    @property
    def methods(self) -> Mapping[str, Method]:
        return self._table

    def send_event(self, name: str, payload: object) -> bool:
        if self._goodbye is not None:
            return False
        data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        self._seq += 1
        self._send(self._dialect.lone_event(name, data, self._seq))
        return self._goodbye is None

    def drop(self, code: int, reason: str) -> None:
        self.leave(Goodbye(code, reason))

    def leave(self, goodbye: Goodbye) -> None:
        """End the connection soon; the first reason counts."""
        if self._goodbye is None:
            self._goodbye = goodbye
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # -- Subscriber ------------------------------------------------------

    def deliver(self, event: Event) -> None:
        if self._goodbye is not None or not self._wants(event):
            return
        if event.droppable and self._socket.buffered > self._limits().max_buffered_bytes // 2:
            # A number that never comes makes the client ask for the whole again.
            self._seq += 1
            self._lost += 1
            return
        if self._lost:
            self._tell_lag()
        self._seq += 1
        if self.delivered is None:
            self.delivered = Delivered()
        self.delivered.note(self._seq, event.number)
        if self._aliases is not None:
            event = self._aliases.spelled(event)
        self._send(self._dialect.event(event, self._seq))

    def _wants(self, event: Event) -> bool:
        audience = event.audience
        if audience in self._audiences:
            return True
        # Who subscribed was allowed to, a node for what it shows included.
        if audience is Audience.SESSION_LIST:
            return self.watches_sessions
        return audience is Audience.SESSION and event.session in (self._watched or ())

    def replay(self, events: list[Event]) -> None:
        """Deliver what a client missed while it was away."""
        for event in events:
            self.deliver(event)

    # -- life ------------------------------------------------------------

    async def serve(self, tenant: TenantRuntime | None, early: Sequence[Request] = ()) -> None:
        """Answer until the client leaves or :meth:`leave` is called. The tenant's job.

        ``early`` is what the client asked together with its greeting.
        """
        self._tenant = tenant
        async with trio.open_nursery() as nursery:
            if self._goodbye is None:
                self._nursery = nursery
                try:
                    for request in early:
                        self.begin(request)
                    while True:
                        await self._take(await self._socket.receive())
                except SocketClosed as closed:
                    self._goodbye = self._goodbye or Goodbye(closed.code, "")
                except BinaryRefused:
                    self._goodbye = Goodbye(1003, "text frames only")
                finally:
                    self._nursery = None
                nursery.cancel_scope.cancel()

    async def wait_errands(self) -> None:
        """Wait for the requests that outlive the job: their answers still leave."""
        if self._outside:
            self._errands_done = trio.Event()
            await self._errands_done.wait()

    @property
    def goodbye(self) -> Goodbye:
        return self._goodbye or CLIENT_LEFT

    def tick(self, payload: bytes) -> None:
        if self._goodbye is None and self._socket.buffered == 0:
            self._seq += 1
            self._socket.send(self._dialect.lone_event("tick", payload, self._seq))

    # -- requests --------------------------------------------------------

    async def _take(self, data: bytes) -> None:
        try:
            if len(data) > INLINE_BYTES:
                # 25 MB take up to 170 ms, which others need not wait for.
                requests = await trio.to_thread.run_sync(self._dialect.read, data)
            else:
                requests = self._dialect.read(data)
        except MessageInvalid as invalid:
            if invalid.answer is not None:
                self._send(invalid.answer)
            if invalid.ends:
                self.leave(Goodbye(1008, "invalid request frame"))
            return
        for request in requests:
            self.begin(request)

    def begin(self, request: Request) -> None:
        """Answer ``request``, or start to."""
        if request.method == "chat.send" and self.protocol == SPEAKS_FOR_ITSELF:
            self._note_alias(request)
        method = self._table.get(request.method)
        if method is None:
            error = self._permissions.refusal(request.method, self._rights, protocol=self.protocol)
            self._answer(request, error)
        elif method.inline is not None:
            answer = self._dispatcher.answer_at_once(method, request.params, self, self._tenant)
            self._answer(request, answer)
        elif self._in_flight >= self._limits().max_in_flight:
            self._answer(request, too_many_in_flight(self._limits().max_in_flight))
        elif method.outside:
            self._in_flight += 1
            self._outside += 1
            self._errands.start_soon(self._run_errand, method, request)
        elif self._nursery is not None:
            self._in_flight += 1
            self._nursery.start_soon(self._run, method, request)

    def _note_alias(self, request: Request) -> None:
        if self._tenant is not None:
            self._aliases = self._aliases or SessionAliases()
            self._aliases.note(self._tenant.id, request.params)

    async def _run(self, method: Method, request: Request) -> None:
        early: list[Answer] = []
        respond = partial(self._respond, method, request, early)
        try:
            answer = await self._dispatcher.answer(
                method, request.params, self, self._tenant, respond
            )
        finally:
            self._in_flight -= 1
        if method.replies_twice or not early:
            self._answer(request, answer)

    async def _run_errand(self, method: Method, request: Request) -> None:
        # It may end its own credential, and so the job it was asked in.
        try:
            with log_context(tenant=self.caller.tenant):
                await self._run(method, request)
        finally:
            self._outside -= 1
            if self._errands_done is not None and not self._outside:
                self._errands_done.set()

    def _respond(
        self, method: Method, request: Request, early: list[Answer], answer: Answer
    ) -> None:
        """Answer before the method has returned: for good, unless it replies twice."""
        if not method.replies_twice:
            if not early:
                self._answer(request, encode(answer))
        elif (data := self._dialect.interim(request.tag, encode(answer))) is not None:
            self._send(data)
        early.append(answer)

    def _answer(self, request: Request, answer: bytes | WireError) -> None:
        if isinstance(answer, WireError):
            data = self._dialect.error(request.tag, answer)
        else:
            data = self._dialect.result(request.tag, answer)
        if data is not None:
            self._send(data)

    # -- the backlog -----------------------------------------------------

    def _send(self, data: bytes) -> None:
        self._socket.send(data)
        if self._socket.buffered > self._limits().max_buffered_bytes:
            self.leave_slow()

    def leave_slow(self) -> None:
        """The client does not read: tell it, in case it ever does, and go."""
        if self._goodbye is None:
            self._lost += 1
            self._tell_lag()
            self.leave(SLOW_CONSUMER)

    def _tell_lag(self) -> None:
        payload = msgspec.json.encode({"lost": self._lost, "bufferedBytes": self._socket.buffered})
        self._lost = 0
        self._seq += 1
        self._socket.send(self._dialect.lone_event("events.lag", payload, self._seq))


def _audiences(admission: Admission) -> frozenset[Audience]:
    if admission.role is Role.NODE:
        return frozenset({Audience.EVERYONE, Audience.NODES})
    found = {Audience.EVERYONE}
    if covers(admission.scopes, OperatorScope.READ):
        found.add(Audience.READERS)
        if TOOL_EVENTS in admission.info.caps:
            found.add(Audience.TOOL_WATCHERS)
    if covers(admission.scopes, OperatorScope.PAIRING):
        found.add(Audience.PAIRING)
    if covers(admission.scopes, OperatorScope.APPROVALS):
        found.add(Audience.APPROVERS)
    return frozenset(found)
