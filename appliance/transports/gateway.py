"""The one ASGI application: sends each request to the door that answers it.

``/t/<id>/…`` is taken off here, so that every route exists under both names;
the doors check that the caller belongs to the tenant in the path.
"""

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from appliance.model.ids import is_tenant_id
from appliance.transports.callers import ACCEPTED_AT, ROUTE_TENANT
from appliance.transports.hypercorn_door import RECEIVED

Scope = dict[str, Any]
Endpoint = Callable[[Scope, Any, Any], Awaitable[None]]

_PREFIX = "/t/"


class Gateway:
    """Raw routes first (exact path, or a prefix that ends in ``/``), the framework for the rest.

    Every WebSocket goes to ``websocket``, whatever its path.
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
        door = self._websocket if scope["type"] == "websocket" else self._door(path)
        await door(scope, receive, send)

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
