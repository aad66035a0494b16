"""What the raw routes share: who is calling, and what is noted when they leave."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Protocol

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.transports.callers import (
    ACCEPTED_AT,
    ROUTE_TENANT,
    Authenticator,
    Peers,
    Presented,
    identify,
    require_held,
    require_route_tenant,
)
from appliance.transports.problems import find_expected
from appliance.transports.websocket.upgrade import Upgrade, read_upgrade


class AccessLog(Protocol):
    def write(self, event: str, **fields: object) -> None: ...


class RequestMetrics(Protocol):
    def observe(
        self, *, route: str, method: str, status: int, seconds: float, tenant: str | None
    ) -> None: ...
    def refused(self, code: str) -> None: ...


class Noted(Protocol):
    """What is noted of an answer."""

    @property
    def request_id(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...


class RawDoor:
    def __init__(
        self,
        *,
        config: Callable[[], GatewayConfig],
        access: Authenticator,
        holds: Callable[[str], bool],
        log: AccessLog,
        metrics: RequestMetrics,
    ) -> None:
        self._config = config
        self._access = access
        self._holds = holds
        self._log = log
        self._metrics = metrics
        self._peers: tuple[GatewayConfig, Peers] | None = None

    @property
    def config(self) -> GatewayConfig:
        return self._config()

    def admit(self, scope: dict[str, Any], presented: Presented) -> Caller:
        """Return who is calling, if they may be at this path at all."""
        route_tenant: str | None = scope.get(ROUTE_TENANT)
        require_held(route_tenant, self._holds)
        caller = identify(
            self._access,
            presented,
            method=scope["method"],
            ip=self._current_peers().client_ip(scope, presented),
            route_tenant=route_tenant,
            allowed_origins=self.config.server.allowed_origins,
        )
        require_route_tenant(route_tenant, caller)
        return caller

    def admit_upgrade(self, scope: dict[str, Any], *, path: str) -> Upgrade:
        """Return what the request for a WebSocket at ``path`` proves; raises like :meth:`admit`."""
        require_held(scope.get(ROUTE_TENANT), self._holds)
        return read_upgrade(
            scope,
            access=self._access,
            peers=self._current_peers(),
            allowed_origins=self.config.server.allowed_origins,
            paths=frozenset({path}),
        )

    def client_ip(self, scope: dict[str, Any], presented: Presented) -> str:
        return self._current_peers().client_ip(scope, presented)

    def count_refusal(self, error: Exception) -> None:
        """Count a failure that was foreseen."""
        expected = find_expected(error)
        if expected is not None:
            self._metrics.refused(expected.code)

    def note(
        self, scope: Mapping[str, Any], caller: Caller | None, answer: Noted, *, route: str
    ) -> None:
        """Count and log one finished request to ``route``, a path without anybody's names in it."""
        seconds = perf_counter() - scope[ACCEPTED_AT]
        tenant = None if caller is None else caller.tenant
        self._metrics.observe(
            route=route,
            method=scope["method"],
            status=answer.status,
            seconds=seconds,
            tenant=tenant,
        )
        self._log.write(
            "request",
            tenant=tenant,
            request_id=answer.request_id,
            method=scope["method"],
            path=scope["path"],
            status=answer.status,
            ms=round(seconds * 1000, 2),
            bytes=answer.sent_bytes,
        )

    def _current_peers(self) -> Peers:
        config = self.config
        if self._peers is None or self._peers[0] is not config:
            server = config.server
            peers = Peers(behind_proxy=server.behind_proxy, trusted_proxies=server.trusted_proxies)
            self._peers = (config, peers)
        return self._peers[1]
