"""Failures: what clients match on, and what people read."""

import re

import pytest

from appliance.model import errors
from appliance.model.errors import (
    ApplianceError,
    Fault,
    FieldError,
    Forbidden,
    InvalidRequest,
    Kind,
    ProviderFailure,
    QuotaExceeded,
    RateLimited,
    TokenRejected,
    Unavailable,
)

ABSTRACT = {ApplianceError, ProviderFailure}
FAILURES = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, ApplianceError) and each not in ABSTRACT
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: each.__name__)
def test_every_failure_has_a_code_a_title_and_a_kind(failure: type[ApplianceError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", failure.code)
    assert re.fullmatch(r"[A-Z].*[^.]", failure.title)
    assert isinstance(failure.kind, Kind)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda each: each.__name__)
def test_a_code_of_its_own_comes_with_a_title_of_its_own(failure: type[ApplianceError]) -> None:
    assert {"code", "title"} <= vars(failure).keys()


def test_no_two_failures_share_a_code_or_a_title() -> None:
    assert len({each.code for each in FAILURES}) == len(FAILURES)
    assert len({each.title for each in FAILURES}) == len(FAILURES)


def test_there_is_a_failure_of_every_kind() -> None:
    assert {each.kind for each in FAILURES} == set(Kind)


@pytest.mark.parametrize("parent", [Forbidden, InvalidRequest, Unavailable])
def test_who_handles_a_failure_handles_its_special_cases_alike(
    parent: type[ApplianceError],
) -> None:
    assert {each.kind for each in FAILURES if issubclass(each, parent)} == {parent.kind}


def test_a_failure_carries_its_detail_its_facts_and_when_to_come_back() -> None:
    failure = QuotaExceeded("used up", retry_after=60, quota="tokens_per_day", limit=10)

    assert (str(failure), failure.detail) == ("used up", "used up")
    assert failure.retry_after == 60
    assert failure.facts == {"quota": "tokens_per_day", "limit": 10}
    assert failure.fields == ()


def test_waiting_helps_only_where_it_is_said() -> None:
    assert RateLimited("later").retry_after is None


@pytest.mark.parametrize(
    ("told", "detail"),
    [
        (("model", "is missing"), "model: is missing"),
        (("model", "is missing", "name one"), "model: is missing; name one"),
        (("", "the body is empty"), "the body is empty"),
        (("", "the body is empty", "send one"), "the body is empty; send one"),
    ],
)
def test_one_field_and_one_reason_make_a_sentence(told: tuple[str, ...], detail: str) -> None:
    failure = InvalidRequest.at(*told)

    assert failure.detail == detail
    field, reason, remedy = (*told, "")[:3]
    fault = Fault.MISSING if reason == "is missing" else Fault.VALUE
    assert failure.fields == (FieldError(field, reason, remedy, fault),)


def test_a_fault_may_be_told_with_the_reason() -> None:
    failure = InvalidRequest.at("foo", "is not taken here", fault=Fault.UNSUPPORTED)

    assert failure.fields[0].fault is Fault.UNSUPPORTED


def test_a_special_case_is_made_in_the_same_way() -> None:
    assert type(errors.ContextTooLong.at("messages", "too long")) is errors.ContextTooLong


def test_a_token_is_refused_in_one_way_whatever_the_reason() -> None:
    assert TokenRejected().detail == TokenRejected().detail
    assert (TokenRejected().facts, TokenRejected().fields) == ({}, ())
    for word in ("missing", "malformed", "unknown", "expired", "revoked"):
        assert word in TokenRejected().detail
