"""Who is at the door: what a request's headers claim, and how the claim is proven.

Plain functions over ASGI header lists, because two doors share them: the Quart
app (``control``) and the raw ASGI routes in front of it. Nothing read here is
trusted until :func:`identify` has handed it to the access service.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Protocol
from urllib.parse import urlsplit

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Forbidden, Misdirected, TokenRejected
from appliance.model.ids import REQUEST_ID, new_id

Headers = Iterable[tuple[bytes, bytes]]
Scope = Mapping[str, Any]

# Where the dispatcher in front of both doors leaves what it found out already.
ROUTE_TENANT = "openclaw.route_tenant"  # str: the id of a stripped /t/<id>/ prefix
REQUEST_ID_KEY = "openclaw.request_id"  # str
ACCEPTED_AT = "openclaw.accepted_at"  # float: time.perf_counter() when the request arrived

# A browser keeps a __Host- cookie only if this very host set it over TLS, so
# the plain name exists for http://127.0.0.1 alone and the other one wins.
SECURE_COOKIE = "__Host-openclaw_session"
PLAIN_COOKIE = "openclaw_session"
_LONGEST_COOKIE = 4096  # characters; ours are a fraction of it

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Authenticator(Protocol):
    """The part of the access service a door needs. Both methods raise ``TokenRejected``."""

    def authenticate(
        self, bearer: str | bytes | None, *, acting_for: str | None, request_id: str, ip: str
    ) -> Caller: ...

    def authenticate_cookie(self, value: str, *, request_id: str, ip: str) -> Caller: ...


@dataclass(frozen=True, slots=True)
class Presented:
    """What one request's headers say about its sender; none of it is proven yet.

    ``bearer`` is None without an Authorization header and empty where there is
    one that cannot be used (another scheme, two of them): the difference
    decides whether a cookie is looked at. ``api_key`` is read for the routes
    that take one, see :meth:`with_api_key`; no other looks at it.
    """

    bearer: bytes | None
    cookie: str | None
    acting_for: str | None
    control_plane_token: bytes | None
    request_id: str
    forwarded_for: tuple[bytes, ...]
    forwarded: bool  # a proxy left any trace at all
    secure: bool  # a proxy says the browser spoke TLS; believe it only from a trusted one
    host: str
    origin: str | None
    fetch_site: str | None
    api_key: bytes | None = None

    def with_api_key(self) -> "Presented":
        """The same with the key of ``X-Api-Key`` as its bearer token.

        An Authorization header that can be used wins: two that differ are one
        credential too many, and that header is the one every route reads.
        """
        if self.bearer or self.api_key is None:
            return self
        return replace(self, bearer=self.api_key)


_READ = frozenset(
    name.encode()
    for name in (
        "authorization",
        "cookie",
        "forwarded",
        "host",
        "origin",
        "sec-fetch-site",
        "via",
        "x-api-key",
        "x-control-plane-token",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-openclaw-tenant",
        "x-real-ip",
        "x-request-id",
    )
)
_LEFT_BY_A_PROXY = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip")


def read_headers(headers: Headers) -> Presented:
    """Collect everything a door wants to know of ``headers`` in one pass."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _READ:
            found.setdefault(name, []).append(value)
    acting_for = found.get(b"x-openclaw-tenant")
    request_id = _text(found, b"x-request-id") or ""
    return Presented(
        bearer=_bearer(found[b"authorization"]) if b"authorization" in found else None,
        cookie=_session_cookie(found[b"cookie"]) if b"cookie" in found else None,
        # Two names are joined by a comma, as HTTP does: no tenant is called that.
        acting_for=b",".join(acting_for).decode("latin-1") if acting_for else None,
        control_plane_token=_only(found.get(b"x-control-plane-token")),
        request_id=request_id if REQUEST_ID.fullmatch(request_id) else new_id("req"),
        forwarded_for=tuple(found.get(b"x-forwarded-for", ())),
        forwarded=any(name in found for name in _LEFT_BY_A_PROXY),
        secure=(_text(found, b"x-forwarded-proto") or "").strip().lower() == "https",
        host=_text(found, b"host") or "",
        origin=_text(found, b"origin"),
        fetch_site=_text(found, b"sec-fetch-site"),
        api_key=_only(found.get(b"x-api-key")),
    )


def _text(found: Mapping[bytes, Sequence[bytes]], name: bytes) -> str | None:
    values = found.get(name)
    return values[-1].decode("latin-1") if values else None


def _only(values: Sequence[bytes] | None) -> bytes | None:
    """The one value of a credential's header; of two, none is the right one.

    One reader would take the first and the next one the last.
    """
    if values is None:
        return None
    return values[0] if len(values) == 1 else b""


def _bearer(values: Sequence[bytes]) -> bytes:
    scheme, _, credential = (_only(values) or b"").strip().partition(b" ")
    return credential.strip() if scheme.lower() == b"bearer" else b""


def _session_cookie(headers: Sequence[bytes]) -> str | None:
    found: dict[str, str] = {}
    # HTTP/2 may cut the header at every "; ".
    for part in b";".join(headers).decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        found.setdefault(name, value)
    session = found.get(SECURE_COOKIE) or found.get(PLAIN_COOKIE)
    return session if session and len(session) <= _LONGEST_COOKIE else None


