"""The first message of a client: who it is, what it may do, in which dialect.

Order of the checks: can it be read, does it speak a protocol of ours, may its
page be here, is it the device it says it is, does its token grant anything,
does the token fit the path. Whatever is wrong with a token gets one answer.
"""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.errors import ApplianceError, ShuttingDown, TokenRejected
from appliance.model.operator_scopes import OperatorScope, Role, granted
from appliance.model.periods import to_ms
from appliance.model.tokens import TenantToken
from appliance.protocols import gateway, jsonrpc
from appliance.protocols import handshake_refusals as refusals
from appliance.protocols.connect import ConnectInvalid, ConnectRequest, Resume, read_connect
from appliance.protocols.device_identity import DeviceRejected, verify
from appliance.protocols.gateway import CONNECT, WireError
from appliance.protocols.handshake_refusals import HandshakeRefusal
from appliance.services.clients import ClientInfo
from appliance.transports.callers import Authenticator
from appliance.transports.rpc.failures import error_of
from appliance.transports.websocket.connection import Admission, Goodbye
from appliance.transports.websocket.dialects import (
    Dialect,
    JsonRpcDialect,
    MessageInvalid,
    OpenClawDialect,
    Request,
)
from appliance.transports.websocket.throttle import LoginThrottle
from appliance.transports.websocket.upgrade import Upgrade, authenticate

_NEWEST = 4
_DEVICE_ID = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_NO_JSON = Goodbye(1000, "")


class PairingNeeded(Exception):
    """A device wants more than its token grants; somebody is asked to approve ``request_id``."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


class DeviceTokens(Protocol):
    async def __call__(
        self, token: TenantToken, request: ConnectRequest, *, request_id: str, ip: str
    ) -> tuple[Caller, frozenset[OperatorScope]]:
        """Who the holder of a device's token is.

        The device has proved its key. Raises ``TokenRejected`` or
        :exc:`PairingNeeded`.
        """


@dataclass(frozen=True, slots=True)
class Visit:
    """A client before its first message."""

    upgrade: Upgrade
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A client that may come in. ``tag`` answers its ``connect``, if it sent one."""

    admission: Admission
    dialect: Dialect
    tag: object
    asked_to_connect: bool
    public_key: str = ""  # of its device
    resume: Resume | None = None
    early: Sequence[Request] = field(default_factory=tuple)  # asked together with the greeting


class HandshakeRefused(Exception):
    def __init__(self, frame: bytes | None, goodbye: Goodbye) -> None:
        super().__init__(goodbye.reason)
        self.frame = frame
        self.goodbye = goodbye


