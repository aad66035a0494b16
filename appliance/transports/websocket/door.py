"""The door for WebSockets: lets clients in, serves them as work of their tenant, sees them out."""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import msgspec
import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.errors import (
    ApplianceError,
    RateLimited,
    ShuttingDown,
    TokenRejected,
    Unavailable,
)
from appliance.model.periods import to_ms
from appliance.protocols import handshake_refusals as refusals
from appliance.protocols.connect import Challenge
from appliance.protocols.gateway import CHALLENGE, end_event, event_head
from appliance.tenants.directory import Supervisor
from appliance.tenants.jobs import Revoked
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.callers import (
    ROUTE_TENANT,
    Peers,
    Presented,
    read_headers,
    require_held,
)
from appliance.transports.websocket.connection import Connection, Goodbye
from appliance.transports.websocket.delivered import LeftConnection, LeftConnections
from appliance.transports.websocket.handshake import Admitted, Handshake, HandshakeRefused, Visit
from appliance.transports.websocket.hello import Hello
from appliance.transports.websocket.socket import (
    BinaryRefused,
    Receive,
    Send,
    Socket,
    SocketClosed,
    open_socket,
)
from appliance.transports.websocket.upgrade import Upgrade, read_upgrade, refuse
from appliance.transports.websocket.waiting_room import WaitingRoom

log = logging.getLogger(__name__)

_MOST_UNKNOWN = 2_048  # connections that have not said who they are
_ERRAND_PATIENCE = 10.0  # seconds for requests that end their own credential
_SERVICE_RESTART = Goodbye(1012, "service restart")
_TOO_LATE = Goodbye(1008, "handshake timeout")
_BINARY = Goodbye(1003, "text frames only")
_TOO_BIG = Goodbye(1009, "the message is too large")
_BROKEN = Goodbye(1011, "something broke on our side")


class TooManyConnections(RateLimited):
    """The tenant has as many connections as it may; ``limit`` is how many."""

    code = "too-many-connections"

    def __init__(self, limit: int) -> None:
        refusal = refusals.too_many_connections(limit)
        super().__init__(refusal.message, retry_after=5, limit=limit)


class LiveAccess(Protocol):
    def is_live(self, caller: Caller) -> bool: ...


