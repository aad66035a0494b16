"""A failure becomes what a Gateway client is told.

OpenClaw's first generation here (3) knows few codes; the second (4) adds
``FORBIDDEN``. ``NOT_FOUND`` is the multi-tenant original's. ``details.code`` is
our own code in capitals, for programs.
"""

import logging
import math
import secrets

from appliance.model.errors import ApplianceError, Kind
from appliance.model.operator_scopes import OperatorScope
from appliance.protocols.gateway import WireError
from appliance.transports.problems import find_expected

log = logging.getLogger(__name__)

INVALID_REQUEST = "INVALID_REQUEST"
FORBIDDEN = "FORBIDDEN"
UNAVAILABLE = "UNAVAILABLE"
NOT_FOUND = "NOT_FOUND"

_CODES = {
    Kind.INVALID: INVALID_REQUEST,
    Kind.UNAUTHENTICATED: INVALID_REQUEST,
    Kind.FORBIDDEN: FORBIDDEN,
    Kind.MISSING: NOT_FOUND,
    Kind.CONFLICT: INVALID_REQUEST,
    Kind.STALE: INVALID_REQUEST,
    Kind.TOO_LARGE: INVALID_REQUEST,
    Kind.MISDIRECTED: INVALID_REQUEST,
    Kind.LIMITED: UNAVAILABLE,
    Kind.BAD_UPSTREAM: UNAVAILABLE,
    Kind.UPSTREAM_SLOW: UNAVAILABLE,
    Kind.UNAVAILABLE: UNAVAILABLE,
}
_RETRYABLE = frozenset({Kind.LIMITED, Kind.UPSTREAM_SLOW, Kind.UNAVAILABLE})
_FIRST_WITH_FORBIDDEN = 4


def error_of(error: BaseException, *, protocol: int, request_id: str = "") -> WireError:
    """Describe ``error``. What nobody foresaw is logged here, once, with a reference."""
    expected = find_expected(error)
    if expected is None:
        reference = secrets.token_hex(6)
        log.error(
            "request failed",
            exc_info=error,
            extra={"reference": reference, "request_id": request_id},
        )
        return WireError(
            UNAVAILABLE,
            f"something broke on our side; give this reference to the operator: {reference}",
            {"code": "INTERNAL", "reference": reference},
        )
    return _describe(expected, protocol)


def _describe(error: ApplianceError, protocol: int) -> WireError:
    details: dict[str, object] = {**error.facts, "code": error.code.replace("-", "_").upper()}
    if error.fields:
        details["fields"] = [
            {"field": each.field, "reason": each.reason, "remedy": each.remedy}
            for each in error.fields
        ]
    waits = error.retry_after
    return WireError(
        _code(_CODES[error.kind], protocol),
        error.detail,
        details,
        retryable=True if error.kind in _RETRYABLE else None,
        retry_after_ms=None if waits is None else max(1, math.ceil(waits * 1000)),
    )


def unknown_method(name: str) -> WireError:
    return WireError(INVALID_REQUEST, f"unknown method: {name[:128]}", {"code": "UNKNOWN_METHOD"})


def connected_already() -> WireError:
    return WireError(INVALID_REQUEST, "connect is only valid as the first request")


def missing_scope(scope: OperatorScope | str, *, protocol: int) -> WireError:
    return WireError(
        _code(FORBIDDEN, protocol),
        f"missing scope: {scope}",
        {"code": "MISSING_SCOPE", "missingScope": str(scope), "requiredScopes": [str(scope)]},
    )


def wrong_role(role: str, *, protocol: int) -> WireError:
    return WireError(_code(FORBIDDEN, protocol), f"unauthorized role: {role}", {"code": "ROLE"})


def needs_admin(name: str, *, protocol: int) -> WireError:
    return WireError(
        _code(FORBIDDEN, protocol),
        f"method not available for tenant token: {name}",
        {"code": "ADMIN_ONLY"},
    )


def needs_tenant(name: str, *, protocol: int) -> WireError:
    return WireError(
        _code(FORBIDDEN, protocol),
        f"{name} is about one tenant; connect at /t/<id>/ws or with X-OpenClaw-Tenant",
        {"code": "TENANT_NEEDED"},
    )


def not_yet(name: str) -> WireError:
    """Retrying does not help, a newer release does."""
    return WireError(
        UNAVAILABLE,
        f"{name} is not available in this release",
        {"code": "METHOD_UNAVAILABLE"},
        retryable=False,
    )


def too_many_in_flight(limit: int) -> WireError:
    return WireError(
        UNAVAILABLE,
        f"{limit} requests of this connection are under way already; wait for an answer",
        {"code": "TOO_MANY_IN_FLIGHT", "limit": limit},
        retryable=True,
        retry_after_ms=100,
    )


def _code(code: str, protocol: int) -> str:
    return INVALID_REQUEST if code == FORBIDDEN and protocol < _FIRST_WITH_FORBIDDEN else code
