"""What a client is told of a failure."""

import pytest

from appliance.model.errors import (
    ApplianceError,
    FieldError,
    Forbidden,
    InvalidRequest,
    Kind,
    NotFound,
    ShuttingDown,
    Unavailable,
)
from appliance.transports.rpc.failures import error_of, not_yet, too_many_in_flight


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_code(kind: Kind) -> None:
    class Sample(ApplianceError):
        code = "a-sample"
        title = "A sample"

    Sample.kind = kind
    for protocol in (3, 4):
        error = error_of(Sample("text", limit=7), protocol=protocol)
        assert error.code in {"INVALID_REQUEST", "FORBIDDEN", "NOT_FOUND", "UNAVAILABLE"}
        assert (error.message, error.details) == ("text", {"code": "A_SAMPLE", "limit": 7})


def test_the_older_generation_knows_no_forbidden() -> None:
    assert error_of(Forbidden("no"), protocol=3).code == "INVALID_REQUEST"
    assert error_of(Forbidden("no"), protocol=4).code == "FORBIDDEN"


def test_what_waiting_helps_says_how_long() -> None:
    error = error_of(Unavailable("busy", retry_after=0.0001), protocol=4)
    assert (error.retryable, error.retry_after_ms) == (True, 1)
    assert error_of(ShuttingDown("bye", retry_after=2.5), protocol=4).retry_after_ms == 2_500
    lasting = error_of(NotFound("gone"), protocol=4)
    assert (lasting.retryable, lasting.retry_after_ms) == (None, None)
    assert not_yet("x").retryable is False
    assert too_many_in_flight(3).retry_after_ms == 100


def test_mistakes_are_listed_for_programs() -> None:
    error = error_of(InvalidRequest("two", fields=[FieldError("a", "bad", "fix it")]), protocol=4)
    assert (error.details or {})["fields"] == [{"field": "a", "reason": "bad", "remedy": "fix it"}]


def test_what_was_expected_is_found_in_a_group() -> None:
    group = ExceptionGroup("of a nursery", [NotFound("there is none")])
    assert error_of(group, protocol=4).message == "there is none"


def test_a_bug_is_logged_once_and_told_as_a_reference(caplog: pytest.LogCaptureFixture) -> None:
    bug = ValueError("tenant:acme:a-secret at /var/lib/x")
    error = error_of(bug, protocol=4, request_id="req_7")

    assert (error.code, error.retryable) == ("UNAVAILABLE", None)
    reference = (error.details or {})["reference"]
    assert reference in error.message
    assert "secret" not in f"{error.message}{error.details}"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is bug
    assert vars(record)["reference"] == reference
    assert vars(record)["request_id"] == "req_7"
