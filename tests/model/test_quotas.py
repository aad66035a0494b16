"""Quotas: read as people write them, with an answer for every slip."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.model.money import NANO
from appliance.model.quotas import (
    COST_KEYS,
    QUOTA_KEYS,
    Quotas,
    parse_quotas,
    render_limit,
    render_quotas,
)


def test_limits_are_numbers_and_costs_are_decimals() -> None:
    assert parse_quotas(
        {"tokens_per_day": 1_000, "cost_per_month": "50.00", "soft_cost_per_day": 2,
         "requests_per_minute": 0, "terminals": None}
    ) == {
        "tokens_per_day": 1_000,
        "cost_per_month": 50 * NANO,
        "soft_cost_per_day": 2 * NANO,
        "requests_per_minute": 0,
        "terminals": None,
    }  # fmt: skip


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_quotas({"token_per_day": 1})
    (error,) = refused.value.fields
    assert error.field == "quotas.token_per_day"
    assert error.remedy == "did you mean 'tokens_per_day'?"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokens_per_day", -1),
        ("tokens_per_day", 1.5),
        ("tokens_per_day", "10"),
        ("tokens_per_day", True),
        ("tokens_per_day", 2**53),
        ("cost_per_day", 0.5),
        ("cost_per_day", "-1"),
        ("cost_per_day", "1.0000000001"),
        ("cost_per_day", True),
        ("cost_per_day", [1]),
    ],
)
def test_what_is_no_limit_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"quotas.{key}") as refused:
        parse_quotas({key: value})
    assert "null for unlimited, 0 for none" in refused.value.fields[0].remedy


def test_every_bad_entry_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_quotas({"tokens_per_day": -1, "nonsense": 1, "disk_bytes": 5}, path="templates.x")
    assert [error.field for error in refused.value.fields] == [
        "templates.x.tokens_per_day",
        "templates.x.nonsense",
    ]


def test_changes_go_on_top_and_null_lifts_a_limit() -> None:
    defaults = Quotas(tokens_per_day=5, requests_per_minute=6)
    assert defaults.merged({"tokens_per_day": None, "terminals": 0}) == Quotas(
        requests_per_minute=6, terminals=0
    )


limits = st.none() | st.integers(0, 2**53 - 1)


@given(st.dictionaries(st.sampled_from(QUOTA_KEYS), limits))
def test_what_is_rendered_reads_as_what_it_was(chosen: dict[str, int | None]) -> None:
    quotas = Quotas().merged(chosen)
    rendered = render_quotas(quotas)
    assert Quotas().merged(parse_quotas(rendered)) == quotas
    assert all(isinstance(rendered[key], str | None) for key in COST_KEYS)


def test_a_cost_is_rendered_in_quotes() -> None:
    assert render_limit("cost_per_day", 1_500_000_000) == "1.50"
    assert render_limit("tokens_per_day", 15) == 15
    assert render_limit("cost_per_day", None) is None
