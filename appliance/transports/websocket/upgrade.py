"""What a WebSocket's HTTP request says: the path, who is asking, from which page."""

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from appliance.model.callers import Caller
from appliance.model.errors import ApplianceError, NotFound
from appliance.transports.callers import (
    ROUTE_TENANT,
    Authenticator,
    Peers,
    Presented,
    identify,
    is_same_origin,
    read_headers,
    require_route_tenant,
)
from appliance.transports.problems import problem_of, status_of

PATHS = frozenset({"/", "/ws"})
_BEARER = "openclaw.bearer."
"""Subprotocol of browsers, which cannot send headers: this and the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """``caller`` is who the request itself proves to be; None if ``connect`` will tell."""

    presented: Presented
    ip: str
    route_tenant: str | None
    subprotocol: str | None  # to be agreed to
    caller: Caller | None
    from_own_page: bool  # or from no page at all


def read_upgrade(
    scope: dict[str, Any],
    *,
    access: Authenticator,
    peers: Peers,
    allowed_origins: Iterable[str],
    paths: frozenset[str] = PATHS,
) -> Upgrade:
    """Raises ``NotFound``, ``TokenRejected`` or ``Forbidden``."""
    if scope["path"] not in paths:
        raise NotFound("a WebSocket is served at / and /ws")
    presented = read_headers(scope["headers"])
    ip = peers.client_ip(scope, presented)
    route_tenant: str | None = scope.get(ROUTE_TENANT)
    subprotocol, token = _bearer(scope.get("subprotocols") or ())
    from_own_page = presented.origin is None or is_same_origin(presented, allowed_origins)
    caller: Caller | None = None
    # What a page names itself comes before the cookie, which a browser adds unasked.
    if token is not None and presented.bearer is None:
        caller = authenticate(access, token, presented, ip=ip, route_tenant=route_tenant)
    elif presented.bearer is not None or presented.cookie is not None:
        # A browser sends its cookie to us from any page, so here the page counts.
        caller = identify(
            access,
            presented,
            method="CONNECT",
            ip=ip,
            route_tenant=route_tenant,
            allowed_origins=allowed_origins,
        )
    if caller is not None:
        require_route_tenant(route_tenant, caller)
    return Upgrade(
        presented=presented,
        ip=ip,
        route_tenant=route_tenant,
        subprotocol=subprotocol,
        caller=caller,
        from_own_page=from_own_page,
    )


def authenticate(
    access: Authenticator,
    token: str,
    presented: Presented,
    *,
    ip: str,
    route_tenant: str | None,
) -> Caller:
    """Raises ``TokenRejected`` or ``Forbidden``."""
    acting_for = presented.acting_for
    if acting_for is None and token.startswith("admin:"):
        acting_for = route_tenant
    caller = access.authenticate(
        token, acting_for=acting_for, request_id=presented.request_id, ip=ip
    )
    require_route_tenant(route_tenant, caller)
    return caller


def _bearer(offered: Iterable[str]) -> tuple[str | None, str | None]:
    """The subprotocol to agree to, and the token in it.

    A subprotocol cannot hold a colon (RFC 6455 §4.1), and a browser refuses
    one that does: there the token is written with dots, which none of its
    parts contains.
    """
    for name in offered:
        if name.startswith(_BEARER):
            token = name.removeprefix(_BEARER)
            return name, token if ":" in token else ":".join(token.split(".", 2))
    return None, None


async def refuse(send: Any, error: ApplianceError, *, request_id: str) -> None:
    """Answer the upgrade with a problem instead of a WebSocket."""
    problem = problem_of(error, request_id=request_id)
    body = problem.encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"x-request-id", request_id.encode()),
        *((name.encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    status: HTTPStatus = status_of(error)
    await send({"type": "websocket.http.response.start", "status": int(status), "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
