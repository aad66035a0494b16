"""What may stand in the audit log, and what may not."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.audit import Actor, AuditEntry, Result, clean_details, clean_text
from appliance.model.callers import ActorKind
from appliance.model.quotas import QUOTA_KEYS
from appliance.model.tokens import AdminKey, TenantToken

HIDDEN = "[hidden]"


@pytest.mark.parametrize(
    "name",
    [
        "password", "api_key", "apiKey", "api-key", "token", "bot_token", "accessToken", "secret",
        "client_secret", "Authorization", "cookie", "hash", "private_key", "admin_hash", "apikey",
    ],
)  # fmt: skip
def test_what_goes_under_the_name_of_a_secret_is_hidden(name: str) -> None:
    assert clean_details({name: "harmless", "deep": {name: ["x"]}}) == {
        name: HIDDEN,
        "deep": {name: HIDDEN},
    }


@pytest.mark.parametrize("name", [*QUOTA_KEYS, "token_id", "max_tokens", "label", "tokens", "key"])
def test_what_only_sounds_like_one_is_not(name: str) -> None:
    assert clean_details({name: 5}) == {name: 5}


@pytest.mark.parametrize(
    "secret",
    [
        TenantToken.generate("acme").text,
        AdminKey.generate().text,
        "admin:correct-horse",
        "ticket_" + "a" * 43,
        "Bearer abcdefgh",
        "sk-proj-0123456789abcdef",
        "xoxb-0123456789-abcdef",
        "ghp_0123456789abcdef",
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln",
        "https://user:hunter22@example.com/",
    ],
)
def test_what_looks_like_a_secret_is_hidden_wherever_it_stands(secret: str) -> None:
    cleaned = clean_details({"label": f"see {secret} there", "list": [secret]})

    assert secret not in str(cleaned)
    assert HIDDEN in str(cleaned["label"])
    assert HIDDEN in clean_text(secret)


def test_session_keys_are_no_secrets() -> None:
    key = "tenant:acme:agent:main:whatever-it-is-called"
    assert clean_text(key) == key


def test_control_characters_cannot_play_tricks_on_a_terminal() -> None:
    assert clean_text("a\x1b[2Jb\nc\x7fd\x9be\ud800") == "a\ufffd[2Jb\ufffdc\ufffdd\ufffde\ufffd"


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below) | st.frozensets(st.text()),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), nested))
def test_whatever_is_given_what_remains_is_plain_and_bounded(details: dict[str, object]) -> None:
    def check(value: object, depth: int) -> None:
        assert depth < 7
        if isinstance(value, dict):
            assert len(value) <= 50
            for key, below in value.items():
                assert isinstance(key, str)
                check(below, depth + 1)
        elif isinstance(value, list):
            for below in value:
                check(below, depth + 1)
        elif isinstance(value, str):
            assert len(value) < 600
            value.encode()
        else:
            assert value is None or isinstance(value, bool | int)
            assert not isinstance(value, int) or abs(value) < 2**53

    check(clean_details(details), 0)


@pytest.mark.parametrize(
    ("kind", "ip"),
    [
        (ActorKind.ADMIN, ""),
        (ActorKind.ADMIN_ON_BEHALF, ""),
        (ActorKind.SYSTEM, ""),
        (ActorKind.TENANT, "192.0.2.1"),
    ],
)
def test_a_tenant_sees_neither_the_operators_address_nor_how_busy_others_are(
    kind: ActorKind, ip: str
) -> None:
    entry = AuditEntry(
        ts=datetime(2026, 11, 21, tzinfo=UTC),
        seq=812,
        actor=Actor(kind, "x"),
        tenant="acme",
        action="token.mint",
        target="tok_1",
        result=Result.OK,
        ip="192.0.2.1",
        request_id="req_1",
        details={},
        prev="0" * 64,
        hash="1" * 64,
    )

    shown = entry.for_tenant()

    assert (shown.ip, shown.seq, shown.prev, shown.hash) == (ip, 0, "", "")
    assert shown.action == entry.action
