"""Connections and a door over sockets that are a list, with tenants that have nothing on disk."""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import trio

from appliance.config.loading import parse_config
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import TokenRejected
from appliance.model.operator_scopes import EVERYTHING, OperatorScope, Role
from appliance.model.tokens import Scope
from appliance.services.clients import ClientInfo, ConnectedClients
from appliance.services.events import TenantEvents
from appliance.tenants.directory import Supervisor
from appliance.tenants.runtime import Conditions, TenantRuntime
from appliance.tenants.supervision import RestartPolicy
from appliance.transports.callers import ROUTE_TENANT, Peers
from appliance.transports.rpc.dispatch import Dispatcher, MethodCounts
from appliance.transports.rpc.method import Answer, Method, MethodCall
from appliance.transports.rpc.permissions import Permissions
from appliance.transports.rpc.services import RpcServices
from appliance.transports.websocket.connection import Admission, Connection
from appliance.transports.websocket.dialects import Dialect, OpenClawDialect
from appliance.transports.websocket.door import DoorParts, WebSocketDoor
from appliance.transports.websocket.handshake import Admitted, Handshake
from appliance.transports.websocket.hello import Hello
from appliance.transports.websocket.socket import SOCKET, SocketClosed
from appliance.transports.websocket.throttle import LoginThrottle
from tests.tenants.conftest import Limits

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
CLIENT = {"id": "cli", "version": "1.0", "platform": "linux", "mode": "cli"}
FULL = frozenset({Scope.FULL})


def clock() -> datetime:
    """A wall clock that goes with trio's."""
    return START + timedelta(seconds=trio.current_time())


class FakeSocket:
    """Satisfies ``socket.Socket``: the client's side of it is in the caller's hands."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.buffered = 0
        self.reads = True  # whether the client takes what is sent
        self.most_bytes = 0
        self.goodbyes: list[tuple[int, str]] = []
        self.aborted = False
        self.closed_after = 0  # messages that were sent before the goodbye
        self._arrived = trio.Event()
        self._mail, self._inbox = trio.open_memory_channel[object](math.inf)

    # -- the gateway's side ------------------------------------------------

    def bind(self, _: object) -> None:
        """The socket itself says what arrives."""

    async def receive(self) -> bytes:
        message = await self._inbox.receive()
        if isinstance(message, Exception):
            raise message
        assert isinstance(message, bytes)
        if len(message) > self.most_bytes:
            raise SocketClosed(1009)
        return message

    def send(self, text: bytes) -> None:
        self.sent.append(json.loads(text))
        if not self.reads:
            self.buffered += len(text)
        self._notify()

    def limit_messages(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes

    async def close(self, code: int, reason: str) -> None:
        self.goodbyes.append((code, reason))
        self.closed_after = len(self.sent)
        self._notify()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self.aborted = True
        self.say(SocketClosed(1006))

    # -- the client's side -------------------------------------------------

    def say(self, message: object) -> None:
        """Send a frame, raw bytes or an exception to the gateway."""
        raw = message
        if not isinstance(message, bytes | Exception):
            raw = json.dumps(message).encode()
        self._mail.send_nowait(raw)

    def ask(self, method: str, request_id: str = "r1", **params: object) -> None:
        self.say({"type": "req", "id": request_id, "method": method, "params": params})

    def leave(self, code: int = 1000) -> None:
        self.say(SocketClosed(code))

    async def answer(self, request_id: str = "r1") -> dict[str, Any]:
        found: dict[str, Any] = await self._wait(lambda: self.answers(request_id)[0])
        return found

    async def event(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._wait(lambda: self.events(name)[0])
        return found

    async def closed(self) -> tuple[int, str]:
        code, reason = await self._wait(lambda: self.goodbyes[0])
        return code, reason

    def answers(self, request_id: str = "r1") -> list[dict[str, Any]]:
        return [each for each in self.sent if each.get("id") == request_id]

    def events(self, *names: str) -> list[dict[str, Any]]:
        return [each for each in self.sent if each.get("event") in names]

    def _notify(self) -> None:
        self._arrived.set()
        self._arrived = trio.Event()

    async def _wait(self, look: Callable[[], Any]) -> Any:
        with trio.fail_after(30):
            while True:
                try:
                    return look()
                except IndexError:
                    await self._arrived.wait()


@dataclass
class AwakeResources:
    """What a tenant holds while it is awake, as far as connections look at it."""

    tenant: str
    services: Mapping[str, Any] = field(default_factory=dict)
    events: TenantEvents = field(default_factory=TenantEvents)
    clients: ConnectedClients = field(default_factory=ConnectedClients)


def someone(tenant: str | None = "acme", credential: str = "tok_1") -> Caller:
    return Caller(ActorKind.TENANT, credential, tenant, FULL, request_id="req_0", ip="192.0.2.1")


def method(
    name: str,
    handler: Callable[[MethodCall[Any]], Awaitable[Answer]] | None = None,
    **more: Any,
) -> Method:
    more.setdefault("scope", OperatorScope.READ)
    return Method(name=name, summary="For tests", needs=Scope.READ, handler=handler, **more)


def admission(caller: Caller | None = None, **more: Any) -> Admission:
    given: dict[str, Any] = {
        "conn_id": "conn-1",
        "caller": caller or someone(),
        "role": Role.OPERATOR,
        "scopes": EVERYTHING,
        "info": ClientInfo(id="cli", mode="cli"),
        "device_id": None,
        "node_id": None,
        "connected_at": START,
    }
    return Admission(**{**given, **more})


class FakeLog:
    """Satisfies ``dispatch.AccessLog``."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, event: str, **fields: object) -> None:
        self.lines.append({"event": event, **fields})


