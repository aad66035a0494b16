import logging

import pytest

from appliance.model import errors
from appliance.model.errors import (
    ApplianceError,
    FieldError,
    InvalidRequest,
    Kind,
    RateLimited,
    TenantUnknown,
    TokenRejected,
)
from appliance.transports.problems import HTTP_STATUS, problem_of, slow_body, status_of


def test_every_kind_has_a_status() -> None:
    assert set(HTTP_STATUS) == set(Kind)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid-request", 422),
        ("token-rejected", 401),
        ("forbidden", 403),
        ("admin-only-key", 403),
        ("not-found", 404),
        ("already-exists", 409),
        ("precondition-failed", 412),
        ("too-large", 413),
        ("misdirected", 421),
        ("rate-limit-exceeded", 429),
        ("insufficient-quota", 429),
        ("upstream-failed", 502),
        ("upstream-timeout", 504),
        ("upstream-unavailable", 503),
        ("audit-unavailable", 503),
        ("method-not-allowed", 405),
    ],
)
def test_the_contract_says_which_status_a_code_has(code: str, status: int) -> None:
    classes = [each for each in vars(errors).values() if getattr(each, "code", None) == code]
    (kind,) = {each for each in classes if issubclass(each, ApplianceError)}
    error = ApplianceError.__new__(kind)

    assert status_of(error) == status


def test_a_code_belongs_to_one_failure() -> None:
    classes = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, ApplianceError) and hasattr(each, "code")
    }
    codes = [each.code for each in classes]

    assert sorted(codes) == sorted(set(codes))


def test_a_failure_tells_what_it_is_and_the_way_out() -> None:
    error = InvalidRequest("two things", fields=[FieldError("a", "is odd", "make it even")])

    problem = problem_of(error, request_id="req_1")

    assert problem.members == {
        "type": "urn:openclawmu:invalid-request",
        "title": "The request is not valid",
        "status": 422,
        "detail": "two things",
        "code": "invalid-request",
        "request_id": "req_1",
        "errors": [{"field": "a", "reason": "is odd", "remedy": "make it even"}],
    }


@pytest.mark.parametrize(("delay", "header"), [(0.1, "1"), (1.0, "1"), (1.2, "2"), (60, "60")])
def test_a_delay_is_whole_seconds_and_never_too_short(delay: float, header: str) -> None:
    problem = problem_of(RateLimited("slow down", retry_after=delay))

    assert problem.headers["retry-after"] == header
    assert problem.members["retry_after"] == int(header)


def test_who_is_not_known_is_told_how_to_say_who_it_is() -> None:
    assert problem_of(TokenRejected()).headers == {"www-authenticate": 'Bearer realm="openclawmu"'}


def test_facts_cannot_replace_what_the_format_needs() -> None:
    problem = problem_of(TenantUnknown("no such tenant", status=200, limit=3))

    assert problem.members["status"] == 404
    assert problem.members["limit"] == 3


def test_one_failure_in_a_group_is_that_failure() -> None:
    group = ExceptionGroup("", [ExceptionGroup("", [slow_body()])])

    assert problem_of(group).status == 408


def test_what_nobody_foresaw_is_logged_once_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        problem = problem_of(KeyError("hunter2"), request_id="req_1")

    assert problem.status == 500
    assert "hunter2" not in problem.encode().decode()
    (record,) = caplog.records
    assert record.__dict__["reference"] in problem.members["detail"]
    assert record.__dict__["request_id"] == "req_1"


def test_two_failures_at_once_are_not_foreseen(caplog: pytest.LogCaptureFixture) -> None:
    group = ExceptionGroup("", [slow_body(), slow_body()])

    assert problem_of(group).status == 500
    assert len(caplog.records) == 1
