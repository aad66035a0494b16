"""A failure as OpenAI's clients expect it: status, error object, retry headers.

SDKs decide by status, then by ``code``; ``x-should-retry`` keeps them from
asking three times for what cannot succeed (OpenAI's and Anthropic's SDKs obey it).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from appliance.model.errors import ApplianceError, Kind
from appliance.providers.errors import UpstreamRefused
from appliance.transports.problems import find_expected, problem_of, status_of

Header = tuple[bytes, bytes]

_TYPES: Mapping[Kind, str] = {
    Kind.UNAUTHENTICATED: "authentication_error",
    Kind.FORBIDDEN: "permission_error",
    Kind.LIMITED: "rate_limit_error",
    Kind.BAD_UPSTREAM: "server_error",
    Kind.UPSTREAM_SLOW: "server_error",
    Kind.UNAVAILABLE: "server_error",
}

_CODES: Mapping[str, str] = {
    "invalid-request": "invalid_value",
    "malformed-body": "invalid_json",
    "token-rejected": "invalid_api_key",
    "ticket-rejected": "invalid_api_key",
    "model-unknown": "model_not_found",
    "too-large": "request_too_large",
    "rate-limit-exceeded": "rate_limit_exceeded",
    "insufficient-quota": "insufficient_quota",
    "context-length-exceeded": "context_length_exceeded",
}


@dataclass(frozen=True, slots=True)
class Failure:
    status: int
    body: bytes
    headers: tuple[Header, ...]


def failure_of(error: BaseException, *, request_id: str) -> Failure:
    """Describe ``error``; what was not foreseen is logged there, with a reference."""
    problem = problem_of(error, request_id=request_id)
    expected = find_expected(error)
    headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    if expected is None:
        members = {
            "message": problem.members["detail"],
            "type": "server_error",
            "param": None,
            "code": "internal_error",
        }
        return Failure(int(problem.status), _encode(members), tuple(headers))
    status = _status(expected, int(problem.status))
    if expected.code == "insufficient-quota":
        headers.append((b"x-should-retry", b"false"))
    return Failure(status, _encode(_members(expected)), tuple(headers))


def _status(error: ApplianceError, status: int) -> int:
    if isinstance(error, UpstreamRefused):
        return error.status
    # What the control plane calls unprocessable is a bad request here.
    return 400 if error.kind is Kind.INVALID and status == 422 else int(status_of(error))


def _members(error: ApplianceError) -> dict[str, str | None]:
    kind = _TYPES.get(error.kind, "invalid_request_error")
    code = _CODES.get(error.code, error.code.replace("-", "_"))
    if code == "insufficient_quota":
        kind = "insufficient_quota"
    param = error.fields[0].field or None if error.fields else None
    if error.code == "model-unknown":
        param = "model"
    return {"message": error.detail, "type": kind, "param": param, "code": code}


def _encode(members: Mapping[str, object]) -> bytes:
    return msgspec.json.encode({"error": members})
