"""Failures in the words of Anthropic's clients."""

from typing import Any

import msgspec
import pytest

from appliance.model.errors import (
    ApplianceError,
    DiskFull,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    Misdirected,
    ModelUnknown,
    QuotaExceeded,
    RateLimited,
    ScopeMissing,
    ShuttingDown,
    TenantDisabled,
    TokenRejected,
    TooLarge,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from appliance.providers.errors import (
    AccountSpent,
    ContextExceeded,
    KeyRefused,
    UpstreamRateLimited,
    UpstreamRefused,
)
from appliance.transports.anthropic_api.failures import failure_of
from appliance.transports.problems import MalformedBody, SlowBody
from appliance.transports.raw.failures import Failure


def error_in(failure: Failure) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(failure.body)
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    error: dict[str, Any] = body["error"]
    return error


def refused(status: int) -> UpstreamRefused:
    return UpstreamRefused("x", status=status)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("x"), 400, "invalid_request_error"),
        (MalformedBody("x"), 400, "invalid_request_error"),
        (MethodNotAllowed("x"), 405, "invalid_request_error"),
        (TokenRejected(), 401, "authentication_error"),
        (Forbidden("x"), 403, "permission_error"),
        (ScopeMissing("x"), 403, "permission_error"),
        (ModelUnknown("x"), 404, "not_found_error"),
        (SlowBody("x"), 408, "timeout_error"),
        (TenantDisabled("x"), 409, "conflict_error"),
        (TooLarge("x"), 413, "request_too_large"),
        (Misdirected("x"), 421, "invalid_request_error"),
        (RateLimited("x"), 429, "rate_limit_error"),
        (QuotaExceeded("x"), 429, "rate_limit_error"),
        (UpstreamRateLimited("x"), 429, "rate_limit_error"),
        (UpstreamFailed("x"), 502, "api_error"),
        (KeyRefused("x"), 502, "api_error"),
        (AccountSpent("x"), 502, "api_error"),
        (DiskFull("x"), 503, "api_error"),
        (ShuttingDown("x"), 503, "api_error"),
        (UpstreamTimeout("x"), 504, "timeout_error"),
        (UpstreamUnavailable("x"), 529, "overloaded_error"),
        (refused(400), 400, "invalid_request_error"),
        (refused(404), 404, "not_found_error"),
        (refused(413), 413, "request_too_large"),
        (refused(422), 422, "invalid_request_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ApplianceError) else "",
)
def test_each_failure_has_a_status_and_a_type(
    error: ApplianceError, status: int, kind: str
) -> None:
    failure = failure_of(error, "req_1")

    assert failure.status == status
    assert error_in(failure) == {"type": kind, "message": error.detail}


def test_the_request_is_named_and_a_stream_is_told_by_an_event() -> None:
    failure = failure_of(RateLimited("slow down", retry_after=2), "req_1")

    assert msgspec.json.decode(failure.body)["request_id"] == "req_1"
    assert failure.stream == b"event: error\ndata: " + failure.body + b"\n\n"
    assert dict(failure.headers) == {b"retry-after": b"2"}


@pytest.mark.parametrize(
    ("detail", "message"),
    [
        ("the conversation is too long", "prompt is too long: the conversation is too long"),
        ("prompt is too long: 2 tokens > 1 maximum", "prompt is too long: 2 tokens > 1 maximum"),
    ],
)
def test_an_overlong_conversation_is_told_in_the_words_clients_look_for(
    detail: str, message: str
) -> None:
    failure = failure_of(ContextExceeded(detail), "")

    assert failure.status == 400
    assert error_in(failure) == {"type": "invalid_request_error", "message": message}


def test_what_nobody_foresaw_is_a_reference_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failure = failure_of(ValueError("secret"), "req_1")

    assert failure.status == 500
    assert b"secret" not in failure.body
    said = error_in(failure)
    assert said["type"] == "api_error"
    assert caplog.records[0].__dict__["reference"] in said["message"]