@dataclass
class ConnectionBench:
    """Makes connections that answer ``methods``."""

    methods: Sequence[Method] = ()
    limits: Any = field(
        default_factory=lambda: SimpleNamespace(max_in_flight=2, max_buffered_bytes=1_000)
    )
    log: FakeLog = field(default_factory=FakeLog)
    counts: MethodCounts = field(default_factory=MethodCounts)

    def connection(
        self,
        socket: FakeSocket,
        errands: trio.Nursery,
        *,
        dialect: Dialect | None = None,
        **admitted: Any,
    ) -> Connection:
        socket.most_bytes = 1_000_000
        return self.connect(
            socket, dialect or OpenClawDialect(4), admission(**admitted), errands=errands
        )

    def connect(
        self, socket: Any, dialect: Dialect, admitted: Admission, *, errands: trio.Nursery
    ) -> Connection:
        services = cast("RpcServices", SimpleNamespace())
        return Connection(
            socket,
            dialect,
            admitted,
            dispatcher=Dispatcher(services, counts=self.counts, access_log=self.log),
            permissions=Permissions(self.methods),
            limits=lambda: self.limits,
            errands=errands,
        )


@asynccontextmanager
async def served(
    bench: ConnectionBench, **admitted: Any
) -> AsyncIterator[tuple[FakeSocket, Connection]]:
    """A connection that is served until the block ends."""
    socket = FakeSocket()
    async with trio.open_nursery() as errands:
        connection = bench.connection(socket, errands, **admitted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.serve, None)
            yield socket, connection
            nursery.cancel_scope.cancel()


class FakeHello:
    """Satisfies what the door asks of ``hello.Hello``."""

    def __init__(self) -> None:
        self.went: list[str] = []
        self.presence_due: list[str] = []
        self.delay = 0.0

    async def prepare(
        self, connection: Connection, admitted: Admitted, tenant: TenantRuntime | None
    ) -> bytes:
        await trio.lowlevel.checkpoint()
        await trio.sleep(self.delay)
        return json.dumps({"type": "hello-ok", "connId": connection.id}).encode()

    def arrived(self, connection: Connection, tenant: TenantRuntime) -> None:
        self.went.append("in")

    def left(self, connection: Connection, tenant: TenantRuntime) -> None:
        self.went.append("out")

    def publish_due(self, tenant: TenantRuntime) -> None:
        self.presence_due.append(tenant.id)


