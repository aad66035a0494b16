"""Who may come in: the one place where a control-plane route is authorised.

It runs before a body is read or a handler starts, from the route's declaration
alone. The services refuse again what is not the caller's; this is the gate,
not the only lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.model.callers import Caller
from appliance.model.errors import Forbidden, NotFound, TenantUnknown
from appliance.model.ids import is_tenant_id
from appliance.transports.callers import (
    ROUTE_TENANT,
    Presented,
    identify,
    identify_control_plane,
    require_held,
    require_route_tenant,
)
from appliance.transports.control.collaborators import ControlServices
from appliance.transports.control.route import Route, Who


@dataclass(frozen=True, slots=True)
class Admission:
    """The gate, with whom it asks."""

    services: ControlServices

    def admit(
        self, route: Route, scope: Mapping[str, Any], presented: Presented, *, tenant: str
    ) -> Caller | None:
        """Return who calls, None on a route that asks nobody.

        ``tenant`` is the one in the path, "" if there is none. Raises
        ``Misdirected``, ``TokenRejected``, ``Forbidden``, ``ScopeMissing``,
        ``TenantUnknown`` and, for what ``/t/<id>/`` does not hold, ``NotFound``.
        """
        route_tenant: str | None = scope.get(ROUTE_TENANT)
        if route_tenant is not None and not route.is_of_one_tenant:
            raise NotFound("this path is not below /t/; leave the prefix out")
        require_held(route_tenant, self.services.holds)
        if route.who is Who.ANYONE:
            return None
        if route.who is Who.LOOPBACK and self.services.peers().is_loopback(scope, presented):
            return None
        caller = self._identify(route, scope, presented, route_tenant)
        require_route_tenant(route_tenant, caller)
        if route.who is not Who.TENANT:
            caller.require_admin()
        if tenant:
            _require_path_tenant(caller, tenant, route=route, route_tenant=route_tenant)
        elif route.who is Who.TENANT:
            _require_scope(caller, route)
        return caller

    def _identify(
        self,
        route: Route,
        scope: Mapping[str, Any],
        presented: Presented,
        route_tenant: str | None,
    ) -> Caller:
        ip = self.services.peers().client_ip(scope, presented)
        if route.who is Who.CONTROL_PLANE:
            expected = self.services.control_plane_digest()
            caller = identify_control_plane(presented, expected=expected, ip=ip)
            if caller is not None:
                return caller
        return identify(
            self.services.access,
            presented,
            method=scope["method"],
            ip=ip,
            route_tenant=route_tenant,
            allowed_origins=self.services.config().server.allowed_origins,
        )


def _require_scope(caller: Caller, route: Route) -> None:
    if route.scope is not None:
        caller.require(route.scope)


def _require_path_tenant(
    caller: Caller, tenant: str, *, route: Route, route_tenant: str | None
) -> None:
    # First whose it is, then whether it can exist: a tenant learns nothing
    # about any id but its own.
    if not caller.is_admin and caller.tenant != tenant:
        raise Forbidden("the token belongs to another tenant")
    _require_scope(caller, route)
    if route_tenant is not None and tenant != route_tenant:
        raise Forbidden("the path names two tenants")
    if caller.tenant is not None and tenant != caller.tenant:
        raise Forbidden("the path and the header X-OpenClaw-Tenant name two tenants")
    if not is_tenant_id(tenant):
        raise TenantUnknown("there is no such tenant")