class Handshake:
    def __init__(
        self,
        *,
        access: Authenticator,
        device_tokens: DeviceTokens,
        throttle: LoginThrottle,
        config: Callable[[], GatewayConfig],
        clock: Callable[[], datetime],
    ) -> None:
        self._access = access
        self._device_tokens = device_tokens
        self._throttle = throttle
        self._config = config
        self._clock = clock

    async def admit(self, first: bytes, visit: Visit) -> Admitted:
        """Raises :exc:`HandshakeRefused`."""
        try:
            value = gateway.read_json(first)
        except gateway.FrameInvalid:
            raise HandshakeRefused(None, _NO_JSON) from None
        if jsonrpc.speaks_jsonrpc(value):
            return await self._admit_jsonrpc(value, visit)
        try:
            frame = gateway.read_frame(value)
        except gateway.FrameInvalid as exc:
            raise _frame_refused(exc) from None
        if isinstance(frame, gateway.Ignored) or frame.method != CONNECT:
            request_id = frame.id if isinstance(frame, gateway.Request) else None
            raise _refused(OpenClawDialect(_NEWEST), request_id, refusals.not_connect())
        protocol = _generation(frame.params)
        dialect = OpenClawDialect(protocol)
        try:
            request = read_connect(frame.params, strict_client=True)
            return await self._admit(request, visit, dialect, frame.id)
        except ConnectInvalid as exc:
            raise _refused(dialect, frame.id, refusals.invalid_params(exc)) from None

    async def _admit_jsonrpc(self, value: object, visit: Visit) -> Admitted:
        dialect = JsonRpcDialect()
        try:
            requests = list(dialect.understand(jsonrpc.read(value)))
        except MessageInvalid as invalid:
            raise HandshakeRefused(invalid.answer, Goodbye(1008, invalid.reason)) from None
        connect = requests[0] if requests and requests[0].method == CONNECT else None
        tag = None if connect is None else connect.tag
        try:
            request = read_connect(None if connect is None else connect.params, strict_client=False)
            if connect is None and visit.upgrade.caller is None:
                raise _refused(
                    dialect, requests[0].tag if requests else None, refusals.not_connect()
                )
            admitted = await self._admit(request, visit, dialect, tag)
        except ConnectInvalid as exc:
            raise _refused(dialect, tag, refusals.invalid_params(exc)) from None
        early = requests if connect is None else requests[1:]
        return replace(admitted, early=tuple(early), asked_to_connect=connect is not None)

    async def _admit(
        self, request: ConnectRequest, visit: Visit, dialect: Dialect, tag: object
    ) -> Admitted:
        protocol = request.protocol
        if protocol is None:
            refusal = refusals.protocol_mismatch(request.min_protocol, request.max_protocol)
            raise _refused(dialect, tag, refusal)
        if not visit.upgrade.from_own_page:
            raise _refused(dialect, tag, refusals.origin_not_allowed(protocol))
        self._check_device(request, visit, dialect, tag)
        caller, limit = await self._caller(request, visit, dialect, tag)
        scopes = frozenset[OperatorScope]()
        if request.role is Role.OPERATOR:
            scopes = granted(caller, request.scopes)
            if limit is not None:
                scopes &= limit
        admission = Admission(
            conn_id=secrets.token_hex(12),
            caller=caller,
            role=request.role,
            scopes=scopes,
            info=client_info(request),
            device_id=None if request.device is None else request.device.id,
            node_id=_node_id(request),
            connected_at=self._clock(),
        )
        return Admitted(
            admission=admission,
            dialect=dialect,
            tag=tag,
            asked_to_connect=True,
            public_key="" if request.device is None else request.device.public_key,
            resume=request.resume,
        )

    def _check_device(
        self, request: ConnectRequest, visit: Visit, dialect: Dialect, tag: object
    ) -> None:
        if request.device is None:
            return
        client = request.client
        try:
            verify(
                request.device,
                client_id=client.id,
                client_mode=client.mode,
                role=request.role,
                scopes=request.scopes,
                token=request.signed_token,
                platform=client.platform,
                device_family=client.device_family,
                nonce=visit.nonce,
                now_ms=to_ms(self._clock()),
            )
        except DeviceRejected as exc:
            refusal = refusals.device_rejected(exc.reason, dialect.protocol)
            raise _refused(dialect, tag, refusal) from None

    async def _caller(
        self, request: ConnectRequest, visit: Visit, dialect: Dialect, tag: object
    ) -> tuple[Caller, frozenset[OperatorScope] | None]:
        """Who it is, and to what its device's token limits it."""
        upgrade = visit.upgrade
        if upgrade.caller is not None:
            return upgrade.caller, None
        if not request.tokens:
            refusal = (
                refusals.device_required()
                if request.device is None
                else refusals.token_missing(dialect.protocol)
            )
            raise _refused(dialect, tag, refusal)
        for token in request.tokens:
            try:
                caller = authenticate(
                    self._access,
                    token,
                    upgrade.presented,
                    ip=upgrade.ip,
                    route_tenant=upgrade.route_tenant,
                )
            except TokenRejected:
                try:
                    found = await self._device_caller(token, request, upgrade)
                except PairingNeeded as needed:
                    refusal = refusals.pairing_required(
                        needed.request_id, reason="scope-upgrade", protocol=dialect.protocol
                    )
                    raise _refused(dialect, tag, refusal) from None
                if found is not None:
                    return found
            except ApplianceError as exc:
                raise _refused_with(dialect, tag, self.error(exc, dialect.protocol)) from None
            else:
                return caller, None
        raise _refused(dialect, tag, self._wrong_token(request, upgrade.ip, dialect.protocol))

    async def _device_caller(
        self, token: str, request: ConnectRequest, upgrade: Upgrade
    ) -> tuple[Caller, frozenset[OperatorScope]] | None:
        parsed = TenantToken.parse(token)
        if request.device is None or parsed is None:
            return None
        if upgrade.route_tenant not in {None, parsed.tenant}:
            return None
        try:
            return await self._device_tokens(
                parsed,
                request,
                request_id=upgrade.presented.request_id,
                ip=upgrade.ip,
            )
        except ApplianceError:
            return None  # also of a tenant that cannot be woken: one answer for all

    def _wrong_token(self, request: ConnectRequest, ip: str, protocol: int) -> HandshakeRefusal:
        wait = self.note_failure(ip)
        if wait is not None:
            return refusals.rate_limited(wait, protocol)
        if request.auth.device_token and not request.auth.token:
            return refusals.device_token_mismatch(protocol)
        return refusals.token_mismatch(protocol)

    def note_failure(self, ip: str) -> float | None:
        """Count a wrong token from ``ip``; return the seconds to stay away, if it must."""
        limits = self._config().server.websocket
        return self._throttle.note_failure(
            ip, most=limits.login_failures_per_minute, lockout=limits.login_lockout or 0
        )

    def error(self, error: ApplianceError, protocol: int) -> WireError:
        """A failure on our side of the handshake, as the client is told."""
        if isinstance(error, ShuttingDown):
            return refusals.shutting_down().error
        return error_of(error, protocol=protocol)


