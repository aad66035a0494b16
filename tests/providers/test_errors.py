"""A provider's failures, as they are told to whoever asked."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dialling import DialFailed
from appliance.model.errors import ContextTooLong, Kind, ProviderFailure
from appliance.protocols.answers import ErrorBody, ErrorReported, MalformedAnswer
from appliance.providers.connections import AnswerTooLarge, ConnectionLost, PoolBusy, TooSlow
from appliance.providers.errors import (
    LONGEST_WAIT,
    AccountSpent,
    ContextExceeded,
    KeyRefused,
    Unreachable,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
    connection_failure,
    refusal,
    reported_failure,
    retry_after,
    sanitise,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def refused(status: int, body: object = None, **headers: str) -> ProviderFailure:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refusal("acme", status, named, text, now=NOW)


def error(message: str = "no", type_: str = "", code: object = None) -> dict[str, object]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "expected", "retryable"),
    [
        (301, None, UpstreamFailed, True),
        (400, error(), UpstreamRefused, False),
        (401, error(), KeyRefused, True),
        (402, error(), AccountSpent, True),
        (403, error(), KeyRefused, True),
        (404, error(), UpstreamRefused, True),
        (408, error(), UpstreamTimeout, True),
        (413, error(), UpstreamRefused, False),
        (418, error(), UpstreamFailed, True),
        (422, error(), UpstreamRefused, False),
        (429, error(), UpstreamRateLimited, True),
        (429, error(code="insufficient_quota"), AccountSpent, True),
        (400, error(type_="billing_error"), AccountSpent, True),
        (400, error("Your credit balance is too low to access the API."), AccountSpent, True),
        (400, error("You have reached your specified API usage limits."), AccountSpent, True),
        (400, error(code="context_length_exceeded"), ContextExceeded, False),
        (400, error(type_="exceed_context_size_error", code=400), ContextExceeded, False),
        (400, error("prompt is too long: 9 tokens > 8 maximum"), ContextExceeded, False),
        (500, error(), UpstreamFailed, True),
        (502, b"<html>", UpstreamFailed, True),
        (503, error(), UpstreamUnavailable, True),
        (504, error(), UpstreamTimeout, True),
        (529, error(), UpstreamUnavailable, True),
    ],
)
def test_a_status_says_what_went_wrong_and_whether_to_ask_another(
    status: int, body: object, expected: type[ProviderFailure], *, retryable: bool
) -> None:
    failure = refused(status, body)

    assert type(failure) is expected
    assert failure.retryable is retryable
    assert failure.detail.startswith(("acme", "the account at acme", "the conversation"))


def test_what_the_caller_did_wrong_is_told_in_the_providers_words() -> None:
    failure = refused(422, error("n must be 1", "invalid_request_error", "unsupported_value"))

    assert isinstance(failure, UpstreamRefused)
    assert failure.detail == "acme refused the request: n must be 1"
    assert (failure.status, failure.upstream_code) == (422, "unsupported_value")
    assert failure.kind is Kind.INVALID


@pytest.mark.parametrize("code", [None, 400, "400", "no code of <b>anybody</b>", "x" * 200])
def test_a_code_that_is_none_is_not_told(code: object) -> None:
    failure = refused(400, error("no", "BadRequestError", code))

    assert isinstance(failure, UpstreamRefused)
    assert failure.upstream_code == ""


@pytest.mark.parametrize(("status", "lasts"), [(401, True), (402, True), (403, True), (500, False)])
def test_what_only_the_operator_can_mend_lasts(status: int, *, lasts: bool) -> None:
    assert refused(status, error()).lasts is lasts


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "no such thing"}, "no such thing"),
        ({"error": {"message": "no", "code": 17}}, "no"),
        ({"detail": "not so"}, "not so"),
        ({"message": "not so"}, "not so"),
        ({"detail": [{"loc": []}]}, "it did not say why"),
        (b"<html><body>Bad</body></html>", "it did not say why"),
        (b"", "it did not say why"),
        (b"[" * 10_000, "it did not say why"),
        ({"error": {"message": "<!DOCTYPE html><p>no"}}, "it did not say why"),
    ],
)
def test_an_error_is_found_in_whatever_form(body: object, said: str) -> None:
    assert refused(400, body).detail == f"acme refused the request: {said}"


def test_a_conversation_that_is_too_long_is_its_own_failure_for_everybody() -> None:
    failure = refused(400, error(code="context_length_exceeded"))

    assert isinstance(failure, ContextTooLong)
    assert failure.code == "context-length-exceeded"
    assert failure.kind is Kind.INVALID


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Incorrect API key: sk-proj-abc***xyz.", "Incorrect API key: [key]."),
        ("key AKIA1234567890ABCDEF99 is bad", "key [key] is bad"),
        ("see https://platform.example.com/keys?x=1 now", "see [address] now"),
        ("cannot reach 10.0.0.7:8000", "cannot reach [address]"),
        ("redis://user:pw@cache:6379/0 failed", "[address] failed"),
        ("a\x00b\x1b[31mc\u202ed\r\n e", "a b [31mc d e"),
        ("x " * 500, ("x " * 500)[:299] + "…"),
        ("max_completion_tokens is not supported", "max_completion_tokens is not supported"),
        ("<HTML>no", ""),
    ],
)
def test_a_providers_words_are_made_fit_for_strangers(text: str, shown: str) -> None:
    assert sanitise(text) == shown


@given(st.text())
def test_whatever_a_provider_says_it_is_short_and_printable(text: str) -> None:
    shown = sanitise(text)

    assert len(shown) <= 300
    assert not any(ord(char) < 32 or ord(char) == 127 for char in shown)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7),
        ({"retry_after": " 1.5 "}, 1.5),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "99999999"}, LONGEST_WAIT),
        ({"retry_after": "9" * 400}, None),
        ({"retry_after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90),
        ({"retry_after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0),
        ({"retry_after": "Sat, 21 Nov 2026 12:00:30 -0000"}, None),
        ({"retry_after_ms": "250", "retry_after": "7"}, 0.25),
        ({"retry_after_ms": "x", "retry_after": "7"}, 7),
    ],
)
def test_how_long_to_wait_is_a_number_or_a_date(
    headers: dict[str, str], wait: float | None
) -> None:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}

    assert retry_after(named, now=NOW) == wait
    assert refused(429, error(), **headers).retry_after == wait


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (ErrorBody(type="overloaded_error"), UpstreamUnavailable),
        (ErrorBody(code="503"), UpstreamUnavailable),
        (ErrorBody(code="insufficient_quota"), AccountSpent),
        (ErrorBody(type="billing_error"), AccountSpent),
        (ErrorBody(type="rate_limit_error"), UpstreamRateLimited),
        (ErrorBody(code="429"), UpstreamRateLimited),
        (ErrorBody(code="context_length_exceeded"), ContextExceeded),
        (ErrorBody(message="oops"), UpstreamFailed),
    ],
)
def test_an_error_amid_an_answer_says_as_much_as_a_status(
    body: ErrorBody, expected: type[ProviderFailure]
) -> None:
    assert type(reported_failure("acme", ErrorReported(body))) is expected


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (DialFailed("it cannot be reached"), Unreachable),
        (PoolBusy(), UpstreamUnavailable),
        (TooSlow(), UpstreamTimeout),
        (ConnectionLost(), UpstreamFailed),
        (AnswerTooLarge(), UpstreamFailed),
        (MalformedAnswer("x"), UpstreamFailed),
    ],
)
def test_trouble_with_the_connection_is_the_providers(
    trouble: Exception, expected: type[ProviderFailure]
) -> None:
    failure = connection_failure("acme", trouble)

    assert type(failure) is expected
    assert "acme" in failure.detail


def test_a_bug_of_ours_is_nobody_elses_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        connection_failure("acme", ZeroDivisionError())
