"""Turns a failure into what goes over the wire: RFC 9457 problem details.

The tables from :class:`Kind` and code to HTTP status stand here and nowhere
else; the OpenAI-shaped routes read the same tables and render another body.
"""

import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from werkzeug.exceptions import HTTPException

from appliance.model.errors import (
    ApplianceError,
    InvalidRequest,
    Kind,
    MethodNotAllowed,
    NotFound,
    TooLarge,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:openclawmu:"

HTTP_STATUS: Mapping[Kind, HTTPStatus] = {
    Kind.INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Kind.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Kind.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Kind.MISSING: HTTPStatus.NOT_FOUND,
    Kind.CONFLICT: HTTPStatus.CONFLICT,
    Kind.STALE: HTTPStatus.PRECONDITION_FAILED,
    Kind.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Kind.MISDIRECTED: HTTPStatus.MISDIRECTED_REQUEST,
    Kind.LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    Kind.BAD_UPSTREAM: HTTPStatus.BAD_GATEWAY,
    Kind.UPSTREAM_SLOW: HTTPStatus.GATEWAY_TIMEOUT,
    Kind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}

# Where HTTP has a number of its own for what is one kind to everybody else.
STATUS_OF_CODE: Mapping[str, HTTPStatus] = {
    "malformed-body": HTTPStatus.BAD_REQUEST,
    "method-not-allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "slow-body": HTTPStatus.REQUEST_TIMEOUT,
    "range-not-satisfiable": HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
}


class MalformedBody(InvalidRequest):
    """The body is not JSON at all, so there are no fields to complain about."""

    code = "malformed-body"
    title = "The body cannot be read"


class RangeUnsatisfiable(InvalidRequest):
    code = "range-not-satisfiable"
    title = "The range lies outside of the file"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes", size=size)


class SlowBody(InvalidRequest):
    code = "slow-body"
    title = "The body did not arrive in time"


def status_of(error: ApplianceError) -> HTTPStatus:
    return STATUS_OF_CODE.get(error.code) or HTTP_STATUS[error.kind]


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure as it leaves us: the status, the members of the body, extra headers."""

    status: HTTPStatus
    members: Mapping[str, Any]
    headers: Mapping[str, str]

    def encode(self) -> bytes:
        return msgspec.json.encode(self.members)


def problem_of(error: BaseException, *, request_id: str = "") -> Problem:
    """Describe ``error``. What we did not foresee is logged here, once, with a reference."""
    expected = find_expected(error)
    if expected is None:
        return _unforeseen(error, request_id)
    status = status_of(expected)
    members: dict[str, Any] = {
        **expected.facts,
        "type": TYPE_PREFIX + expected.code,
        "title": expected.title,
        "status": int(status),
        "detail": expected.detail,
        "code": expected.code,
        "request_id": request_id,
    }
    if expected.fields:
        members["errors"] = [
            {"field": each.field, "reason": each.reason, "remedy": each.remedy}
            for each in expected.fields
        ]
    if expected.retry_after is not None:
        members["retry_after"] = _whole_seconds(expected.retry_after)
    return Problem(status, members, _headers(expected, status))


def find_expected(error: BaseException) -> ApplianceError | None:
    """The expected failure that ``error`` is, or that a nursery wrapped it around."""
    if isinstance(error, ApplianceError):
        return error
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return find_expected(error.exceptions[0])
    return None


def from_http_exception(
    error: HTTPException, *, path: str, allow: str, body_limit: int
) -> ApplianceError | None:
    """What the framework found wrong with a request, in our words; None if it is our fault."""
    if error.code == HTTPStatus.NOT_FOUND:
        return NotFound("there is nothing at this path; GET /docs lists what there is")
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{path[:200]} answers {allow}", allow=allow)
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return body_too_large(body_limit)
    if error.code == HTTPStatus.REQUEST_TIMEOUT:
        return slow_body()
    if error.code is not None and error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return MalformedBody("the request cannot be read")
    return None


def body_too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes", limit_bytes=limit)


def slow_body() -> SlowBody:
    return SlowBody("the body did not arrive in time; send it again")


def _headers(error: ApplianceError, status: HTTPStatus) -> dict[str, str]:
    headers: dict[str, str] = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="openclawmu"'
    if error.retry_after is not None:
        headers["retry-after"] = str(_whole_seconds(error.retry_after))
    if isinstance(error, RangeUnsatisfiable):
        headers["content-range"] = f"bytes */{error.facts['size']}"
    if isinstance(error, MethodNotAllowed) and "allow" in error.facts:
        headers["allow"] = str(error.facts["allow"])
    return headers


def _whole_seconds(delay: float) -> int:
    # Rounded up: a client that comes back a fraction early is refused again.
    return max(1, math.ceil(delay))


def _unforeseen(error: BaseException, request_id: str) -> Problem:
    reference = secrets.token_hex(6)
    log.error(
        "request failed",
        exc_info=error,
        extra={"reference": reference, "request_id": request_id},
    )
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return Problem(
        status,
        {
            "type": TYPE_PREFIX + "internal",
            "title": "Something broke on our side",
            "status": int(status),
            "detail": f"Give this reference to the operator: {reference}",
            "code": "internal",
            "reference": reference,
            "request_id": request_id,
        },
        {},
    )
