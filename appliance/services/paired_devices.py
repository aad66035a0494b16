"""The rules of a tenant's device list: from one content of it to the next, and who may."""

from collections.abc import Iterable, Mapping, Set
from typing import TypeVar

from msgspec.structs import replace

from appliance.model.errors import Forbidden, NotFound
from appliance.model.operator_scopes import OperatorScope, Role, covers
from appliance.services.clients import ClientInfo
from appliance.services.device_tokens import known
from appliance.services.pairing import TenantWithPairings
from appliance.storage.paired import (
    MOST_DEVICES,
    Device,
    DeviceTokenRecord,
    Paired,
    PairRequest,
)

_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
_LONGEST_NAME = 200  # characters of what a client calls itself

T = TypeVar("T")


def met(
    before: Device | None,
    device_id: str,
    public_key: str,
    client: ClientInfo,
    *,
    role: str,
    scopes: tuple[str, ...],
    now_ms: int,
) -> Device:
    """The device as it connected just now, vouched for by a token of the tenant."""
    roles = () if before is None else before.roles
    held = () if before is None else before.scopes
    return Device(
        device_id=device_id,
        public_key=public_key,
        display_name=_short(client.display_name),
        platform=_short(client.platform),
        client_id=_short(client.id),
        client_mode=_short(client.mode),
        roles=_joined(roles, (role,)),
        scopes=_joined(held, scopes),
        created_at_ms=now_ms if before is None else before.created_at_ms,
        approved_at_ms=now_ms if before is None else before.approved_at_ms,
        tokens={} if before is None else before.tokens,
        label=None if before is None else before.label,
    )


def granted(before: Device | None, request: PairRequest, now_ms: int) -> Device:
    """The device after its request was approved.

    The token it has grants what it asked for; one for a new role shares the
    text of the one that it asked with, which is all that the device holds.
    """
    role = request.role or ""
    if before is None:  # it was removed while it waited; whoever vouches for it meets it anew
        return Device(
            device_id=request.subject_id,
            public_key=request.public_key or "",
            display_name=request.display_name,
            platform=request.platform,
            client_id=request.client_id,
            client_mode=request.client_mode,
            roles=(role,),
            scopes=request.scopes,
            created_at_ms=now_ms,
            approved_at_ms=now_ms,
        )
    live = [token for token in before.tokens.values() if token.revoked_at_ms is None]
    tokens = dict(before.tokens)
    own = tokens.get(role)
    if own is not None and own.revoked_at_ms is None:
        tokens[role] = replace(own, scopes=_joined(own.scopes, request.scopes))
    elif live:
        tokens[role] = replace(live[0], scopes=request.scopes, created_at_ms=now_ms)
    return replace(
        before,
        roles=_joined(before.roles, (role,)),
        scopes=_joined(before.scopes, request.scopes),
        approved_at_ms=now_ms,
        tokens=tokens,
    )


def with_device(paired: Paired, device: Device, *, connected: Set[str]) -> Paired:
    """``paired`` with ``device``.

    A full list loses the one that was met first, if possible one that is not
    connected: its owner's token vouches for it again when it comes back.
    """
    devices = dict(paired.devices)
    if device.device_id not in devices and len(devices) >= MOST_DEVICES:
        oldest = min(devices.values(), key=lambda d: (d.device_id in connected, d.approved_at_ms))
        del devices[oldest.device_id]
    devices[device.device_id] = device
    return replace(paired, devices=devices)


def with_token(paired: Paired, device: Device, role: str, token: DeviceTokenRecord) -> Paired:
    changed = replace(device, tokens={**device.tokens, role: token})
    return replace(paired, devices={**paired.devices, device.device_id: changed})


def without_device(paired: Paired, device_id: str) -> Paired:
    """``paired`` without the device, the node that it may also be, and their requests."""
    return replace(
        paired,
        devices=without(paired.devices, device_id),
        nodes=without(paired.nodes, device_id),
        requests=tuple(r for r in paired.requests if r.subject_id != device_id),
    )


def without(things: Mapping[str, T], name: str) -> dict[str, T]:
    return {known: thing for known, thing in things.items() if known != name}


def drop_connections(
    tenant: TenantWithPairings,
    device_id: str,
    reason: str,
    *,
    role: Role | None = None,
    but: str = "",
) -> None:
    """Close the device's connections (in ``role``, if one is given) soon."""
    for client in tenant.clients:
        if client.device_id == device_id and role in {None, client.role} and client.id != but:
            client.drop(_POLICY_VIOLATION, reason)


def require_device(paired: Paired, device_id: str) -> Device:
    device = paired.devices.get(device_id)
    if device is None:
        raise unknown_device()
    return device


def require_held(held: frozenset[OperatorScope], wanted: Iterable[str]) -> None:
    """Refuse unless whoever has ``held`` may hand on ``wanted``."""
    missing = sorted(s for s in known(wanted) if not covers(held, s))
    if missing:
        raise Forbidden(f"nobody can grant what they do not have: {', '.join(missing)}")


# One answer for an unknown device, another tenant's, and one without that role.
def unknown_device() -> NotFound:
    return NotFound("unknown deviceId")


def connected_devices(tenant: TenantWithPairings) -> frozenset[str]:
    return frozenset(c.device_id for c in tenant.clients if c.device_id is not None)


def _joined(some: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*some, *more}))


def _short(text: str) -> str | None:
    return text[:_LONGEST_NAME] or None
