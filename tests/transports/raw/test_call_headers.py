"""What a head says of the call behind an answer, and of trying again."""

from typing import Any

import pytest

from appliance.model.attempts import Trail
from appliance.model.cache_use import CacheUse
from appliance.model.errors import (
    ApplianceError,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    TenantDisabled,
    Unavailable,
    UpstreamFailed,
    UpstreamUnavailable,
)
from appliance.providers.errors import AccountSpent, KeyRefused, UpstreamRateLimited
from appliance.services.model_calls import OpenCall
from appliance.services.routing import Target
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.raw.call_headers import advised, call_headers, settled_headers

NOBODY: Any = None


def call(**known: Any) -> OpenCall:
    return OpenCall(NOBODY, NOBODY, Target("stub", "mock"), NOBODY, NOBODY, 0.0, **known)


def told(error: ApplianceError) -> dict[bytes, bytes]:
    return dict(advised(failure_of(error, "req_1"), error).headers)


def test_a_plain_answer_names_its_model_and_one_attempt() -> None:
    assert dict(call_headers(call(trail=Trail(attempts=1)))) == {
        b"x-openclaw-model": b"stub/mock",
        b"x-openclaw-attempts": b"1",
        b"x-openclaw-cache": b"off",
    }


def test_who_failed_before_is_told() -> None:
    trail = Trail(2, [("a/m", "upstream-timeout"), ("b/m", "cooling")])
    headers = dict(call_headers(call(trail=trail, cache=CacheUse.MISS)))

    assert headers[b"x-openclaw-attempts"] == b"2"
    assert headers[b"x-openclaw-failover"] == b"a/m;reason=upstream-timeout, b/m;reason=cooling"
    assert headers[b"x-openclaw-cache"] == b"miss"


def test_guardrails_that_the_request_met_are_named() -> None:
    headers = dict(call_headers(call(guarded=(("no pii", "redact"),))))

    assert headers[b"x-openclaw-guardrails"] == b"no%20pii;action=redact"


@pytest.mark.parametrize(("cost", "written"), [(0, b"0.00"), (1_500_000, b"0.0015"), (None, None)])
def test_the_cost_is_told_where_it_is_known(cost: int | None, written: bytes | None) -> None:
    assert dict(settled_headers(call(cost_nano=cost))).get(b"x-openclaw-cost") == written


@pytest.mark.parametrize("is_estimated", [False, True])
def test_usage_that_is_an_estimate_is_said_to_be_one(*, is_estimated: bool) -> None:
    headers = dict(settled_headers(call(is_estimated=is_estimated)))

    assert headers.get(b"x-openclaw-estimated") == (b"true" if is_estimated else None)


@pytest.mark.parametrize(
    ("error", "again", "wait", "wait_ms"),
    [
        (RateLimited("slow down", retry_after=0.25), b"true", b"1", b"250"),
        (RateLimited("slow down", retry_after=121), b"false", b"121", b"121000"),
        (RateLimited("more than fits"), b"false", None, None),
        (QuotaExceeded("used up", retry_after=30), b"false", b"30", b"30000"),
        (UpstreamRateLimited("busy"), b"true", b"1", None),
        (UpstreamUnavailable("down"), b"true", b"1", None),
        (UpstreamFailed("500"), None, None, None),
        (KeyRefused("401"), b"false", None, None),
        (AccountSpent("402"), b"false", None, None),
        (Unavailable("starting", retry_after=2), b"true", b"2", b"2000"),
        (TenantDisabled("disabled"), b"false", None, None),
        (InvalidRequest("no"), None, None, None),
    ],
    ids=repr,
)
def test_clients_are_told_whether_and_when_to_try_again(
    error: ApplianceError, again: bytes | None, wait: bytes | None, wait_ms: bytes | None
) -> None:
    headers = told(error)

    assert headers.get(b"x-should-retry") == again
    assert headers.get(b"retry-after") == wait
    assert headers.get(b"retry-after-ms") == wait_ms


def test_a_failure_says_who_was_asked() -> None:
    error = UpstreamUnavailable("down")
    error.trail = Trail(3, [("a/m", "upstream-unavailable")])

    assert told(error)[b"x-openclaw-attempts"] == b"3"
    assert told(error)[b"x-openclaw-failover"] == b"a/m;reason=upstream-unavailable"


def test_what_nobody_foresaw_is_left_as_it_is() -> None:
    error = ValueError("a bug")
    failure = failure_of(error, "req_1")

    assert advised(failure, error) is failure


def test_how_long_providers_took_to_fail_is_known() -> None:
    error = UpstreamFailed("no")
    error.waited = 2.5

    assert advised(failure_of(error, "req_1"), error).waited == 2.5
    assert advised(failure_of(UpstreamFailed("no"), "req_1"), UpstreamFailed("no")).waited == 0
