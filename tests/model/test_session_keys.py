"""Session keys: whose they are, and that nobody gets at another's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import ForeignSession, InvalidRequest
from appliance.model.session_keys import LONGEST, SessionKey

IDS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("notes", SessionKey("acme", "main", "notes")),
        ("agent:writer:notes", SessionKey("acme", "writer", "notes")),
        ("tenant:acme:notes", SessionKey("acme", "main", "notes")),
        ("tenant:acme:agent:writer:a:b:c", SessionKey("acme", "writer", "a:b:c")),
        ("  Agent:Writer:NOTES ", SessionKey("acme", "writer", "notes")),
    ],
)
def test_the_prefixes_may_be_left_out(text: str, key: SessionKey) -> None:
    assert SessionKey.parse(text, tenant="acme") == key


def test_the_agent_of_the_route_is_used_where_the_key_names_none() -> None:
    assert SessionKey.parse("notes", tenant="acme", agent="writer").agent == "writer"


def test_a_key_is_shown_with_and_without_its_tenant() -> None:
    key = SessionKey("acme", "main", "notes")
    assert key.text == "tenant:acme:agent:main:notes"
    assert key.short == "agent:main:notes"


@pytest.mark.parametrize(
    "text",
    [
        "tenant:other:notes",
        "tenant:other:agent:main:notes",
        "TENANT:OTHER:agent:main:notes",
        "tenant::notes",
        "tenant:acme:tenant:other:agent:main:notes",
        "tenant:acme:agent:main:tenant:other:notes",
        "agent:main:x:tenant:other:notes",
        "tenant:acme:tenant:acme:notes",
        "tenant:acme2:notes",
        "tenant:acm:notes",
    ],
)
def test_a_foreign_or_a_nested_prefix_is_refused_and_never_re_homed(text: str) -> None:
    with pytest.raises(ForeignSession):
        SessionKey.parse(text, tenant="acme")


@pytest.mark.parametrize(
    "text",
    ["", "   ", "a\x00b", "a\nb", "a\x7fb", "x" * (LONGEST + 1), "agent:main:", "agent::notes",
     "agent:../../etc:notes", "tenant:acme:", "agent:" + "a" * 65 + ":x"],
)  # fmt: skip
def test_what_is_no_key_is_refused_and_the_field_is_named(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SessionKey.parse(text, tenant="acme", field="user")

    assert caught.value.fields[0].field == "user"


@given(st.text(), IDS)
def test_whatever_is_sent_the_key_is_the_callers_own(text: str, tenant: str) -> None:
    try:
        key = SessionKey.parse(text, tenant=tenant)
    except (ForeignSession, InvalidRequest):
        return
    assert key.tenant == tenant
    assert key.text.count("tenant:") == 1 or "tenant:" in key.rest
    assert ":tenant:" not in key.text.removeprefix("tenant:")


@given(IDS, IDS, st.from_regex(r"[a-z0-9:._-]{1,40}", fullmatch=True))
def test_what_we_write_we_read_as_the_same(tenant: str, agent: str, rest: str) -> None:
    key = SessionKey(tenant, agent, rest)
    try:
        again = SessionKey.parse(key.text, tenant=tenant)
    except ForeignSession:
        assert "tenant:" in rest
        return
    assert again == key


@given(IDS, IDS, st.text(min_size=1))
def test_a_key_of_one_tenant_is_never_one_of_another(mine: str, other: str, rest: str) -> None:
    if mine == other:
        return
    with pytest.raises((ForeignSession, InvalidRequest)):
        SessionKey.parse(f"tenant:{other}:agent:main:{rest}", tenant=mine)
