"""Wire shapes of devices: pairing, their tokens."""

from typing import Annotated

from msgspec import Meta

from appliance.services.device_tokens import IssuedDeviceToken
from appliance.services.devices import DeviceList
from appliance.services.pairing_events import DevicePairRequested
from appliance.storage.paired import Device, DeviceTokenRecord
from appliance.transports.rpc.fields import DeviceIdText, PairRequestIdText
from appliance.transports.rpc.method import Params, Result

RoleText = Annotated[str, Meta(min_length=1, max_length=32)]
ScopeText = Annotated[str, Meta(min_length=1, max_length=64)]


class PairDecisionParams(Params, frozen=True):
    request_id: PairRequestIdText


class DeviceParams(Params, frozen=True):
    device_id: DeviceIdText


class DeviceRenameParams(Params, frozen=True):
    device_id: DeviceIdText
    label: Annotated[str, Meta(max_length=64)]


class DeviceTokenRotateParams(Params, frozen=True):
    device_id: DeviceIdText
    role: RoleText
    scopes: Annotated[tuple[ScopeText, ...], Meta(max_length=32)] | None = None


class DeviceTokenRevokeParams(Params, frozen=True):
    device_id: DeviceIdText
    role: RoleText


class DeviceTokenView(Result, frozen=True):
    """A token without its text, which is shown once."""

    role: str
    scopes: tuple[str, ...]
    created_at_ms: int
    rotated_at_ms: int | None = None
    revoked_at_ms: int | None = None

    @classmethod
    def of(cls, role: str, token: DeviceTokenRecord) -> "DeviceTokenView":
        return cls(
            role=role,
            scopes=token.scopes,
            created_at_ms=token.created_at_ms,
            rotated_at_ms=token.rotated_at_ms,
            revoked_at_ms=token.revoked_at_ms,
        )


class DeviceView(Result, frozen=True):
    device_id: str
    public_key: str
    role: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    created_at_ms: int
    approved_at_ms: int
    tokens: list[DeviceTokenView]
    display_name: str | None = None
    label: str | None = None
    platform: str | None = None
    client_id: str | None = None
    client_mode: str | None = None
    connected: bool | None = None
    last_seen_at_ms: int | None = None

    @classmethod
    def of(
        cls, device: Device, *, connected: bool | None = None, seen_ms: int | None = None
    ) -> "DeviceView":
        tokens = [DeviceTokenView.of(role, device.tokens[role]) for role in sorted(device.tokens)]
        return cls(
            device_id=device.device_id,
            public_key=device.public_key,
            role="operator" if "operator" in device.roles else "".join(device.roles[:1]),
            roles=device.roles,
            scopes=device.scopes,
            created_at_ms=device.created_at_ms,
            approved_at_ms=device.approved_at_ms,
            tokens=tokens,
            display_name=device.label or device.display_name,
            label=device.label,
            platform=device.platform,
            client_id=device.client_id,
            client_mode=device.client_mode,
            connected=connected,
            last_seen_at_ms=seen_ms,
        )


class DevicePairListResult(Result, frozen=True):
    pending: list[DevicePairRequested]
    paired: list[DeviceView]

    @classmethod
    def of(cls, found: DeviceList) -> "DevicePairListResult":
        return cls(
            pending=[DevicePairRequested.of(request) for request in found.pending],
            paired=[
                DeviceView.of(
                    device,
                    connected=device.device_id in found.connected,
                    seen_ms=found.seen_ms.get(device.device_id),
                )
                for device in found.paired
            ],
        )


class DevicePairApproveResult(Result, frozen=True):
    request_id: str
    device: DeviceView


class DevicePairRejectResult(Result, frozen=True):
    request_id: str
    device_id: str


class DevicePairRemoveResult(Result, frozen=True):
    device_id: str


class DevicePairRenameResult(Result, frozen=True):
    device_id: str
    label: str


class DeviceTokenRotateResult(Result, frozen=True):
    device_id: str
    role: str
    token: str
    scopes: tuple[str, ...]
    rotated_at_ms: int
    token_delivery: str | None = None

    @classmethod
    def of(cls, issued: IssuedDeviceToken) -> "DeviceTokenRotateResult":
        return cls(
            device_id=issued.device_id,
            role=issued.role.value,
            token=issued.text,
            scopes=issued.scopes,
            rotated_at_ms=issued.issued_at_ms,
            token_delivery="in-band",  # noqa: S106 - how it is delivered, not a token
        )


class DeviceTokenRevokeResult(Result, frozen=True):
    device_id: str
    role: str
    revoked_at_ms: int
