"""A failure as Anthropic's clients expect it: status, error object, retry headers.

SDKs decide by status and then by ``type``. Programs built on them also look
for words in the message: an overlong conversation is told by "prompt is too long".
"""

from collections.abc import Mapping

import msgspec

from appliance.model.errors import ApplianceError, Kind, UpstreamUnavailable
from appliance.providers.errors import UpstreamRefused
from appliance.transports.problems import find_expected, problem_of, status_of
from appliance.transports.raw.failures import Failure

OVERLOADED = 529  # a status of Anthropic's own
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}
_TOO_LONG = "prompt is too long"


def failure_of(error: BaseException, request_id: str) -> Failure:
    """Describe ``error``; what was not foreseen is logged there, with a reference."""
    problem = problem_of(error, request_id=request_id)
    headers = tuple((name.encode(), value.encode()) for name, value in problem.headers.items())
    expected = find_expected(error)
    status, message = int(problem.status), str(problem.members["detail"])
    if expected is not None:
        status, message = _status(expected), _message(expected)
    told = {"type": _type(status), "message": message}
    body = msgspec.json.encode({"type": "error", "error": told, "request_id": request_id})
    return Failure(status, body, headers, b"event: error\ndata: " + body + b"\n\n")


def _status(error: ApplianceError) -> int:
    if isinstance(error, UpstreamRefused):
        return error.status
    if isinstance(error, UpstreamUnavailable):
        return OVERLOADED
    status = int(status_of(error))
    # What the control plane calls unprocessable is a bad request here.
    return 400 if error.kind is Kind.INVALID and status == 422 else status


def _type(status: int) -> str:
    usual = "invalid_request_error" if status < 500 else "api_error"
    return _TYPES.get(status, usual)


def _message(error: ApplianceError) -> str:
    if error.code == "context-length-exceeded" and _TOO_LONG not in error.detail:
        return f"{_TOO_LONG}: {error.detail}"
    return error.detail