class HandshakeCounts(Protocol):
    def handshake(self, outcome: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorParts:
    """What the door works with."""

    config: Callable[[], GatewayConfig]
    access: Any
    holds: Callable[[str], bool]
    peers: Callable[[], Peers]
    supervisor: Supervisor
    handshake: Handshake
    hello: Hello
    connect: Callable[..., Connection]  # Connection with all but what differs
    clock: Callable[[], datetime]
    counts: HandshakeCounts
    most_connections: int  # that this process can hold open, whatever the config says


class WebSocketDoor:
    def __init__(self, parts: DoorParts) -> None:
        self._parts = parts
        self._room = WaitingRoom(most=_MOST_UNKNOWN)
        self._open = 0
        self._connections: dict[Connection, TenantRuntime | None] = {}
        self._left = LeftConnections()
        self._closing = False
        # Requests that may end the credential they were made with. One nursery
        # for all: it is idle most of the time, and each costs 2 KiB.
        self._errands: trio.Nursery | None = None

    def __len__(self) -> int:
        """Connections that are through the handshake."""
        return len(self._connections)

    @property
    def waiting(self) -> int:
        return len(self._room)

    @property
    def connections(self) -> "dict[Connection, TenantRuntime | None]":
        return self._connections

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        try:
            upgrade = self._read(scope)
        except ApplianceError as error:
            self._parts.counts.handshake("refused")
            presented = read_headers(scope["headers"])
            told = self._throttled(error, scope, presented)
            await refuse(send, told, request_id=presented.request_id)
            return
        headers = [(b"x-request-id", upgrade.presented.request_id.encode())]
        accept = {"subprotocol": upgrade.subprotocol, "headers": headers}
        await send({"type": "websocket.accept", **accept})
        self._open += 1
        try:
            async with open_socket(scope, receive, send) as socket:
                try:
                    met = await self._shake_hands(socket, upgrade)
                    del upgrade  # served for days, it would be kept for days
                    goodbye = (
                        met if not isinstance(met, Admitted) else await self._serve(socket, met)
                    )
                except Exception:
                    # The transport's edge: the server below would drop it without a word.
                    log.exception("a connection failed")
                    goodbye = _BROKEN
                if goodbye is not None:
                    await socket.close(goodbye.code, goodbye.reason)
        finally:
            self._open -= 1

    def _read(self, scope: dict[str, Any]) -> Upgrade:
        parts = self._parts
        require_held(scope.get(ROUTE_TENANT), parts.holds)
        if self._closing:
            raise ShuttingDown("the gateway is shutting down")
        server = parts.config().server
        if self._open >= min(server.websocket.max_connections, parts.most_connections):
            raise Unavailable("the gateway has as many connections as it takes", retry_after=5)
        return read_upgrade(
            scope,
            access=parts.access,
            peers=parts.peers(),
            allowed_origins=server.allowed_origins,
        )

    def _throttled(
        self, error: ApplianceError, scope: dict[str, Any], presented: Presented
    ) -> ApplianceError:
        """``error``, or that there were too many like it from there."""
        if not isinstance(error, TokenRejected):
            return error
        ip = self._parts.peers().client_ip(scope, presented)
        wait = self._parts.handshake.note_failure(ip)
        if wait is None:
            return error
        return RateLimited("too many wrong tokens came from this address", retry_after=wait)

    async def _shake_hands(self, socket: Socket, upgrade: Upgrade) -> Admitted | Goodbye | None:
        """Let a client in, or return what to tell it; None to one that left."""
        limits = self._parts.config().server.websocket
        socket.limit_messages(limits.max_frame_bytes_before_auth)
        nonce = secrets.token_urlsafe(24)
        try:
            with (
                self._room.waiting(upgrade.ip, socket.abort),
                trio.fail_after(limits.handshake_timeout),
            ):
                self._challenge(socket, nonce)
                admitted = await self._parts.handshake.admit(
                    await socket.receive(), Visit(upgrade, nonce)
                )
        except trio.TooSlowError:
            self._parts.counts.handshake("timeout")
            return _TOO_LATE
        except BinaryRefused:
            return _BINARY
        except SocketClosed as closed:
            return _TOO_BIG if closed.code == _TOO_BIG.code else None
        except HandshakeRefused as refused:
            self._parts.counts.handshake("refused")
            if refused.frame is not None:
                socket.send(refused.frame)
            return refused.goodbye
        socket.limit_messages(limits.max_frame_bytes)
        return admitted

    def _challenge(self, socket: Socket, nonce: str) -> None:
        challenge = Challenge(nonce=nonce, ts=self._now_ms())
        socket.send(end_event(event_head(CHALLENGE, msgspec.json.encode(challenge)), None))

    # -- an admitted client ----------------------------------------------

    async def _serve(self, socket: Socket, admitted: Admitted) -> Goodbye:
        caller = admitted.admission.caller
        if self._errands is None:
            return _SERVICE_RESTART
        connection = self._parts.connect(
            socket, admitted.dialect, admitted.admission, errands=self._errands
        )
        live = partial(self._live, socket, connection, admitted)
        try:
            if caller.tenant is None:
                await live(None)
            else:
                await self._parts.supervisor.perform(caller.tenant, live, caller=caller)
            goodbye = connection.goodbye
        except ApplianceError as error:
            goodbye = self._end(socket, connection, admitted, error)
        with trio.move_on_after(_ERRAND_PATIENCE):
            await connection.wait_errands()
        return goodbye

    async def _live(
        self,
        socket: Socket,
        connection: Connection,
        admitted: Admitted,
        tenant: TenantRuntime | None,
    ) -> None:
        """Welcome the client and answer it. The tenant's job, if there is one."""
        parts = self._parts
        hello = await parts.hello.prepare(connection, admitted, tenant)
        if self._closing:  # everybody was told already
            raise ShuttingDown("the gateway is shutting down")
        if tenant is None:
            self._welcome(socket, connection, admitted, hello)
            try:
                await connection.serve(None, admitted.early)
            finally:
                self._connections.pop(connection, None)
            return
        most = parts.config().server.websocket.max_connections_per_tenant
        if len(tenant.clients) >= most:
            raise TooManyConnections(most)
        connection.came_after = tenant.events.last
        tenant.clients.add(connection)
        tenant.events.subscribe(connection)
        try:
            self._welcome(socket, connection, admitted, hello, tenant)
            parts.hello.arrived(connection, tenant)
            # Thousands of connections do nothing most of the time: what they
            # hold on to meanwhile is what they cost.
            del hello
            await connection.serve(tenant, admitted.early)
        finally:
            tenant.events.unsubscribe(connection)
            self._connections.pop(connection, None)
            tenant.clients.discard(connection)
            parts.hello.left(connection, tenant)
            self._left.note(tenant.id, connection.id, _left_by(connection, tenant))

    def _welcome(
        self,
        socket: Socket,
        connection: Connection,
        admitted: Admitted,
        hello: bytes,
        tenant: TenantRuntime | None = None,
    ) -> None:
        self._connections[connection] = tenant
        connection.is_welcome = True
        self._parts.counts.handshake("ok")
        if admitted.asked_to_connect:
            answer = admitted.dialect.result(admitted.tag, hello)
            if answer is not None:
                socket.send(answer)
        if tenant is not None and admitted.resume is not None:
            self._resume(connection, admitted, tenant)

    def _resume(self, connection: Connection, admitted: Admitted, tenant: TenantRuntime) -> None:
        resume = admitted.resume
        if resume is None:
            return
        credential = connection.caller.credential
        left = self._left.take(tenant.id, resume.conn_id, credential=credential)
        old = tenant.clients.find(resume.conn_id)
        if isinstance(old, Connection) and old.caller.credential == credential:
            # The network noticed before we did: the new one takes its place.
            left = _left_by(old, tenant)
            old.leave(Goodbye(1012, "replaced by a new connection"))
        missed = None
        if left is not None and left.events is tenant.events:
            connection.watches_sessions = left.watches_sessions
            connection.watched_sessions.update(left.watched_sessions)
            missed = left.missed_since(resume.seq)
        if missed is None:
            connection.send_event(
                "events.gap", {"connId": resume.conn_id, "seq": resume.seq, "ts": self._now_ms()}
            )
        else:
            if missed:  # should this one break too before they are read
                connection.came_after = missed[0].number - 1
            connection.replay(missed)

    def _end(
        self, socket: Socket, connection: Connection, admitted: Admitted, error: ApplianceError
    ) -> Goodbye:
        """Say why the tenant's side ended the connection, or would not have it."""
        if not connection.is_welcome and admitted.asked_to_connect:
            answer = admitted.dialect.error(
                admitted.tag, self._parts.handshake.error(error, admitted.dialect.protocol)
            )
            if answer is not None:
                socket.send(answer)
        return _goodbye_of(error)

    # -- chores ----------------------------------------------------------

    async def run(self) -> None:
        """Hold what outlives a connection, and do the chores, until cancelled."""
        async with trio.open_nursery() as self._errands:
            try:
                await self._do_chores()
            finally:
                self._errands = None

    async def _do_chores(self) -> None:
        """Tick, look after backlogs and forgotten connections."""
        next_tick = trio.current_time() + self._parts.config().server.websocket.tick_interval
        while True:
            await trio.sleep(1)
            now = trio.current_time()
            self._look_after()
            self._left.sweep(now)
            if now >= next_tick:
                next_tick = now + self._parts.config().server.websocket.tick_interval
                await self._tick()

    async def _tick(self) -> None:
        payload = msgspec.json.encode({"ts": self._now_ms()})
        for number, connection in enumerate(list(self._connections)):
            connection.tick(payload)
            if number % 200 == 199:
                await trio.lowlevel.checkpoint()  # others want the loop too

    def _look_after(self) -> None:
        waiting: dict[str, int] = {}
        limit = self._parts.config().server.websocket.max_buffered_bytes_per_tenant
        for connection, tenant in list(self._connections.items()):
            if tenant is None and not self._parts.access.is_live(connection.caller):
                connection.leave(Goodbye(1008, "token revoked"))
            if tenant is not None and connection.buffered:
                waiting[tenant.id] = waiting.get(tenant.id, 0) + connection.buffered
        for crowded in (each for each, size in waiting.items() if size > limit):
            self._drop_slowest(crowded, waiting[crowded] - limit)
        for tenant in {id(each): each for each in self._connections.values() if each}.values():
            try:
                self._parts.hello.publish_due(tenant)
            except ApplianceError as error:  # one tenant's database is nobody else's trouble
                log.warning("no news", extra={"tenant": tenant.id, "reason": error.detail})

    def _drop_slowest(self, tenant: str, excess: int) -> None:
        theirs = [c for c, owner in self._connections.items() if owner and owner.id == tenant]
        for connection in sorted(theirs, key=lambda each: each.buffered, reverse=True):
            if excess <= 0:
                return
            excess -= connection.buffered
            connection.leave_slow()

    def shut_down(self) -> None:
        """Tell everybody and let nobody in; connections end by themselves from here."""
        self._closing = True
        self._room.send_all_away()
        for connection in list(self._connections):
            connection.send_event("shutdown", {"reason": "service restart"})
            connection.leave(_SERVICE_RESTART)

    def _now_ms(self) -> int:
        return to_ms(self._parts.clock())


def _left_by(connection: Connection, tenant: TenantRuntime) -> LeftConnection:
    return LeftConnection(
        credential=connection.caller.credential,
        events=tenant.events,
        first=connection.came_after,
        delivered=connection.delivered,
        watches_sessions=connection.watches_sessions,
        watched_sessions=frozenset(connection.watched_sessions),
        until=LeftConnections.expiry(trio.current_time()),
    )


def _goodbye_of(error: ApplianceError) -> Goodbye:
    if isinstance(error, Revoked | TokenRejected):
        return Goodbye(1008, "token revoked")
    if isinstance(error, ShuttingDown):
        return _SERVICE_RESTART
    if error.retry_after is not None:
        return Goodbye(1013, error.detail)
    return Goodbye(1008, error.detail)