class FakeAccess:
    """Tokens by their text; who is in ``dead`` is nobody any more."""

    def __init__(self) -> None:
        self.callers: dict[str, Caller] = {}
        self.dead: set[str] = set()

    def authenticate(self, bearer: Any, **_: Any) -> Caller:
        text = bearer.decode() if isinstance(bearer, bytes) else bearer
        caller = self.callers.get(text)
        if caller is None or caller.credential in self.dead:
            raise TokenRejected
        return caller

    def authenticate_cookie(self, value: str, **_: Any) -> Caller:
        return self.authenticate(value)

    def is_live(self, caller: Caller) -> bool:
        return caller.credential not in self.dead


class DoorBench:
    """A door with a real supervisor and real handshakes; :meth:`run` it as long as it is used."""

    def __init__(self, *methods: Method, websocket: str = "{}") -> None:
        self.config = parse_config(f"server: {{websocket: {websocket}}}", name="config")
        self.access = FakeAccess()
        self.access.callers = {"one": someone(), "two": someone(credential="tok_2")}
        self.hello = FakeHello()
        self.awake: dict[str, AwakeResources] = {}
        self.outcomes: list[str] = []
        self.connections = ConnectionBench(methods, self.config.server.websocket)
        self.supervisor = Supervisor(
            self._open,  # type: ignore[arg-type]  # it opens less than a tenant has
            limits=Limits,
            conditions=Conditions(
                is_live=self.access.is_live,
                policy=RestartPolicy(),
                random=Random(1),  # noqa: S311 - jitter, not a secret
            ),
            clock=clock,
            fell_asleep=self._fell_asleep,
        )
        self.throttle = LoginThrottle(clock=trio.current_time)
        self.door = WebSocketDoor(
            DoorParts(
                config=lambda: self.config,
                access=self.access,
                holds={"acme", "other"}.__contains__,
                peers=lambda: Peers(behind_proxy=False, trusted_proxies=()),
                supervisor=self.supervisor,
                handshake=Handshake(
                    access=self.access,
                    device_tokens=_no_device_tokens,
                    throttle=self.throttle,
                    config=lambda: self.config,
                    clock=clock,
                ),
                hello=cast("Hello", self.hello),
                connect=self.connections.connect,
                clock=clock,
                counts=SimpleNamespace(handshake=self.outcomes.append),
                most_connections=1_000,
            )
        )

    @asynccontextmanager
    async def _open(self, tenant: str) -> AsyncIterator[AwakeResources]:
        self.awake[tenant] = AwakeResources(tenant)
        await trio.lowlevel.checkpoint()
        yield self.awake[tenant]

    async def _fell_asleep(self, tenant: str) -> None:
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["DoorBench"]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.supervisor.run)
            nursery.start_soon(self.door.run)
            yield self
            nursery.cancel_scope.cancel()

    async def visit(
        self,
        socket: FakeSocket,
        *,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        route_tenant: str | None = None,
    ) -> list[dict[str, Any]]:
        """Serve ``socket`` to its end; return what ASGI was told."""
        told: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            told.append(message)

        given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {
            "type": "websocket",
            "path": path,
            "headers": given,
            "client": ("192.0.2.1", 4711),
            "state": {SOCKET: socket},
            ROUTE_TENANT: route_tenant,
        }
        await self.door(scope, receive, send)
        return told

    async def connected(
        self, nursery: trio.Nursery, bearer: str = "one", **params: object
    ) -> FakeSocket:
        """A client that was welcomed, served in ``nursery``."""
        socket = FakeSocket()
        nursery.start_soon(partial(self.visit, socket))
        greet(socket, bearer, **params)
        answer = await socket.answer("hello")
        assert answer["ok"], answer
        return socket

    def publish(self, name: str = "chat", payload: Any = None, **more: Any) -> None:
        self.awake["acme"].events.publish(name, payload or {}, **more)


def greet(socket: FakeSocket, bearer: str = "one", **params: object) -> None:
    socket.ask(
        "connect",
        "hello",
        **{
            "minProtocol": 3,
            "maxProtocol": 4,
            "client": CLIENT,
            "auth": {"token": bearer},
            **params,
        },
    )


async def _no_device_tokens(*_: Any, **__: Any) -> Any:
    await trio.lowlevel.checkpoint()
    raise TokenRejected
