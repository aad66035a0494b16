"""The door's side of devices: which are known, what they are given, what that is worth."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from msgspec.structs import replace

from appliance.model.callers import Caller
from appliance.model.errors import Forbidden, TokenRejected, Unavailable
from appliance.model.operator_scopes import OperatorScope, Role, covers, grantable
from appliance.model.periods import to_ms
from appliance.services import device_tokens, paired_devices, pairing
from appliance.services.audit import AuditTrail
from appliance.services.clients import ClientInfo
from appliance.services.device_tokens import DeviceGrant, IssuedDeviceToken, TenantTokens
from appliance.services.paired_devices import (
    connected_devices,
    drop_connections,
    require_device,
    require_held,
    unknown_device,
)
from appliance.services.pairing import PairingFile, TenantWithPairings
from appliance.storage.paired import MOST_DEVICES, Device, DeviceTokenRecord, Paired

log = logging.getLogger(__name__)


class DeviceCredentials:
    def __init__(
        self, tokens: TenantTokens, *, audit: AuditTrail, clock: Callable[[], datetime]
    ) -> None:
        self._tokens = tokens
        self._audit = audit
        self._clock = clock

    # Hundreds of connections a second come from devices that are known, so
    # those cost a look into memory. A client keeps the token that it was given
    # once; it gets another when that one ended or when it may do more.
    async def seen(
        self,
        tenant: TenantWithPairings,
        caller: Caller,
        *,
        device_id: str,
        public_key: str,
        client: ClientInfo,
        role: Role,
        scopes: Iterable[OperatorScope],
    ) -> IssuedDeviceToken | None:
        """Note that ``device_id`` connected; return the token it is to be given, if any.

        The door has proved that the client holds the key. An admin vouches
        for nobody. A disk or a log that cannot be written costs the device its
        token, not its connection.
        """
        if caller.is_admin:
            return None
        self._note_time(tenant, device_id)
        wanted = tuple(scope.value for scope in scopes)
        try:
            if self._knows(tenant.id, await pairing.read(tenant), device_id, role, wanted):
                return None
            async with pairing.changing(tenant) as file:
                if self._knows(tenant.id, file.current, device_id, role, wanted):
                    return None  # another connection of it was faster
                before = file.current.devices.get(device_id)
                device = paired_devices.met(
                    before,
                    device_id,
                    public_key,
                    client,
                    role=role.value,
                    scopes=wanted,
                    now_ms=self._now_ms(),
                )
                return await self._issue(tenant, caller, file, device, role, wanted)
        except Unavailable as error:
            log.warning("a device could not be noted", extra={"reason": error.code})
            return None

    async def authenticate_device_token(
        self,
        tenant: TenantWithPairings,
        text: str,
        *,
        device_id: str,
        role: Role,
        request_id: str = "",
        ip: str = "",
    ) -> DeviceGrant:
        """Return what ``text`` grants to a device that has proved its key.

        Raises :exc:`TokenRejected`, whatever the reason.
        """
        paired = await pairing.read(tenant)
        grant = device_tokens.authenticated(
            self._tokens,
            tenant.id,
            text,
            device=paired.devices.get(device_id),
            role=role,
            now=self._clock(),
            request_id=request_id,
            ip=ip,
        )
        if grant is None:
            raise TokenRejected
        return grant

    async def rotate(
        self,
        tenant: TenantWithPairings,
        caller: Caller,
        device_id: str,
        role: str,
        *,
        scopes: Iterable[str] | None = None,
        held: frozenset[OperatorScope],
        connection: str,
    ) -> IssuedDeviceToken:
        """Replace a device's token; its connections other than ``connection`` end.

        Without ``scopes`` it keeps those it had. The caller's token vouches
        for the new one. Raises :exc:`NotFound`, and :exc:`Forbidden` for more
        than the caller has.
        """
        async with pairing.changing(tenant) as file:
            device = require_device(file.current, device_id)
            known = _require_role(device, role)
            before = device.tokens.get(role)
            kept = () if before is None else before.scopes
            named = kept if scopes is None else tuple(scopes)
            wanted = tuple(scope.value for scope in device_tokens.known(named))
            require_held(held, wanted)
            issued, record = device_tokens.mint(
                tenant.id,
                device_id,
                known,
                wanted,
                parent=self._voucher(tenant.id, caller, before),
                now_ms=self._now_ms(),
                before=before,
            )
            async with self._audit.action(
                caller,
                "device.token.rotate",
                tenant=tenant.id,
                target=device_id,
                details={"role": role, "scopes": wanted},
            ):
                await file.save(paired_devices.with_token(file.current, device, role, record))
                reason = "device token rotated"
                drop_connections(tenant, device_id, reason, role=known, but=connection)
        return issued

    async def revoke(
        self, tenant: TenantWithPairings, caller: Caller, device_id: str, role: str
    ) -> int:
        """End a device's token and its connections in that role; return when that was."""
        async with pairing.changing(tenant) as file:
            device = require_device(file.current, device_id)
            known = _require_role(device, role)
            record = device.tokens.get(role)
            if record is None:
                raise unknown_device()
            now_ms = self._now_ms()
            async with self._audit.action(
                caller,
                "device.token.revoke",
                tenant=tenant.id,
                target=device_id,
                details={"role": role},
            ):
                ended = replace(record, revoked_at_ms=now_ms)
                await file.save(paired_devices.with_token(file.current, device, role, ended))
                drop_connections(tenant, device_id, "device token revoked", role=known)
        return now_ms

    def _note_time(self, tenant: TenantWithPairings, device_id: str) -> None:
        seen = tenant.state.device_seen_ms
        seen.pop(device_id, None)  # so that the order is that of time
        seen[device_id] = self._now_ms()
        if len(seen) > MOST_DEVICES:
            del seen[next(iter(seen))]

    def _knows(
        self, tenant: str, paired: Paired, device_id: str, role: Role, scopes: tuple[str, ...]
    ) -> bool:
        """Whether the device has a token that is good for this role and these scopes."""
        device = paired.devices.get(device_id)
        token = None if device is None else device.tokens.get(role.value)
        if token is None or not device_tokens.includes(token.scopes, scopes):
            return False
        return device_tokens.vouched(self._tokens, tenant, token, self._clock()) is not None

    async def _issue(
        self,
        tenant: TenantWithPairings,
        caller: Caller,
        file: PairingFile,
        device: Device,
        role: Role,
        scopes: tuple[str, ...],
    ) -> IssuedDeviceToken:
        before = device.tokens.get(role.value)
        # Clients ask for what each call needs: with the sum of it, as far as one
        # token vouches for it, they soon have a token that needs no other.
        if before is not None and before.parent_token_id == caller.credential:
            possible = grantable(caller)
            held = device_tokens.known(before.scopes)
            scopes = (*scopes, *(s.value for s in possible if covers(held, s)))
        issued, record = device_tokens.mint(
            tenant.id,
            device.device_id,
            role,
            frozenset(scopes),
            parent=caller.credential,
            now_ms=self._now_ms(),
            before=before,
        )
        is_new = device.device_id not in file.current.devices
        async with self._audit.action(
            caller,
            "device.pair" if is_new else "device.token.issue",
            tenant=tenant.id,
            target=device.device_id,
            details={"role": role.value, "scopes": issued.scopes, "silent": True},
        ):
            paired = paired_devices.with_device(
                file.current, device, connected=connected_devices(tenant)
            )
            await file.save(paired_devices.with_token(paired, device, role.value, record))
        return issued

    def _voucher(self, tenant: str, caller: Caller, before: DeviceTokenRecord | None) -> str:
        """The id of the tenant token behind a token that ``caller`` wants."""
        if not caller.is_admin:
            return caller.credential
        # An admin acts for a tenant but is none: what vouched before still does.
        parent = device_tokens.vouched(self._tokens, tenant, before, self._clock())
        if parent is None:
            raise Forbidden("only a token of the tenant can vouch for this device")
        return parent.token_id

    def _now_ms(self) -> int:
        return to_ms(self._clock())


def _require_role(device: Device, role: str) -> Role:
    if role not in device.roles:
        raise unknown_device()
    return Role(role)
