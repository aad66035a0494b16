"""Who a credential belongs to; and that nothing else gets any other answer."""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Forbidden, TenantUnknown, TokenRejected
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import AdminKey, Scope, TenantToken, TokenRecord, stored_digest
from appliance.services.access import Access
from appliance.services.token_index import TokenIndex, later

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET = TenantToken("acme", "s" * 43)
OTHER = TenantToken("other", "o" * 43)
ADMIN = AdminKey("correct:horse:battery")


def token(secret: TenantToken, name: str = "tok_1", **fields: object) -> TokenRecord:
    record = TokenRecord(
        id=name,
        label="",
        digest=secret.digest(),
        scopes=frozenset({Scope.CHAT}),
        created_at=NOW,
    )
    return replace(record, **fields)  # type: ignore[arg-type] # the test names real fields


def tenant(tenant_id: str, *tokens: TokenRecord, disabled: bool = False) -> TenantRecord:
    return TenantRecord(tenant_id, "", NOW, disabled=disabled, tokens=tokens)


@dataclass
class Key:
    label: str
    hash: str


class Clock:
    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def index() -> TokenIndex:
    index = TokenIndex()
    index.put(tenant("acme", token(SECRET)))
    index.put(tenant("other", token(OTHER, "tok_2")))
    return index


@pytest.fixture
def access(index: TokenIndex, clock: Clock) -> Access:
    access = Access(index, cookie_key=b"k" * 32, clock=clock)
    access.use_admin_keys([Key("first", stored_digest(ADMIN.digest()))])
    return access


@pytest.mark.parametrize("text", [SECRET.text, SECRET.text.encode()])
def test_a_token_is_its_tenant_its_id_and_its_scopes(access: Access, text: str | bytes) -> None:
    caller = access.authenticate(text, request_id="req_1", ip="192.0.2.1")

    assert caller == Caller(
        ActorKind.TENANT,
        "tok_1",
        "acme",
        frozenset({Scope.CHAT}),
        request_id="req_1",
        ip="192.0.2.1",
    )


@pytest.mark.parametrize(
    "garbage",
    [
        None, "", b"", " ", ":", "::", "tenant", "tenant:", "tenant::", "tenant:acme",
        "tenant:acme:", "tenant:acme:" + "x" * 43, "tenant:acme:" + "S" * 43,
        "tenant:nobody:" + "s" * 43, "tenant:other:" + "s" * 43, "tenant:constructor:x",
        "tenant:__proto__:x", "tenant:../acme:x", "tenant:ACME:" + "s" * 43,
        "Tenant:acme:" + "s" * 43, "acme:" + "s" * 43, " tenant:acme:" + "s" * 43,
        "tenant:acme:" + "s" * 43 + " ", "tenant:acme:" + "s" * 43 + ":",
        "tenant:acme:" + "s" * 43 + "\n", "tenant:acmé:" + "s" * 43, "tenant:acme:" + "é" * 43,
        "tenant:acme:\ud800", "\x00", "tenant:acme:\x00" + "s" * 43, b"\xff\xfe",
        b"tenant:acme:\xff", "x" * 1_000_000, "tenant:acme:" + "s" * 1_000_000,
        b"tenant:acme:" + b"s" * 1_000_000, "admin", "admin:", "admin:x", "admin:correct:horse",
        "admin:correct:horse:battery ", "Admin:correct:horse:battery", "ticket_" + "s" * 43,
        "tok_1", "v1.acme.tok_1." + "A" * 43,
    ],
)  # fmt: skip
def test_whatever_else_is_presented_is_refused_in_the_same_words(
    access: Access, garbage: str | bytes | None
) -> None:
    with pytest.raises(TokenRejected) as caught:
        access.authenticate(garbage)

    assert str(caught.value) == str(TokenRejected())


@given(st.text() | st.binary() | st.from_regex(r"tenant:acme:\w+") | st.from_regex(r"admin:.+"))
def test_no_text_gets_another_answer(text: str | bytes) -> None:
    index = TokenIndex()
    index.put(tenant("acme", token(SECRET)))
    access = Access(index, cookie_key=b"k" * 32, clock=lambda: NOW)

    with pytest.raises(TokenRejected):
        access.authenticate(text)
    if isinstance(text, str):
        with pytest.raises(TokenRejected):
            access.authenticate_cookie(text)


