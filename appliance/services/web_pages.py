"""Fetches what is on the web for a tenant, from the gateway itself.

Whoever writes a page, or gets a model to follow a link, must not reach with it
what only the gateway can: this machine, its network, a cloud's metadata
service. So each address is checked where the connection is made, on every
redirect again, and nothing of the tenant's goes along: no cookies, no
credentials. What comes back is bounded in bytes and in time.
"""

import ipaddress
import logging
import math
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import trio

import appliance
from appliance import dialling
from appliance.config.schema import GatewayConfig
from appliance.dialling import Dial, DialFailed, IpAddress, IsAllowed, Resolve
from appliance.model.egress import HostPattern, parse_host
from appliance.model.web_addresses import AddressInvalid, WebAddress
from appliance.protocols.answers import MalformedAnswer
from appliance.protocols.content_coding import decoded_body
from appliance.providers.connections import (
    ConnectionLost,
    ConnectionPool,
    PoolBusy,
    Response,
    TooSlow,
)
from appliance.services.tenant_state import TenantState

log = logging.getLogger(__name__)

# Where web sites are. Others are mail servers and databases, which must not
# be spoken to in the gateway's name by whoever can write a link.
WEB_PORTS = frozenset({80, 443, 8080, 8443})
_BOUNDED = math.inf  # :meth:`WebFetcher.fetch` bounds everything together, drops too
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_USER_AGENT = f"openclawmu/{appliance.__version__}"
_ACCEPT = "text/html,application/xhtml+xml,text/plain,application/json;q=0.9,*/*;q=0.5"


class FetchFailed(Exception):
    """The text names the URL and the reason, and is safe to show."""


