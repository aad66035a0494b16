"""Clients that come back with the token of their device instead of their tenant's."""

from collections.abc import Callable

import trio

from appliance.model.callers import Caller
from appliance.model.errors import TokenRejected
from appliance.model.operator_scopes import OperatorScope, Role, covers, grantable
from appliance.model.tokens import TenantToken
from appliance.protocols.connect import ConnectRequest
from appliance.services.device_tokens import known
from appliance.services.devices import DeviceService
from appliance.tenants.directory import Supervisor
from appliance.transports.websocket.handshake import PairingNeeded, client_info

_AT_ONCE = 4  # these clients have proved nothing that we issued, and wake a tenant


class DeviceTokenDoor:
    """Lets in whoever holds a device's token; satisfies ``handshake.DeviceTokens``."""

    def __init__(
        self, devices: DeviceService, supervisor: Supervisor, *, holds: Callable[[str], bool]
    ) -> None:
        self._devices = devices
        self._supervisor = supervisor
        self._holds = holds
        self._limiter = trio.CapacityLimiter(_AT_ONCE)

    async def __call__(
        self, token: TenantToken, request: ConnectRequest, *, request_id: str, ip: str
    ) -> tuple[Caller, frozenset[OperatorScope]]:
        if request.device is None or not self._holds(token.tenant):
            raise TokenRejected
        async with self._limiter:
            tenant = await self._supervisor.runtime(token.tenant)
            grant = await self._devices.credentials.authenticate_device_token(
                tenant,
                token.text,
                device_id=request.device.id,
                role=request.role,
                request_id=request_id,
                ip=ip,
            )
            possible = grantable(grant.caller)
            # What even its tenant's token cannot do is not worth anybody's approval.
            beyond = [
                scope
                for scope in known(request.scopes)
                if covers(possible, scope) and not covers(grant.scopes, scope)
            ]
            if beyond and request.role is Role.OPERATOR:
                asked = await self._devices.ask(
                    tenant,
                    grant,
                    public_key=request.device.public_key,
                    client=client_info(request),
                    role=request.role,
                    scopes={*grant.scopes, *beyond},
                )
                raise PairingNeeded(asked.request_id)
        return grant.caller, grant.scopes
