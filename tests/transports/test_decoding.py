from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.transports.schemas.decoding import read_query, read_struct
from appliance.transports.schemas.tenants import TenantCreate, TenantListQuery
from appliance.transports.schemas.tokens import LoginQuery


def test_a_request_becomes_a_value() -> None:
    body = read_struct(TenantCreate, {"id": "acme", "quotas": {"terminals": 1}})

    assert body == TenantCreate(id="acme", quotas={"terminals": 1})


def test_all_mistakes_are_told_together() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_struct(TenantCreate, {"id": 3, "quotas": [], "nmae": ""})

    assert [(error.field, error.reason) for error in caught.value.fields] == [
        ("nmae", "unknown field"),
        ("id", "Expected str | null, got int"),
        ("quotas", "Expected object, got array"),
    ]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidRequest, match="ticket: is missing"):
        read_query(LoginQuery, b"")


def test_a_query_is_read_as_text() -> None:
    query = read_query(TenantListQuery, b"limit=5&q=a%26b+c")

    assert query == TenantListQuery(limit=5, q="a&b c")


@pytest.mark.parametrize(
    "query", [b"limit=1&limit=2", b"q=%ff", b"\xff", b"limit=", b"limit=1.5", b"=1"]
)
def test_a_query_with_two_meanings_has_none(query: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_query(TenantListQuery, query)


@given(st.binary(max_size=200))
def test_no_query_makes_reading_fail_otherwise(query: bytes) -> None:
    with suppress(InvalidRequest):
        read_query(TenantListQuery, query)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["id", "name", "quotas", "x"]), json_values))
def test_no_body_makes_reading_fail_otherwise(raw: dict[str, object]) -> None:
    with suppress(InvalidRequest):
        read_struct(TenantCreate, raw)