def test_a_token_of_one_tenant_is_not_one_of_another(access: Access, index: TokenIndex) -> None:
    # Somebody copied the directory of acme and gave the copy another id.
    index.put(tenant("copy", token(SECRET)))

    assert access.authenticate(SECRET.text).tenant == "acme"
    assert access.authenticate(f"tenant:copy:{SECRET.secret}").tenant == "copy"
    index.drop("copy")
    assert access.authenticate(SECRET.text).tenant == "acme"
    with pytest.raises(TokenRejected):
        access.authenticate(f"tenant:other:{SECRET.secret}")


def test_a_token_ends_to_the_second(access: Access, index: TokenIndex, clock: Clock) -> None:
    index.put(tenant("acme", token(SECRET, expires_at=NOW + timedelta(minutes=1))))
    caller = access.authenticate(SECRET.text)
    clock.now = NOW + timedelta(minutes=1, microseconds=-1)
    access.authenticate(SECRET.text)
    assert access.is_live(caller)

    clock.now = NOW + timedelta(minutes=1)

    with pytest.raises(TokenRejected):
        access.authenticate(SECRET.text)
    assert not access.is_live(caller)


def test_the_tokens_of_a_disabled_tenant_are_unknown(access: Access, index: TokenIndex) -> None:
    caller = access.authenticate(SECRET.text)

    index.put(tenant("acme", token(SECRET), disabled=True))

    with pytest.raises(TokenRejected):
        access.authenticate(SECRET.text)
    assert not access.is_live(caller)
    assert "acme" not in index
    assert access.authenticate(OTHER.text).tenant == "other"


def test_what_was_revoked_is_refused_and_the_rest_is_not(access: Access, index: TokenIndex) -> None:
    second = TenantToken("acme", "t" * 43)
    index.put(tenant("acme", token(SECRET), token(second, "tok_9")))
    caller = access.authenticate(SECRET.text)

    index.drop_tokens("acme", frozenset({"tok_1"}))

    with pytest.raises(TokenRejected):
        access.authenticate(SECRET.text)
    assert not access.is_live(caller)
    assert access.authenticate(second.text).credential == "tok_9"
    assert len(index) == 2


def test_a_tenants_token_cannot_act_for_another_tenant(access: Access) -> None:
    assert access.authenticate(SECRET.text, acting_for="acme").tenant == "acme"
    with pytest.raises(Forbidden):
        access.authenticate(SECRET.text, acting_for="other")


def test_the_header_tells_nothing_to_who_has_no_token(
    access: Access, index: TokenIndex, clock: Clock
) -> None:
    with pytest.raises(TokenRejected):
        access.authenticate("tenant:acme:x", acting_for="other")
    index.put(tenant("acme", token(SECRET, expires_at=NOW)))
    with pytest.raises(TokenRejected):
        access.authenticate(SECRET.text, acting_for="other")


def test_the_admin_key_is_at_large_or_acts_for_a_tenant(access: Access) -> None:
    at_large = access.authenticate(ADMIN.text)
    on_behalf = access.authenticate(ADMIN.text.encode(), acting_for="acme")

    assert (at_large.kind, at_large.credential, at_large.tenant) == (
        ActorKind.ADMIN,
        "first",
        None,
    )
    assert (on_behalf.kind, on_behalf.tenant) == (ActorKind.ADMIN_ON_BEHALF, "acme")
    assert at_large.is_admin
    assert on_behalf.is_admin


@pytest.mark.parametrize("text", ["", "../etc", "ACME", "a" * 33, "é"])
def test_an_admin_is_told_of_a_tenant_that_cannot_be(access: Access, text: str) -> None:
    with pytest.raises(TenantUnknown):
        access.authenticate(ADMIN.text, acting_for=text)


def test_there_may_be_several_admin_keys_and_each_can_go(access: Access) -> None:
    second = AdminKey.generate()
    first, other = (
        Key("first", stored_digest(ADMIN.digest())),
        Key("second", stored_digest(second.digest())),
    )
    access.use_admin_keys([first, other])
    callers = [access.authenticate(ADMIN.text), access.authenticate(second.text)]
    assert [caller.credential for caller in callers] == ["first", "second"]

    access.use_admin_keys([other])

    with pytest.raises(TokenRejected):
        access.authenticate(ADMIN.text)
    assert [access.is_live(caller) for caller in callers] == [False, True]

    access.use_admin_keys([first, other])
    assert access.is_live(callers[0])


