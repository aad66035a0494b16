"""Estimates: too many tokens before a call, a fair guess after it, and no provider's nonsense."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.calls import Dialect
from appliance.model.spending import OutcomeStatus
from appliance.model.usage import TokenUsage
from appliance.services.estimates import (
    ASSUMED_SEARCHES,
    MOST_SEARCHES,
    input_to_reserve,
    searches_to_reserve,
    usage_of,
)
from tests.books import outcome, spend

# 30 tokens reserved are a prompt of 66 bytes.
REQUEST = spend(prompt_tokens=30)


@pytest.mark.parametrize(
    ("size", "tokens"), [(0, 8), (2, 8), (3, 9), (66, 30), (3_000_000, 1_000_008)]
)
def test_a_prompt_is_reserved_at_three_bytes_a_token_and_a_few_more(size: int, tokens: int) -> None:
    assert input_to_reserve(size) == tokens


def test_what_the_provider_counts_holds() -> None:
    usage = TokenUsage(input=1, output=2, cache_read=3, cache_write=4, reasoning=5)

    assert usage_of(REQUEST, outcome(usage, text_bytes=10_000)) is usage


@pytest.mark.parametrize("status", list(OutcomeStatus))
def test_what_the_provider_counts_holds_however_the_call_ended(status: OutcomeStatus) -> None:
    usage = TokenUsage(input=7)

    assert usage_of(REQUEST, outcome(usage, status=status)) is usage


@pytest.mark.parametrize(
    "counted",
    [
        *[TokenUsage(input=number) for number in (-1, 10**9 + 1, 2**63)],
        *[TokenUsage(output=number) for number in (-1, 10**9 + 1, 2**63)],
        TokenUsage(input=5, output=5, cache_read=-1),
        TokenUsage(input=5, output=5, cache_write=-1),
        TokenUsage(input=5, output=5, reasoning=10**9 + 1),
        TokenUsage(input=5, output=5, input_audio=-1),
        TokenUsage(input=5, output=5, output_audio=10**9 + 1),
        TokenUsage(input=5, output=5, web_searches=-1),
        TokenUsage(input=5, output=5, web_searches=10_001),
    ],
    ids=str,
)
def test_a_provider_that_counts_nonsense_has_told_nothing(counted: TokenUsage) -> None:
    usage = usage_of(REQUEST, outcome(counted, text_bytes=8))

    assert usage == TokenUsage(input=17, output=2, estimated=True)


@pytest.mark.parametrize(
    "counted", [TokenUsage(), TokenUsage(input=7), TokenUsage(output=2)], ids=str
)
def test_who_has_answered_was_asked_and_has_used_tokens(counted: TokenUsage) -> None:
    usage = usage_of(REQUEST, outcome(counted, text_bytes=8))

    assert usage == TokenUsage(input=17, output=2, estimated=True)


def test_an_answer_without_a_word_may_have_cost_nothing() -> None:
    assert usage_of(REQUEST, outcome(TokenUsage())) == TokenUsage()


def test_as_many_tokens_as_can_be_believed_are_believed() -> None:
    usage = TokenUsage(input=10**9)

    assert usage_of(REQUEST, outcome(usage)) is usage


@pytest.mark.parametrize(
    ("status", "text_bytes", "expected"),
    [
        (OutcomeStatus.OK, 0, TokenUsage(input=17, estimated=True)),
        (OutcomeStatus.OK, 401, TokenUsage(input=17, output=101, estimated=True)),
        (OutcomeStatus.CANCELLED, 0, TokenUsage(input=17, estimated=True)),
        (OutcomeStatus.CANCELLED, 1, TokenUsage(input=17, output=1, estimated=True)),
        (OutcomeStatus.FAILED, 4, TokenUsage(input=17, output=1, estimated=True)),
        (OutcomeStatus.FAILED, 0, TokenUsage()),
    ],
)
def test_what_nobody_counted_is_guessed_at_four_bytes_a_token(
    status: OutcomeStatus, text_bytes: int, expected: TokenUsage
) -> None:
    assert usage_of(REQUEST, outcome(None, status=status, text_bytes=text_bytes)) == expected


@given(st.integers(8, 10**9))
def test_the_guess_after_a_call_is_within_what_was_reserved_before_it(tokens: int) -> None:
    request = spend(prompt_tokens=tokens)

    assert usage_of(request, outcome(None)).input <= input_to_reserve(request.prompt_bytes)


SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FUNCTION = {"type": "function", "name": "look"}


@pytest.mark.parametrize(
    ("dialect", "tools", "searches"),
    [
        (Dialect.ANTHROPIC, [{**SEARCH, "max_uses": 3}], 3),
        (Dialect.ANTHROPIC, [FUNCTION, SEARCH], ASSUMED_SEARCHES),
        (Dialect.ANTHROPIC, [{"type": "web_search_20260209", "max_uses": 2}], 2),
        (Dialect.ANTHROPIC, [{**SEARCH, "max_uses": 10**9}], MOST_SEARCHES),
        (Dialect.ANTHROPIC, [{**SEARCH, "max_uses": -5}], 0),
        (Dialect.ANTHROPIC, [{**SEARCH, "max_uses": "many"}], ASSUMED_SEARCHES),
        (Dialect.ANTHROPIC, [{"name": "web_search", "input_schema": {}}], 0),
        (Dialect.RESPONSES, [FUNCTION, {"type": "web_search"}], ASSUMED_SEARCHES),
        (Dialect.RESPONSES, [FUNCTION], 0),
        (Dialect.OPENAI, [{"type": "web_search"}], 0),
    ],
)
def test_as_many_searches_are_reserved_as_a_request_may_make(
    dialect: Dialect, tools: list[dict[str, Any]], searches: int
) -> None:
    assert searches_to_reserve(dialect, {"tools": json.dumps(tools).encode()}) == searches


def test_an_escaped_search_is_one_and_a_request_without_tools_makes_none() -> None:
    escaped = rb'[{"type": "web_\u0073earch_20250305", "max_uses": 4}]'

    assert searches_to_reserve(Dialect.ANTHROPIC, {"tools": escaped}) == 4
    assert searches_to_reserve(Dialect.ANTHROPIC, {"messages": b'["web_search"]'}) == 0


def test_after_each_search_all_is_read_again_with_what_was_found() -> None:
    assert input_to_reserve(66, searches=1) == 2 * 30 + 10_000
    assert input_to_reserve(66, searches=3) == 4 * 30 + 60_000


def test_searches_that_were_seen_are_billed_where_nothing_else_was_counted() -> None:
    seen = TokenUsage(web_searches=2, estimated=True)
    for text_bytes, output in ((0, 0), (8, 2)):
        cancelled = outcome(seen, status=OutcomeStatus.CANCELLED, text_bytes=text_bytes)
        assert usage_of(REQUEST, cancelled) == TokenUsage(
            input=17 + 20_000, output=output, web_searches=2, estimated=True
        )