def _generation(params: object) -> int:
    """Which generation's words to refuse in; what cannot be read is the newest."""
    most = params.get("maxProtocol") if isinstance(params, dict) else None
    return 3 if most == 3 else _NEWEST


def client_info(request: ConnectRequest) -> ClientInfo:
    """What a client says of itself."""
    client = request.client
    return ClientInfo(
        id=client.id,
        mode=client.mode,
        version=client.version,
        platform=client.platform,
        display_name=client.display_name,
        device_family=client.device_family,
        model_identifier=client.model_identifier,
        instance_id=client.instance_id,
        user_agent=request.user_agent,
        locale=request.locale,
        commands=request.commands,
        caps=frozenset(request.caps),
        permissions=request.permissions,
    )


def _node_id(request: ConnectRequest) -> str | None:
    """A node is its device; one that has no key is what it calls itself."""
    if request.role is not Role.NODE:
        return None
    if request.device is not None:
        return request.device.id
    name = request.client.instance_id or request.client.id
    if _DEVICE_ID.fullmatch(name) is not None:
        raise ConnectInvalid("/client", "a node is named like a device only if it proves to be it")
    return name


def _frame_refused(exc: gateway.FrameInvalid) -> HandshakeRefused:
    error = WireError("INVALID_REQUEST", exc.reason)
    return HandshakeRefused(
        gateway.encode_error(exc.id, error), Goodbye(1008, "invalid request frame")
    )


def _refused(dialect: Dialect, tag: object, refusal: HandshakeRefusal) -> HandshakeRefused:
    frame = None if tag is None else dialect.last_word(tag, refusal.error)
    return HandshakeRefused(frame, Goodbye(refusal.close_code, refusal.close_reason))


def _refused_with(dialect: Dialect, tag: object, error: WireError) -> HandshakeRefused:
    frame = None if tag is None else dialect.last_word(tag, error)
    return HandshakeRefused(frame, Goodbye(1008, refusals.clip_reason(error.message)))
