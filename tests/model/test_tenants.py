"""A tenant's record: its limits and its tokens."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from appliance.model.quotas import Quotas
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope, TokenRecord

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RECORD = TenantRecord("acme", "Acme", NOW)
DEFAULTS = Quotas(tokens_per_day=1_000, requests_per_minute=60)


def token(number: int) -> TokenRecord:
    return TokenRecord(f"tok_{number}", "", bytes(32), frozenset({Scope.CHAT}), NOW)


def test_a_new_tenant_is_enabled_has_no_tokens_and_is_written_once() -> None:
    assert not RECORD.disabled
    assert RECORD.tokens == ()
    assert RECORD.version == 1


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ({}, DEFAULTS),
        ({"tokens_per_day": 5}, Quotas(tokens_per_day=5, requests_per_minute=60)),
        ({"tokens_per_day": 0}, Quotas(tokens_per_day=0, requests_per_minute=60)),
        ({"tokens_per_day": None}, Quotas(requests_per_minute=60)),
        ({"terminals": 2}, replace(DEFAULTS, terminals=2)),
    ],
)
def test_what_is_set_for_a_tenant_lies_on_top_of_the_gateways_defaults(
    own: dict[str, int | None], limits: Quotas
) -> None:
    assert replace(RECORD, quotas=own).limits(DEFAULTS) == limits


def test_new_defaults_reach_a_tenant_that_was_there_before() -> None:
    record = replace(RECORD, quotas={"tokens_per_day": 5})

    assert record.limits(Quotas()) == Quotas(tokens_per_day=5)
    assert record.limits(Quotas(channels=3)) == Quotas(tokens_per_day=5, channels=3)


def test_a_token_is_found_by_its_whole_id() -> None:
    record = replace(RECORD, tokens=(token(1), token(12)))

    assert record.token("tok_12") is record.tokens[1]
    for other in ("tok_2", "tok_", "", "TOK_1"):
        assert record.token(other) is None
