"""Tokens as text: what is one, what is none."""

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.tokens import (
    AdminKey,
    Scope,
    TenantToken,
    TokenRecord,
    parse_stored_digest,
    stored_digest,
)

SECRET = "aB3_-" * 8 + "xyz"
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True))
def test_a_generated_token_is_read_as_it_was(tenant: str) -> None:
    token = TenantToken.generate(tenant)

    assert TenantToken.parse(token.text) == token
    assert len(token.digest()) == 32
    assert AdminKey.parse(token.text) is None


def test_two_generated_tokens_are_never_the_same() -> None:
    assert len({TenantToken.generate("acme").secret for _ in range(100)}) == 100


@given(st.text())
def test_whatever_is_parsed_it_is_a_token_or_none(text: str) -> None:
    token = TenantToken.parse(text)
    assert token is None or token.text == text
    key = AdminKey.parse(text)
    assert key is None or key.text == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "tenant", "tenant:", "tenant::", "tenant:acme", f"tenant:acme:{SECRET[:-1]}",
        f"tenant:acme:{SECRET}x", f"tenant:acme:{SECRET}:", f"tenant:ACME:{SECRET}",
        f"tenant:-acme:{SECRET}", f"tenant:{'a' * 33}:{SECRET}", f"tenant:acme\n:{SECRET}",
        f"tenant:acme:{SECRET}\n", f"tenant:acmé:{SECRET}", f"tenant:acme:{'é' * 43}",
        "tenant:acme:" + "\u0661" * 43, "tenant:constructor:x", "tenant:" + "a" * 10**6,
        f"Tenant:acme:{SECRET}", f" tenant:acme:{SECRET}", f"tenant:a/b:{SECRET}",
    ],
)  # fmt: skip
def test_what_is_not_exactly_a_token_is_none(text: str) -> None:
    assert TenantToken.parse(text) is None


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("admin:12345678", "12345678"),
        ("admin:with:colons:in:it", "with:colons:in:it"),
        ("admin:" + "x" * 256, "x" * 256),
    ],
)
def test_an_operator_may_choose_the_admin_key(text: str, secret: str) -> None:
    assert AdminKey.parse(text) == AdminKey(secret)


@pytest.mark.parametrize(
    "text", ["", "admin", "admin:", "admin:1234567", "admin:" + "x" * 257, "admin:with space",
             "admin:ümlauts!", "Admin:12345678", "admin:\x00\x00\x00\x00\x00\x00\x00\x00"],
)  # fmt: skip
def test_what_is_no_admin_key_is_none(text: str) -> None:
    assert AdminKey.parse(text) is None


def test_a_generated_admin_key_is_one() -> None:
    key = AdminKey.generate()
    assert AdminKey.parse(key.text) == key


@given(st.binary(min_size=32, max_size=32))
def test_a_stored_digest_is_read_as_it_was(digest: bytes) -> None:
    assert parse_stored_digest(stored_digest(digest)) == digest


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "0" * 63, "md5:" + "0" * 64, "sha256:" + "g" * 64, "0" * 64]
)
def test_what_is_no_digest_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="sha256"):
        parse_stored_digest(text)


def test_a_token_is_valid_until_its_last_moment() -> None:
    record = TokenRecord("tok_1", "", bytes(32), frozenset(Scope), NOW)
    assert record.is_valid(NOW + timedelta(days=10_000))

    ending = TokenRecord("tok_1", "", bytes(32), frozenset(Scope), NOW, expires_at=NOW)
    assert ending.is_valid(NOW - timedelta(microseconds=1))
    assert not ending.is_valid(NOW)


def test_a_secret_is_safe_in_a_header_an_url_and_a_cookie() -> None:
    allowed = set(string.ascii_letters + string.digits + "_-")
    assert set(TenantToken.generate("acme").secret) <= allowed
