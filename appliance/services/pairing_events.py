"""What those who may pair are told, as it goes over the wire."""

import msgspec

from appliance.storage.paired import PairRequest


class DevicePairRequested(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"
):
    request_id: str
    device_id: str
    public_key: str
    ts: int
    display_name: str | None = None
    platform: str | None = None
    device_family: str | None = None
    client_id: str | None = None
    client_mode: str | None = None
    role: str | None = None
    roles: tuple[str, ...] | None = None
    scopes: tuple[str, ...] | None = None
    remote_ip: str | None = None
    silent: bool | None = None
    is_repair: bool | None = None

    @classmethod
    def of(cls, request: PairRequest) -> "DevicePairRequested":
        return cls(
            request_id=request.request_id,
            device_id=request.subject_id,
            public_key=request.public_key or "",
            ts=request.ts,
            display_name=request.display_name,
            platform=request.platform,
            device_family=request.device_family,
            client_id=request.client_id,
            client_mode=request.client_mode,
            role=request.role,
            roles=request.roles or None,
            scopes=request.scopes or None,
            remote_ip=request.remote_ip,
            silent=request.silent or None,
            is_repair=request.is_repair or None,
        )


class DevicePairResolved(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``decision`` is approved, rejected or removed; then ``request_id`` is empty."""

    request_id: str
    device_id: str
    decision: str
    ts: int


class NodePairRequested(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"
):
    request_id: str
    node_id: str
    ts: int
    display_name: str | None = None
    platform: str | None = None
    version: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    caps: tuple[str, ...] | None = None
    commands: tuple[str, ...] | None = None
    remote_ip: str | None = None
    silent: bool | None = None
    is_repair: bool | None = None

    @classmethod
    def of(cls, request: PairRequest) -> "NodePairRequested":
        return cls(
            request_id=request.request_id,
            node_id=request.subject_id,
            ts=request.ts,
            display_name=request.display_name,
            platform=request.platform,
            version=request.version,
            device_family=request.device_family,
            model_identifier=request.model_identifier,
            caps=request.caps or None,
            commands=request.commands or None,
            remote_ip=request.remote_ip,
            silent=request.silent or None,
            is_repair=request.is_repair or None,
        )


class NodePairResolved(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """As :class:`DevicePairResolved`."""

    request_id: str
    node_id: str
    decision: str
    ts: int
