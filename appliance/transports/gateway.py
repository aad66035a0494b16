"""The one ASGI application: sends each request to the door that answers it.

``/t/<id>/…`` is taken off here, so that every route exists under both names;
the doors check that the caller belongs to the tenant in the path.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from appliance.model.ids import is_tenant_id
from appliance.transports.callers import ACCEPTED_AT, ROUTE_TENANT
from appliance.transports.hypercorn_door import RECEIVED

Scope = dict[str, Any]
Endpoint = Callable[[Scope, Any, Any], Awaitable[None]]

_PREFIX = "/t/"


class SocketEndpoint(Protocol):
    async def __call__(self, scope: Scope, receive: Any, send: Any, /) -> None: ...
    def shut_down(self) -> None:
        """Let nobody in; connections end by themselves from here."""


@dataclass(frozen=True, slots=True)
class Upgradable:
    """An endpoint of one path that answers requests, and WebSockets too."""

    http: Endpoint
    websocket: SocketEndpoint

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        door = self.websocket if scope["type"] == "websocket" else self.http
        await door(scope, receive, send)


class Gateway:
    """Raw routes first (exact path, or a prefix that ends in ``/``), the framework for the rest.

    Every WebSocket goes to ``websocket``, but for those at the path of an :class:`Upgradable`.
    """

    def __init__(
        self, raw: Mapping[str, Endpoint], framework: Endpoint, websocket: Endpoint
    ) -> None:
        self._exact = {path: door for path, door in raw.items() if not path.endswith("/")}
        self._below = tuple((path, door) for path, door in raw.items() if path.endswith("/"))
        self._framework = framework
        self._websocket = websocket

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._framework(scope, receive, send)
            return
        scope[ACCEPTED_AT] = scope.get("state", {}).get(RECEIVED) or perf_counter()
        path: str = scope["path"]
        if path.startswith(_PREFIX):
            path = _strip_tenant(scope, path)
        door = self._door(path)
        if scope["type"] == "websocket" and not isinstance(door, Upgradable):
            door = self._websocket
        await door(scope, receive, send)

    def shut_down(self) -> None:
        """Tell the WebSockets at the raw routes that the gateway stops."""
        for door in self._exact.values():
            if isinstance(door, Upgradable):
                door.websocket.shut_down()

    def _door(self, path: str) -> Endpoint:
        door = self._exact.get(path)
        if door is not None:
            return door
        for prefix, below in self._below:
            if path.startswith(prefix):
                return below
        return self._framework


def _strip_tenant(scope: Scope, path: str) -> str:
    tenant, slash, rest = path.removeprefix(_PREFIX).partition("/")
    # What is no tenant id falls through as it is and finds no route.
    if not slash or not is_tenant_id(tenant):
        return path
    scope[ROUTE_TENANT] = tenant
    scope["path"] = f"/{rest}"
    raw: bytes = scope.get("raw_path", b"")
    scope["raw_path"] = raw.removeprefix(f"{_PREFIX}{tenant}".encode())
    scope["root_path"] = scope.get("root_path", "")
    return f"/{rest}"