class Peers:
    """Tells who really sent a request: the peer, or whoever a trusted proxy names.

    Without ``behind_proxy`` no forwarding header is believed.
    """

    def __init__(self, *, behind_proxy: bool, trusted_proxies: Iterable[str]) -> None:
        self.behind_proxy = behind_proxy
        self._trusted = tuple(ip_network(text, strict=False) for text in trusted_proxies)

    def client_ip(self, scope: Scope, presented: Presented) -> str:
        """The address to log and to audit; "" for a peer without one (a Unix socket)."""
        peer = _peer(scope)
        if not self.behind_proxy or not presented.forwarded_for or not self._trusts(peer):
            return peer
        hops = b",".join(presented.forwarded_for).decode("latin-1").split(",")
        client = peer
        # Each proxy appends whom it saw, so only the right end is reliable: walk
        # left while the speaker is trusted, and stop at the first who is not.
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                break
            client = str(address)
            if not self._trusts(client):
                break
        return client

    def is_secure(self, scope: Scope, presented: Presented) -> bool:
        """Whether the browser spoke TLS, to us or to a trusted proxy in front of us."""
        if scope.get("scheme") == "https":
            return True
        return self.behind_proxy and presented.secure and self._trusts(_peer(scope))

    def is_loopback(self, scope: Scope, presented: Presented) -> bool:
        """Whether the request comes from this machine itself.

        Never behind a proxy: there every visitor of the proxy would pass.
        """
        address = _address(_peer(scope))
        if address is None or self.behind_proxy or presented.forwarded:
            return False
        return address.is_loopback

    def _trusts(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and any(address in network for network in self._trusted)


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    if not client:
        return ""
    return _written(str(client[0]))


@lru_cache(maxsize=4_096)
def _written(text: str) -> str:
    address = _address(text)
    return str(address) if address is not None else ""


# Few peers make many requests, and reading an address takes as long as authenticating.
@lru_cache(maxsize=4_096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1`` or ``[2001:db8::1]:80``."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # The same machine must not look different on a dual-stack socket.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def identify(
    access: Authenticator,
    presented: Presented,
    *,
    method: str,
    ip: str,
    route_tenant: str | None = None,
    allowed_origins: Iterable[str] = (),
) -> Caller:
    """Return who is calling.

    A bearer token wins over a cookie. A cookie travels with requests its owner
    never meant to send, so with one an unsafe method must come from our own
    pages. Raises ``TokenRejected``, or ``Forbidden`` for a cross-site request.
    """
    if presented.bearer is not None or presented.cookie is None:
        acting_for = presented.acting_for
        if acting_for is None and presented.bearer and presented.bearer.startswith(b"admin:"):
            acting_for = route_tenant  # /t/acme/… with the admin key is about acme
        return access.authenticate(
            presented.bearer, acting_for=acting_for, request_id=presented.request_id, ip=ip
        )
    if method not in SAFE_METHODS and not is_same_origin(presented, allowed_origins):
        raise Forbidden("a browser session is used from this gateway's own pages only")
    return access.authenticate_cookie(presented.cookie, request_id=presented.request_id, ip=ip)


def is_same_origin(presented: Presented, allowed_origins: Iterable[str] = ()) -> bool:
    """Whether a browser says that one of our own pages sent the request.

    A request that says nothing about where it comes from is not ours.
    """
    if presented.origin is not None and presented.origin in allowed_origins:
        return True
    if presented.fetch_site is not None:
        return presented.fetch_site == "same-origin"
    if not presented.origin or not presented.host:
        return False
    return urlsplit(presented.origin).netloc.lower() == presented.host.lower()


def identify_control_plane(
    presented: Presented, *, expected: bytes | None, ip: str
) -> Caller | None:
    """The caller who holds the control-plane token; None if no such token is presented.

    ``expected`` is the SHA-256 of the configured token, None where none is
    configured: then no token is the right one.
    """
    if presented.control_plane_token is None:
        return None
    given = hashlib.sha256(presented.control_plane_token).digest()
    # Compared even if nothing is expected: the answer takes the same time.
    matches = hmac.compare_digest(given, expected or bytes(32))
    if expected is None or not matches:
        raise TokenRejected
    return Caller(
        kind=ActorKind.ADMIN,
        credential="control-plane-token",
        tenant=None,
        request_id=presented.request_id,
        ip=ip,
    )


def require_held(route_tenant: str | None, holds: Callable[[str], bool]) -> None:
    """Raise ``Misdirected`` (421) if ``/t/<id>/`` names a tenant of another gateway.

    This comes before authentication, because the token of a tenant that moved
    away proves nothing here: without this answer its client and the router in
    front of us would take a stale route for a revoked token.
    """
    if route_tenant is not None and not holds(route_tenant):
        raise Misdirected("this gateway does not hold the tenant named in the path")


def require_route_tenant(route_tenant: str | None, caller: Caller) -> None:
    """Refuse a caller whose request is about another tenant than its path."""
    if route_tenant is None or caller.tenant == route_tenant:
        return
    if caller.is_admin and caller.tenant is None:
        return
    raise Forbidden("the token belongs to another tenant than the path")
