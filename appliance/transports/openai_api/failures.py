"""A failure as OpenAI's clients expect it: status, error object, retry headers.

SDKs decide by status, then by ``code``; ``x-should-retry`` keeps them from
asking three times for what cannot succeed (OpenAI's and Anthropic's SDKs obey it).
"""

from collections.abc import Mapping, Sequence

import msgspec

from appliance.model.errors import ApplianceError, Fault, FieldError, Kind
from appliance.model.prompts import CANNOT
from appliance.providers.errors import UpstreamRefused
from appliance.transports.problems import find_expected, problem_of, status_of
from appliance.transports.raw.failures import Failure, Header

_DONE = b"data: [DONE]\n\n"
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
# What "invalid_value" is where it is known better.
_FAULTS: Mapping[Fault, str] = {
    Fault.MISSING: "missing_required_parameter",
    Fault.UNSUPPORTED: "unsupported_parameter",
}


def failure_of(error: BaseException, request_id: str) -> Failure:
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
        return _failure(int(problem.status), members, headers)
    status = _status(expected, int(problem.status))
    if expected.code == "insufficient-quota":
        headers.append((b"x-should-retry", b"false"))
    return _failure(status, _members(expected), headers)


def _failure(status: int, members: Mapping[str, object], headers: Sequence[Header]) -> Failure:
    body = msgspec.json.encode({"error": members})
    # No finish_reason in a stream: it would make half an answer look whole.
    return Failure(status, body, tuple(headers), b"data: " + body + b"\n\n" + _DONE)


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
    param = None
    if error.fields:
        first = error.fields[0]
        param = first.field or None
        if code == "invalid_value":
            code = _FAULTS.get(_fault(first), code)
    if isinstance(error, UpstreamRefused):
        # Programs that know a provider act on what it says.
        code = error.upstream_code or code
        param = error.param or None
    if error.code == "model-unknown":
        param = "model"
    return {"message": error.detail, "type": kind, "param": param, "code": code}


def _fault(error: FieldError) -> Fault:
    return Fault.UNSUPPORTED if error.reason.endswith(CANNOT) else error.fault
