"""Every way to refuse a Gateway connection: the error frame and the close after it.

The first words of each message, the codes and the details are what OpenClaw's
clients decide by: whether to try again, with what, and what to tell the user.
Where the generations differ, ``protocol`` (3 or 4) says whom we talk to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.protocols.connect import PROTOCOLS, ConnectInvalid
from appliance.protocols.device_identity import DeviceFault
from appliance.protocols.gateway import WireError

POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1
PROTOCOL_ERROR = 1002
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

_LONGEST_REASON = 123  # bytes in a close frame, RFC 6455 §5.5
_RESTART_RETRY_MS = 500

_DEVICE_FAULTS: dict[DeviceFault, tuple[str, str]] = {
    DeviceFault.ID_MISMATCH: ("device identity mismatch", "DEVICE_AUTH_DEVICE_ID_MISMATCH"),
    DeviceFault.STALE: ("device signature expired", "DEVICE_AUTH_SIGNATURE_EXPIRED"),
    DeviceFault.NONCE_MISSING: ("device nonce required", "DEVICE_AUTH_NONCE_REQUIRED"),
    DeviceFault.NONCE_MISMATCH: ("device nonce mismatch", "DEVICE_AUTH_NONCE_MISMATCH"),
    DeviceFault.KEY_INVALID: ("device public key invalid", "DEVICE_AUTH_PUBLIC_KEY_INVALID"),
    DeviceFault.SIGNATURE_INVALID: ("device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID"),
}


@dataclass(frozen=True, slots=True)
class HandshakeRefusal:
    """What to answer ``connect`` with, and how to close the connection then."""

    error: WireError
    close_code: int
    close_reason: str  # 123 bytes in UTF-8 at most

    @property
    def code(self) -> str:
        return self.error.code

    @property
    def message(self) -> str:
        return self.error.message

    @property
    def details(self) -> Mapping[str, Any] | None:
        return self.error.details


def token_mismatch(protocol: int, *, has_unused_device: bool = False) -> HandshakeRefusal:
    """The token grants nothing: one answer for every reason.

    ``has_unused_device`` is for a client that proved to be a device and sent no
    device token: it may have one.
    """
    details: dict[str, Any] = {"code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch"}
    if protocol >= 4:
        details["canRetryWithDeviceToken"] = has_unused_device
        details["recommendedNextStep"] = (
            "retry_with_device_token" if has_unused_device else "update_auth_credentials"
        )
    return _refuse("unauthorized: gateway token mismatch (check the tenant token)", details)


def device_token_mismatch(protocol: int) -> HandshakeRefusal:
    """The device's own token grants nothing; clients forget it when they read this."""
    details: dict[str, Any] = {
        "code": "AUTH_DEVICE_TOKEN_MISMATCH",
        "authReason": "device_token_mismatch",
    }
    if protocol >= 4:
        details["canRetryWithDeviceToken"] = False
        details["recommendedNextStep"] = "update_auth_credentials"
    return _refuse(
        "unauthorized: device token mismatch (connect with the tenant token again)", details
    )


def token_missing(protocol: int) -> HandshakeRefusal:
    details: dict[str, Any] = {"code": "AUTH_TOKEN_MISSING", "authReason": "token_missing"}
    if protocol >= 4:
        details["canRetryWithDeviceToken"] = False
        details["recommendedNextStep"] = "update_auth_configuration"
    return _refuse(
        "unauthorized: gateway token missing (send the tenant token as auth.token)", details
    )


def device_required() -> HandshakeRefusal:
    """Neither a token nor a device came."""
    return _refuse(
        "device identity required", {"code": "DEVICE_IDENTITY_REQUIRED"}, code="NOT_PAIRED"
    )


def device_rejected(reason: DeviceFault, protocol: int) -> HandshakeRefusal:
    message, code = _DEVICE_FAULTS[reason]
    if protocol < 4:
        code = "DEVICE_AUTH_INVALID"
    return _refuse(message, {"code": code, "reason": reason.value})


def pairing_required(
    request_id: str, *, reason: str = "not-paired", protocol: int
) -> HandshakeRefusal:
    """``reason`` is not-paired, role-upgrade, scope-upgrade or metadata-upgrade."""
    details: dict[str, Any] = {
        "code": "PAIRING_REQUIRED",
        "requestId": request_id,
        "reason": reason,
    }
    if protocol >= 4:
        details["recommendedNextStep"] = "wait_then_retry"
        details["retryable"] = True
        details["pauseReconnect"] = False
    return _refuse("pairing required", details, code="NOT_PAIRED")


def protocol_mismatch(least: int, most: int) -> HandshakeRefusal:
    """The client speaks ``least`` to ``most``, and none of that is ours."""
    # Each generation looks for its own number, to know on which side the gap is.
    expected = PROTOCOLS[0] if most < PROTOCOLS[0] else PROTOCOLS[-1]
    details = {
        "code": "PROTOCOL_MISMATCH",
        "clientMinProtocol": least,
        "clientMaxProtocol": most,
        "expectedProtocol": expected,
        "minimumProbeProtocol": PROTOCOLS[0],
    }
    return _refuse("protocol mismatch", details, close_code=PROTOCOL_ERROR)


def invalid_params(found: ConnectInvalid) -> HandshakeRefusal:
    """Also an ``invalid role``: the text is the fault's own."""
    return _refuse(str(found))


def not_connect() -> HandshakeRefusal:
    return _refuse("invalid handshake: first request must be connect")


def origin_not_allowed(protocol: int) -> HandshakeRefusal:
    return _refuse(
        "origin not allowed (open the page from this gateway, or allow its origin)",
        {"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED"} if protocol >= 4 else None,
    )


def rate_limited(retry_after: float, protocol: int) -> HandshakeRefusal:
    """Too many wrong tokens came from there. ``retry_after`` is in seconds."""
    details: dict[str, Any] = {"code": "AUTH_RATE_LIMITED", "authReason": "rate_limited"}
    if protocol >= 4:
        details["canRetryWithDeviceToken"] = False
        details["recommendedNextStep"] = "wait_then_retry"
    return _refuse(
        "unauthorized: too many failed authentication attempts (retry later)",
        details,
        retry_after_ms=max(1, round(retry_after * 1000)),
    )


def too_many_connections(most: int, *, retry_after: float = 5) -> HandshakeRefusal:
    """``most`` is what the tenant may have open at once."""
    return _refuse(
        f"too many connections (the limit is {most}; close some and retry)",
        {"code": "TOO_MANY_CONNECTIONS", "limit": most},
        code="UNAVAILABLE",
        retry_after_ms=round(retry_after * 1000),
        close_code=TRY_AGAIN_LATER,
    )


def shutting_down() -> HandshakeRefusal:
    return _refuse(
        "service restart",
        code="UNAVAILABLE",
        retry_after_ms=_RESTART_RETRY_MS,
        close_code=SERVICE_RESTART,
    )


def clip_reason(text: str) -> str:
    """As much of ``text`` as fits a close frame."""
    return text.encode(errors="replace")[:_LONGEST_REASON].decode(errors="ignore")


def _refuse(
    message: str,
    details: dict[str, Any] | None = None,
    *,
    code: str = "INVALID_REQUEST",
    retry_after_ms: int | None = None,
    close_code: int = POLICY_VIOLATION,
) -> HandshakeRefusal:
    error = WireError(
        code,
        message,
        details,
        retryable=None if retry_after_ms is None else True,
        retry_after_ms=retry_after_ms,
    )
    return HandshakeRefusal(error, close_code, clip_reason(message))