def test_a_hash_that_is_none_is_an_error_and_changes_nothing(access: Access) -> None:
    with pytest.raises(ValueError, match="sha256"):
        access.use_admin_keys([Key("bad", "md5:00")])

    assert access.authenticate(ADMIN.text).is_admin


def test_without_admin_keys_nobody_is_admin(index: TokenIndex, clock: Clock) -> None:
    access = Access(index, cookie_key=b"k" * 32, clock=clock)

    with pytest.raises(TokenRejected):
        access.authenticate(ADMIN.text)


def test_a_cookie_names_a_session_of_the_tenant(access: Access) -> None:
    cookie = access.cookie("acme", "tok_1")

    caller = access.authenticate_cookie(cookie, request_id="req_1", ip="192.0.2.1")

    assert (caller.tenant, caller.credential, caller.ip) == ("acme", "tok_1", "192.0.2.1")
    assert SECRET.secret not in cookie
    with pytest.raises(TokenRejected):
        access.authenticate(cookie)


def test_a_cookie_changed_in_whatever_place_is_refused(access: Access) -> None:
    cookie = access.cookie("acme", "tok_1")

    for position in range(len(cookie)):
        for changed in (
            cookie[:position] + ("b" if cookie[position] == "a" else "a") + cookie[position + 1 :],
            cookie[:position] + cookie[position + 1 :],
            cookie[:position] + "." + cookie[position:],
        ):
            with pytest.raises(TokenRejected):
                access.authenticate_cookie(changed)


def test_a_cookie_signed_with_another_key_is_refused(index: TokenIndex, access: Access) -> None:
    other = Access(index, cookie_key=b"x" * 32, clock=lambda: NOW)

    with pytest.raises(TokenRejected):
        access.authenticate_cookie(other.cookie("acme", "tok_1"))


def test_a_signature_on_a_session_that_ended_opens_nothing(
    access: Access, index: TokenIndex
) -> None:
    cookie = access.cookie("acme", "tok_1")
    index.drop_tokens("acme", frozenset({"tok_1"}))

    with pytest.raises(TokenRejected):
        access.authenticate_cookie(cookie)


def test_the_last_use_is_noted_in_memory(access: Access, index: TokenIndex, clock: Clock) -> None:
    access.authenticate(SECRET.text)
    assert index.used() == {"acme"}
    clock.now = NOW + timedelta(hours=1)
    access.authenticate(SECRET.text)

    index.put(tenant("acme", token(SECRET, last_used_at=NOW - timedelta(days=1))))

    grant = index.grant("acme", "tok_1")
    assert grant is not None
    assert grant.last_used_at == NOW + timedelta(hours=1)
    index.forget_use("acme")
    assert index.used() == frozenset()


def test_a_refused_token_counts_as_not_used(access: Access, index: TokenIndex) -> None:
    with pytest.raises(TokenRejected):
        access.authenticate("tenant:acme:x")

    assert index.used() == frozenset()


def test_the_later_of_two_moments_is_the_one_that_is_known() -> None:
    assert later(None, None) is None
    assert later(NOW, None) == later(None, NOW) == NOW
    assert later(NOW, NOW + timedelta(1)) == NOW + timedelta(1)


class _CountingHash:
    def __init__(self) -> None:
        self.lengths: list[int] = []

    def __call__(self, data: bytes) -> "hashlib._Hash":
        self.lengths.append(len(data))
        return hashlib.new("sha256", data)


def test_every_refusal_does_the_same_work(
    access: Access, index: TokenIndex, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.put(tenant("expired", token(TenantToken("expired", "e" * 43), expires_at=NOW)))
    count = _CountingHash()
    monkeypatch.setattr("appliance.services.access.hashlib.sha256", count)

    refused = ("tenant:acme:x", "tenant:nobody:x", f"tenant:expired:{'e' * 43}", "", "x" * 10**6)
    for text in refused:
        with pytest.raises(TokenRejected):
            access.authenticate(text)

    assert len(count.lengths) == len(refused)
    assert max(count.lengths) < 100


def test_authenticating_costs_microseconds(access: Access) -> None:
    """A gross slip would show here; the exact number is the benchmark's business."""
    text = SECRET.text.encode()

    def round_of(times: int) -> float:
        began = perf_counter()
        for _ in range(times):
            access.authenticate(text, acting_for=None, request_id="req_1", ip="192.0.2.1")
        return (perf_counter() - began) / times

    assert min(round_of(2000) for _ in range(5)) < 50e-6
