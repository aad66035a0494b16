"""The address of an MCP server: what may be dialled there, and what every request carries.

What is dialled is checked as for all that tenants choose: public addresses
only (``egress.allow_private``), names within the operator's ``egress.only``,
and each address at the moment it is connected to.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import trio

from appliance.config.tool_schema import McpServerConfig
from appliance.dialling import (
    DialFailed,
    is_public,
    is_public_or_private,
    open_checked,
    resolver,
    secure,
)
from appliance.model.egress import HostPattern, Injection, parse_host
from appliance.model.errors import ApplianceError
from appliance.protocols.answers import MalformedAnswer
from appliance.protocols.mcp_lines import Allowance
from appliance.providers.connections import (
    AnswerTooLarge,
    ConnectionLost,
    ConnectionPool,
    PoolBusy,
    Response,
    TooSlow,
)
from appliance.services.mcp.server import ServerGone
from appliance.services.tools.base import ToolTenant
from appliance.storage.credentials import CredentialStore, Vault

_CONNECTIONS = 16  # of one server
_CONNECTING = 10.0  # seconds
# Requests of one connection: what a server makes us send has bounds, too.
_BURST, _PER_SECOND = 200.0, 20.0
# What a request may fail with, besides ``ServerGone``; see ``why``.
FAILURES = (DialFailed, PoolBusy, TooSlow, AnswerTooLarge, ConnectionLost, MalformedAnswer)


class Address:
    """Raises :exc:`ServerGone` where the operator does not let tenants go there."""

    def __init__(
        self, tenant: ToolTenant, address: str, config: McpServerConfig, *, vault: Vault
    ) -> None:
        url = urlsplit(address)
        self._tenant = tenant
        self._config = config
        self._vault = vault
        self._is_secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._is_secure else 80)
        self._authority = url.netloc.rpartition("@")[2]
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if config.credential and not (self._is_secure or tenant.config.egress.allow_private):
            raise ServerGone("its credential is sent over https only; change its url")
        _require_within(tenant.config.egress.only, self._host)
        self._pool = ConnectionPool(self._dial, limit=_CONNECTIONS, connect_timeout=_CONNECTING)
        self._allowance = Allowance(_BURST, _PER_SECOND, now=trio.current_time())

    async def exchange(
        self, method: str, headers: Mapping[str, str], body: bytes, *, patience: float
    ) -> Response:
        """One request; the answer must be released. Raises :exc:`ServerGone` and ``FAILURES``."""
        if not self._allowance.take(1, now=trio.current_time()):
            raise ServerGone("the gateway makes no more requests to it for now")
        return await self._pool.exchange(self._request(method, headers, body), patience=patience)

    def close(self) -> None:
        self._pool.close()

    async def _dial(self) -> trio.abc.Stream:
        allows_private = self._tenant.config.egress.allow_private
        stream = await open_checked(
            self._host,
            self._port,
            resolve=resolver(self._tenant.state.web_lookups),
            is_allowed=is_public_or_private if allows_private else is_public,
        )
        return await secure(stream, self._host) if self._is_secure else stream

    def _request(self, method: str, headers: Mapping[str, str], body: bytes) -> bytes:
        wanted = {name.lower(): value for name, value in self._config.headers.items()}
        wanted |= headers
        if bearer := self._bearer():
            wanted["authorization"] = bearer
        wanted |= {
            "host": self._authority,
            # Not compressed, so that a small answer cannot become a large one.
            "accept-encoding": "identity",
            "content-length": str(len(body)),
        }
        lines = [f"{name}: {value}" for name, value in wanted.items()]
        # A line end in a value would be a header of its own.
        if any(not line.isprintable() for line in lines):
            raise ServerGone("a header for it holds a control character")
        head = "\r\n".join([f"{method} {self._target} HTTP/1.1", *lines])
        return head.encode("latin-1", errors="replace") + b"\r\n\r\n" + body

    def _bearer(self) -> str:
        """Read each time, so that a changed credential is used at once."""
        name = self._config.credential
        if name is None:
            return ""
        try:
            found = CredentialStore(self._tenant.root, self._vault).get(name)
        except ApplianceError as error:
            raise ServerGone(f"the credential {name} cannot be used: {error.detail}") from error
        if found is None or not found.api_key:
            raise ServerGone(f"there is no credential {name}; store one under that name")
        try:
            return Injection(name).value(found.api_key)
        except ValueError as error:
            raise ServerGone(f"the credential {name} is unfit: {error}") from error


def why(error: BaseException, *, longest: int) -> str:
    """One of ``FAILURES`` in words."""
    match error:
        case DialFailed():
            return f"no connection: {error}"
        case PoolBusy():
            return f"{_CONNECTIONS} requests to it are under way already"
        case TooSlow():
            return "it was silent for too long"
        case AnswerTooLarge():
            return f"it answered with more than {longest} bytes"
        case _:
            return "the connection was lost, or what came is not HTTP"


def _require_within(only: Iterable[str] | None, host: str) -> None:
    if only is None:
        return
    try:
        name = parse_host(host)
    except ValueError as problem:
        raise ServerGone(f"its url names no host within egress.only: {problem}") from None
    if not any(HostPattern(pattern).matches(name) for pattern in only):
        raise ServerGone("the operator's egress.only does not hold its host")