class FetchingTenant(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def state(self) -> TenantState: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    max_bytes: int  # of what is read, and of what that becomes once it is decompressed
    timeout: float  # seconds, for everything together
    max_redirects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """``is_configured`` is for an address that stands in the config, not one a model wrote.

    It may be at any port, and on this machine where ``egress.allow_private``
    says so.
    """

    address: WebAddress
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)  # printable ASCII
    body: bytes = b""
    is_configured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """``body`` is decompressed, and ends where the limit was if ``is_cut``."""

    address: WebAddress  # after all redirects
    status: int
    content_type: str
    body: bytes
    is_cut: bool

    @property
    def media_type(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()


class WebFetcher:
    """``context`` is what TLS trusts; the others replace how addresses are judged and found."""

    def __init__(
        self,
        *,
        is_public: IsAllowed = dialling.is_public,
        is_private: IsAllowed = dialling.is_public_or_private,
        resolve: Resolve | None = None,
        context: ssl.SSLContext | None = None,
        ports: Collection[int] = WEB_PORTS,
    ) -> None:
        self._is_public = is_public
        self._is_private = is_private
        self._resolve = resolve
        self._context = context
        self._ports = ports

    async def fetch(
        self, tenant: FetchingTenant, request: WebRequest, limits: FetchLimits
    ) -> Fetched:
        """Raises :exc:`FetchFailed`; an answer with any status is an answer."""
        where = request.address.authority
        with trio.move_on_after(limits.timeout):
            # Its pages wait for each other, not for those of other tenants.
            async with tenant.state.web_fetches:
                fetched = await self._follow(tenant, request, limits)
            return await self._decoded(tenant, fetched, limits)
        raise FetchFailed(f"{where}: it took more than {limits.timeout:g} s, which is the limit")

    async def _follow(
        self, tenant: FetchingTenant, request: WebRequest, limits: FetchLimits
    ) -> "_Raw":
        address = request.address
        for _ in range(limits.max_redirects + 1):
            self._check(tenant.config, address, is_configured=request.is_configured)
            found = await self._exchange(tenant, request, address, limits)
            if isinstance(found, _Raw):
                return found
            if request.is_configured:
                # It may carry a credential, which is meant for nobody else.
                raise FetchFailed(f"{address.authority}: it redirects, which is not followed")
            address = _next(address, found)
        raise FetchFailed(
            f"{request.address.authority}: it redirects more than {limits.max_redirects} times, "
            f"the last time to {address.text[:500]}"
        )

    def _check(self, config: GatewayConfig, address: WebAddress, *, is_configured: bool) -> None:
        where = address.authority
        is_free = is_configured or config.egress.allow_private
        if not is_free and address.port not in self._ports:
            ports = ", ".join(map(str, sorted(self._ports)))
            raise FetchFailed(f"{where}: pages are fetched from the ports {ports} only")
        if config.egress.only is not None and not _is_within(config.egress.only, address.host):
            raise FetchFailed(f"{where}: it is none of the hosts that may be reached (egress.only)")

    async def _exchange(
        self,
        tenant: FetchingTenant,
        request: WebRequest,
        address: WebAddress,
        limits: FetchLimits,
    ) -> "_Raw | str":
        """The answer, or where it redirects to."""
        dial = self._dial(tenant, address, is_configured=request.is_configured)
        pool = ConnectionPool(dial, limit=1, connect_timeout=_BOUNDED)
        received = 0
        status = 0
        try:
            response = await pool.exchange(_serialised(request, address), patience=_BOUNDED)
            try:
                status = response.status
                location = response.header(b"location")
                if status in _REDIRECTS and location:
                    return location.decode(errors="replace")
                body = await _body(response, limits)
                received = len(body)
                return _Raw(
                    address=address,
                    status=status,
                    content_type=_text(response.header(b"content-type")),
                    coding=_text(response.header(b"content-encoding")),
                    body=body,
                )
            finally:
                response.release()
        except (DialFailed, MalformedAnswer) as exc:
            raise FetchFailed(f"{address.authority}: {exc}") from exc
        except (ConnectionLost, PoolBusy, TooSlow) as exc:
            raise FetchFailed(f"{address.authority}: the connection was lost") from exc
        finally:
            pool.close()
            log.info(
                "fetch",
                extra={
                    "tenant": tenant.id,
                    "host": address.host,
                    "port": address.port,
                    "status": status,
                    "received_bytes": received,
                },
            )

    def _dial(self, tenant: FetchingTenant, address: WebAddress, *, is_configured: bool) -> Dial:
        resolve = self._resolve or dialling.resolver(tenant.state.web_lookups)
        is_allowed = self._is_public
        if tenant.config.egress.allow_private:
            is_allowed = self._is_private if is_configured else self._is_beside_us

        async def dial() -> trio.abc.Stream:
            stream = await dialling.open_checked(
                address.host, address.port, resolve=resolve, is_allowed=is_allowed
            )
            if not address.is_encrypted:
                return stream
            return await dialling.secure(stream, address.host, self._context)

        return dial

    def _is_beside_us(self, address: IpAddress) -> bool:
        """Private networks, but not this machine: on it the gateway's own doors are open."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return self._is_beside_us(address.ipv4_mapped)
        return self._is_private(address) and not address.is_loopback

    async def _decoded(self, tenant: FetchingTenant, raw: "_Raw", limits: FetchLimits) -> Fetched:
        was_cut = len(raw.body) > limits.max_bytes
        try:
            body, is_cut = await trio.to_thread.run_sync(
                lambda: decoded_body(raw.body, raw.coding, limit=limits.max_bytes),
                limiter=tenant.state.web_readers,
            )
        except MalformedAnswer as exc:
            raise FetchFailed(f"{raw.address.authority}: {exc}") from exc
        return Fetched(
            address=raw.address,
            status=raw.status,
            content_type=raw.content_type,
            body=body,
            is_cut=is_cut or was_cut,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Raw:
    """As it came; a byte more than the limit if it was longer."""

    address: WebAddress
    status: int
    content_type: str
    coding: str
    body: bytes


def _is_within(only: list[str], host: str) -> bool:
    try:
        name = parse_host(host)
    except ValueError:
        return False
    return any(HostPattern(pattern).matches(name) for pattern in only)


def _next(address: WebAddress, location: str) -> WebAddress:
    try:
        following = address.leading_to(location)
    except AddressInvalid as exc:
        raise FetchFailed(f"{address.authority}: it redirects to what cannot be: {exc}") from exc
    if address.is_encrypted and not following.is_encrypted:
        raise FetchFailed(
            f"{address.authority}: it redirects from https to {following.text[:500]}, which is "
            "not followed; fetch that itself if it is meant"
        )
    return following


def _serialised(request: WebRequest, address: WebAddress) -> bytes:
    headers = {
        "Host": address.authority,
        "User-Agent": _USER_AGENT,
        "Accept": _ACCEPT,
        "Accept-Encoding": "gzip",
        "Connection": "close",
        **request.headers,
    }
    if request.body:
        headers["Content-Length"] = str(len(request.body))
    lines = [f"{request.method} {address.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + request.body


async def _body(response: Response, limits: FetchLimits) -> bytes:
    """As much as there is, or a little more than may be."""
    body = bytearray()
    while data := await response.read_some(patience=_BOUNDED):
        body += data
        if len(body) > limits.max_bytes:
            break
    return bytes(body[: limits.max_bytes + 1])


def _text(value: bytes | None) -> str:
    return "" if value is None else value[:200].decode("latin-1")
