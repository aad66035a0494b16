"""A tenant's devices: keys that its clients proved to hold, and the tokens they got for it.

Whoever connects with a token of the tenant vouches for the device they use: it
counts as paired at once. A device that comes with its own token is bound to
what it was granted then; for more it has to ask, and somebody approves.

Removing a device, or revoking its token, ends what it holds and its
connections. A tenant token that the same device still has can vouch for it
again; to lock somebody out for good, revoke that one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from appliance.model.callers import Caller
from appliance.model.errors import NotFound
from appliance.model.ids import new_id
from appliance.model.operator_scopes import OperatorScope, Role
from appliance.model.periods import to_ms
from appliance.services import paired_devices, pairing
from appliance.services.audit import AuditTrail
from appliance.services.clients import ClientInfo
from appliance.services.device_credentials import DeviceCredentials
from appliance.services.device_tokens import DeviceGrant, TenantTokens
from appliance.services.events import Audience
from appliance.services.paired_devices import (
    connected_devices,
    drop_connections,
    require_device,
    require_held,
)
from appliance.services.pairing import TenantWithPairings
from appliance.services.pairing_events import DevicePairRequested, DevicePairResolved
from appliance.services.tokens import parse_label
from appliance.storage.paired import Device, Paired, PairRequest

LONGEST_LABEL = 64  # characters


@dataclass(frozen=True, slots=True)
class DeviceList:
    """``connected`` and ``seen_ms`` (when a connection of it began) are by device id."""

    pending: tuple[PairRequest, ...]
    paired: tuple[Device, ...]
    connected: frozenset[str]
    seen_ms: dict[str, int]


class DeviceService:
    def __init__(
        self, tokens: TenantTokens, *, audit: AuditTrail, clock: Callable[[], datetime]
    ) -> None:
        self.credentials = DeviceCredentials(tokens, audit=audit, clock=clock)
        self._audit = audit
        self._clock = clock

    async def list(self, tenant: TenantWithPairings) -> DeviceList:
        """The devices, the latest first, and what waits for a decision."""
        paired = await pairing.read(tenant)
        devices = sorted(paired.devices.values(), key=lambda d: d.approved_at_ms, reverse=True)
        return DeviceList(
            pending=pairing.live_requests(paired, "device", self._now_ms()),
            paired=tuple(devices),
            connected=connected_devices(tenant),
            seen_ms=tenant.state.device_seen_ms,
        )

    async def ask(
        self,
        tenant: TenantWithPairings,
        grant: DeviceGrant,
        *,
        public_key: str,
        client: ClientInfo,
        role: Role,
        scopes: Iterable[OperatorScope],
    ) -> PairRequest:
        """Ask those who may pair to let a device do more than its token grants.

        The same question again is the same request.
        """
        now_ms = self._now_ms()
        wanted = tuple(sorted(scope.value for scope in scopes))
        async with pairing.changing(tenant) as file:
            for known in pairing.live_requests(file.current, "device", now_ms):
                same = (known.subject_id, known.role, known.scopes)
                if same == (grant.device_id, role.value, wanted):
                    return known
            request = PairRequest(
                request_id=new_id("pair"),
                kind="device",
                subject_id=grant.device_id,
                ts=now_ms,
                public_key=public_key,
                display_name=client.display_name[:LONGEST_LABEL] or None,
                platform=client.platform or None,
                device_family=client.device_family or None,
                client_id=client.id,
                client_mode=client.mode,
                role=role.value,
                roles=(role.value,),
                scopes=wanted,
                remote_ip=grant.caller.ip or None,
                is_repair=grant.device_id in file.current.devices,
                parent_token_id=grant.caller.credential,
            )
            requests = pairing.with_request(file.current, request, now_ms)
            await file.save(replace(file.current, requests=requests))
            tenant.events.publish(
                "device.pair.requested", DevicePairRequested.of(request), audience=Audience.PAIRING
            )
        return request

    async def approve(
        self,
        tenant: TenantWithPairings,
        caller: Caller,
        request_id: str,
        *,
        held: frozenset[OperatorScope],
    ) -> Device:
        """Grant what a device asks for; ``held`` are the approver's own scopes.

        Raises :exc:`NotFound`, and :exc:`Forbidden` for more than the approver has.
        """
        async with pairing.changing(tenant) as file:
            request = self._request(file.current, request_id)
            require_held(held, request.scopes)
            before = file.current.devices.get(request.subject_id)
            device = paired_devices.granted(before, request, self._now_ms())
            details = {"request": request_id, "role": request.role, "scopes": request.scopes}
            async with self._audit.action(
                caller, "device.pair", tenant=tenant.id, target=device.device_id, details=details
            ):
                paired = paired_devices.with_device(
                    file.current, device, connected=connected_devices(tenant)
                )
                requests = pairing.without_request(paired, request_id)
                await file.save(replace(paired, requests=requests))
            self._tell(tenant, request_id, device.device_id, "approved")
        return device

    async def reject(
        self, tenant: TenantWithPairings, caller: Caller, request_id: str
    ) -> PairRequest:
        """Refuse what a device asks for. Raises :exc:`NotFound`."""
        async with pairing.changing(tenant) as file:
            request = self._request(file.current, request_id)
            async with self._audit.action(
                caller, "device.pair.reject", tenant=tenant.id, target=request.subject_id
            ):
                requests = pairing.without_request(file.current, request_id)
                await file.save(replace(file.current, requests=requests))
            self._tell(tenant, request_id, request.subject_id, "rejected")
        return request

    async def remove(self, tenant: TenantWithPairings, caller: Caller, device_id: str) -> None:
        """Forget a device, its tokens and its requests, and end its connections."""
        async with pairing.changing(tenant) as file:
            require_device(file.current, device_id)
            async with self._audit.action(
                caller, "device.unpair", tenant=tenant.id, target=device_id
            ):
                await file.save(paired_devices.without_device(file.current, device_id))
                tenant.state.device_seen_ms.pop(device_id, None)
                tenant.state.node_queues.forget(device_id)
                drop_connections(tenant, device_id, "device removed")
            self._tell(tenant, "", device_id, "removed")

    async def rename(
        self, tenant: TenantWithPairings, caller: Caller, device_id: str, label: str
    ) -> str:
        """Call a device ``label``; its own name returns with an empty one."""
        label = parse_label(label, longest=LONGEST_LABEL)
        async with pairing.changing(tenant) as file:
            device = replace(require_device(file.current, device_id), label=label or None)
            async with self._audit.action(
                caller, "device.rename", tenant=tenant.id, target=device_id
            ):
                devices = {**file.current.devices, device_id: device}
                await file.save(replace(file.current, devices=devices))
        return label

    def _request(self, paired: Paired, request_id: str) -> PairRequest:
        for request in pairing.live_requests(paired, "device", self._now_ms()):
            if request.request_id == request_id:
                return request
        raise NotFound("unknown requestId")

    def _tell(
        self, tenant: TenantWithPairings, request_id: str, device_id: str, decision: str
    ) -> None:
        resolved = DevicePairResolved(
            request_id=request_id, device_id=device_id, decision=decision, ts=self._now_ms()
        )
        tenant.events.publish("device.pair.resolved", resolved, audience=Audience.PAIRING)

    def _now_ms(self) -> int:
        return to_ms(self._clock())
