"""Failures in the words of OpenAI's clients."""

from typing import Any

import msgspec
import pytest

from appliance.model.errors import (
    ApplianceError,
    DiskFull,
    Fault,
    FieldError,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    Misdirected,
    ModelUnknown,
    ModelUnpriced,
    QuotaExceeded,
    RateLimited,
    ScopeMissing,
    ShuttingDown,
    TenantBroken,
    TenantDisabled,
    TokenRejected,
    TooLarge,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from appliance.model.prompts import CANNOT
from appliance.providers.errors import (
    AccountSpent,
    ContextExceeded,
    KeyRefused,
    UpstreamRateLimited,
    UpstreamRefused,
)
from appliance.tenants.jobs import Revoked
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.problems import MalformedBody, SlowBody
from appliance.transports.raw.failures import Failure


def error_in(failure: Failure) -> dict[str, Any]:
    body: dict[str, dict[str, Any]] = msgspec.json.decode(failure.body)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


def refused(status: int, *, code: str = "", param: str = "") -> UpstreamRefused:
    return UpstreamRefused("x", status=status, upstream_code=code, param=param)


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InvalidRequest("x"), 400, "invalid_request_error", "invalid_value"),
        (MalformedBody("x"), 400, "invalid_request_error", "invalid_json"),
        (SlowBody("x"), 408, "invalid_request_error", "slow_body"),
        (MethodNotAllowed("x"), 405, "invalid_request_error", "method_not_allowed"),
        (ContextExceeded("x"), 400, "invalid_request_error", "context_length_exceeded"),
        (TokenRejected(), 401, "authentication_error", "invalid_api_key"),
        (Revoked(), 401, "authentication_error", "token_revoked"),
        (Forbidden("x"), 403, "permission_error", "forbidden"),
        (ScopeMissing("x"), 403, "permission_error", "scope_missing"),
        (ModelUnpriced("x"), 403, "permission_error", "model_unpriced"),
        (ModelUnknown("x"), 404, "invalid_request_error", "model_not_found"),
        (TenantDisabled("x"), 409, "invalid_request_error", "tenant_disabled"),
        (TooLarge("x"), 413, "invalid_request_error", "request_too_large"),
        (Misdirected("x"), 421, "invalid_request_error", "misdirected"),
        (RateLimited("x"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (QuotaExceeded("x"), 429, "insufficient_quota", "insufficient_quota"),
        (UpstreamRateLimited("x"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (UpstreamFailed("x"), 502, "server_error", "upstream_failed"),
        (UpstreamUnavailable("x"), 503, "server_error", "upstream_unavailable"),
        (DiskFull("x"), 503, "server_error", "disk_full"),
        (TenantBroken("x"), 503, "server_error", "tenant_broken"),
        (ShuttingDown("x"), 503, "server_error", "shutting_down"),
        (UpstreamTimeout("x"), 504, "server_error", "upstream_timeout"),
        (refused(400), 400, "invalid_request_error", "upstream_refused"),
        (refused(422), 422, "invalid_request_error", "upstream_refused"),
        (refused(404), 404, "invalid_request_error", "upstream_refused"),
        (refused(404, code="model_not_found"), 404, "invalid_request_error", "model_not_found"),
        (KeyRefused("x"), 502, "server_error", "upstream_failed"),
        (AccountSpent("x"), 502, "server_error", "upstream_failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ApplianceError) else "",
)
def test_each_failure_has_a_status_a_type_and_a_code(
    error: ApplianceError, status: int, kind: str, code: str
) -> None:
    failure = failure_of(error, "req_1")

    assert failure.status == status
    said = error_in(failure)
    assert (said["type"], said["code"]) == (kind, code)
    assert said["message"] == error.detail


def test_the_first_field_at_fault_is_the_param() -> None:
    fields = [FieldError("temperature", "too hot"), FieldError("n", "too many")]

    assert error_in(failure_of(InvalidRequest("x", fields=fields), ""))["param"] == ("temperature")


def test_a_provider_that_names_a_parameter_is_quoted() -> None:
    error = refused(400, code="unsupported_parameter", param="max_tokens")

    said = error_in(failure_of(error, ""))

    assert (said["param"], said["code"]) == ("max_tokens", "unsupported_parameter")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest.at("model", "is missing"), "missing_required_parameter"),
        (InvalidRequest.at("messages", "is missing", "send some"), "missing_required_parameter"),
        (InvalidRequest.at("n", CANNOT, "leave it out"), "unsupported_parameter"),
        (InvalidRequest.at("input[0].type", f"a {CANNOT}"), "unsupported_parameter"),
        (InvalidRequest.at("foo", "x", fault=Fault.UNSUPPORTED), "unsupported_parameter"),
        (InvalidRequest.at("n", "must be 1 to 3"), "invalid_value"),
        (MalformedBody("x", fields=[FieldError("", "is missing")]), "invalid_json"),
    ],
)
def test_what_is_wrong_with_a_field_has_a_code(error: InvalidRequest, code: str) -> None:
    assert error_in(failure_of(error, ""))["code"] == code


def test_a_fault_of_the_whole_body_has_no_param() -> None:
    error = InvalidRequest("x", fields=[FieldError("", "is not an object")])

    assert error_in(failure_of(error, ""))["param"] is None


def test_an_unknown_model_is_the_param_model() -> None:
    assert error_in(failure_of(ModelUnknown("x"), ""))["param"] == "model"


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (RateLimited("x", retry_after=1.2), {b"retry-after": b"2"}),
        (RateLimited("x"), {}),
        (QuotaExceeded("x", retry_after=60), {b"retry-after": b"60", b"x-should-retry": b"false"}),
        (MethodNotAllowed("x", allow="POST"), {b"allow": b"POST"}),
        (TokenRejected(), {b"www-authenticate": b'Bearer realm="openclawmu"'}),
    ],
)
def test_headers_say_when_to_come_back(error: ApplianceError, headers: dict[bytes, bytes]) -> None:
    assert dict(failure_of(error, "").headers) == headers


def test_a_failure_in_a_nursery_is_that_failure() -> None:
    error = ExceptionGroup("a nursery", [ExceptionGroup("another", [RateLimited("slow down")])])

    assert failure_of(error, "").status == 429


@pytest.mark.parametrize(
    "error", [ValueError("secret"), ExceptionGroup("x", [RateLimited("secret"), ValueError("b")])]
)
def test_what_nobody_foresaw_is_a_reference_and_in_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failure = failure_of(error, "req_1")

    assert failure.status == 500
    said = error_in(failure)
    assert (said["type"], said["code"], said["param"]) == ("server_error", "internal_error", None)
    assert b"secret" not in failure.body
    reference = caplog.records[0].__dict__["reference"]
    assert reference in said["message"]
    assert caplog.records[0].exc_info is not None
