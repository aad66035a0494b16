"""Ids: what may name a tenant, an agent or a request, and that no two new ones are alike."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.ids import REQUEST_ID, is_tenant_id, new_id, parse_agent_id, parse_tenant_id


@pytest.mark.parametrize("text", ["a", "0", "acme", "a-b_c", "9-", "a" * 32])
def test_a_tenant_is_named_with_small_letters_digits_and_two_signs(text: str) -> None:
    assert is_tenant_id(text)
    assert parse_tenant_id(text) == text


BAD_EVERYWHERE = [
    "", " ", "-a", "_a", "A", "acme corp", "acme\n", "\nacme", "a\x00", "a.b", ".", "..", "../etc",
    "a/b", "a\\b", "a:b", "a%2fb", "ä", "٣", "\uff41", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", [*BAD_EVERYWHERE, "a" * 33])
def test_what_is_no_directory_of_its_own_names_no_tenant(text: str) -> None:
    assert not is_tenant_id(text)
    with pytest.raises(ValueError, match="a tenant id is 1 to 32"):
        parse_tenant_id(text)


@pytest.mark.parametrize("text", ["a", "main", "writer-2", "a" * 64])
def test_an_agents_name_may_be_twice_as_long(text: str) -> None:
    assert parse_agent_id(text) == text


@pytest.mark.parametrize("text", [*BAD_EVERYWHERE, "a" * 65])
def test_what_is_no_agents_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an agent id is 1 to 64"):
        parse_agent_id(text)


@pytest.mark.parametrize(
    "text", ["", "a b", "a\r\nx-admin: 1", "a\n", "é", 'a"b', "a;b", "a" * 129]
)
def test_a_request_id_can_break_out_of_no_header_and_no_log_line(text: str) -> None:
    assert REQUEST_ID.fullmatch(text) is None


@given(st.text())
@pytest.mark.parametrize("parse", [parse_tenant_id, parse_agent_id])
def test_whatever_is_read_is_returned_as_it_was_and_is_a_plain_name(
    parse: Callable[[str], str], text: str
) -> None:
    try:
        name = parse(text)
    except ValueError:
        return
    assert name == text
    assert name.isascii()
    assert not set(name) & set("./\\: \0\n")


def test_a_new_id_tells_its_kind_and_is_never_the_same() -> None:
    ids = {new_id("tok") for _ in range(1_000)}

    assert len(ids) == 1_000
    assert all(REQUEST_ID.fullmatch(each) and len(each) == 28 for each in ids)
    assert all(each.startswith("tok_") for each in ids)
