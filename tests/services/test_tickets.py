"""Tickets: one browser session each, once, within minutes, and no wider than its issuer."""

from dataclasses import replace
from datetime import timedelta

import pytest

from appliance.model.errors import (
    AuditUnavailable,
    Forbidden,
    InvalidRequest,
    ScopeMissing,
    TenantDisabled,
    TenantUnknown,
    TicketRejected,
    TokenRejected,
    Unavailable,
)
from appliance.model.tokens import Scope
from tests.services.tenancy import ADMIN, NOW, Tenancy


async def test_a_ticket_opens_a_session_once(tenancy: Tenancy) -> None:
    await tenancy.make()
    ticket = await tenancy.tickets.issue(ADMIN, "acme")

    session = await tenancy.tickets.redeem(ticket.text, request_id="req_9", ip="198.51.100.7")

    caller = tenancy.access.authenticate_cookie(session.cookie)
    assert (caller.tenant, caller.credential, caller.is_admin) == ("acme", session.id, False)
    assert caller.scopes == {Scope.FULL}
    assert session.expires_at == NOW + timedelta(hours=12)
    with pytest.raises(TicketRejected):
        await tenancy.tickets.redeem(ticket.text)
    assert tenancy.audit.names == ["tenant.create", "ticket.issue", "login"]
    assert ticket.text not in repr(tenancy.audit.actions)


async def test_a_ticket_is_not_used_up_at_another_tenants_door(tenancy: Tenancy) -> None:
    await tenancy.make()
    ticket = await tenancy.tickets.issue(ADMIN, "acme")

    with pytest.raises(TicketRejected):
        await tenancy.tickets.redeem(ticket.text, tenant="other")

    assert (await tenancy.tickets.redeem(ticket.text, tenant="acme")).tenant == "acme"


async def test_a_session_outlives_a_restart_and_is_listed(tenancy: Tenancy) -> None:
    await tenancy.make()
    session = await tenancy.tickets.redeem((await tenancy.tickets.issue(ADMIN, "acme")).text)

    again = tenancy.restarted()

    assert again.access.authenticate_cookie(session.cookie).tenant == "acme"
    listed = await again.tenants.list_tokens(ADMIN, "acme")
    assert [token.id for token in listed if token.label == "browser session"] == [session.id]
    again.close()


async def test_a_session_cannot_be_used_as_a_token(tenancy: Tenancy) -> None:
    await tenancy.make()
    session = await tenancy.tickets.redeem((await tenancy.tickets.issue(ADMIN, "acme")).text)

    for text in (session.cookie, session.id, f"tenant:acme:{session.id}"):
        with pytest.raises(TokenRejected):
            tenancy.access.authenticate(text)


async def test_a_ticket_is_good_for_minutes(tenancy: Tenancy) -> None:
    await tenancy.make()
    ticket = await tenancy.tickets.issue(ADMIN, "acme", ttl=timedelta(minutes=15))
    assert ticket.expires_at == NOW + timedelta(minutes=15)

    tenancy.clock.go_on(minutes=15)

    with pytest.raises(TicketRejected):
        await tenancy.tickets.redeem(ticket.text)


@pytest.mark.parametrize("ttl", [timedelta(), timedelta(seconds=-1), timedelta(minutes=16)])
async def test_a_ticket_for_longer_is_refused(tenancy: Tenancy, ttl: timedelta) -> None:
    await tenancy.make()

    with pytest.raises(InvalidRequest, match="ttl"):
        await tenancy.tickets.issue(ADMIN, "acme", ttl=ttl)


@pytest.mark.parametrize("text", ["", "ticket_", "ticket_" + "a" * 43, "x" * 10**6, "\ud800", "é"])
async def test_garbage_is_no_ticket(tenancy: Tenancy, text: str) -> None:
    with pytest.raises(TicketRejected):
        await tenancy.tickets.redeem(text)


async def test_a_ticket_opens_no_more_than_its_issuer_may(tenancy: Tenancy) -> None:
    await tenancy.make()
    chat = await tenancy.caller("acme", Scope.CHAT, Scope.TERMINAL)

    own = await tenancy.tickets.redeem((await tenancy.tickets.issue(chat, "acme")).text)
    less = await tenancy.tickets.issue(chat, "acme", scopes=["chat"])

    assert tenancy.access.authenticate_cookie(own.cookie).scopes == {Scope.CHAT, Scope.TERMINAL}
    session = await tenancy.tickets.redeem(less.text)
    assert tenancy.access.authenticate_cookie(session.cookie).scopes == {Scope.CHAT}
    for wider in (["full"], ["chat", "manage"]):
        with pytest.raises(ScopeMissing):
            await tenancy.tickets.issue(chat, "acme", scopes=wider)


async def test_a_ticket_is_for_ones_own_tenant(tenancy: Tenancy) -> None:
    await tenancy.make()
    await tenancy.make("other")
    caller = await tenancy.caller("acme", Scope.FULL)

    for tenant in ("other", "nobody"):
        with pytest.raises(Forbidden):
            await tenancy.tickets.issue(caller, tenant)
    with pytest.raises(TenantUnknown):
        await tenancy.tickets.issue(ADMIN, "nobody")


async def test_a_session_ends_with_the_token_that_opened_it(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    issuer = tenancy.access.authenticate(created.token_text)
    session = await tenancy.tickets.redeem((await tenancy.tickets.issue(issuer, "acme")).text)
    inner_issuer = tenancy.access.authenticate_cookie(session.cookie)
    inner = await tenancy.tickets.redeem((await tenancy.tickets.issue(inner_issuer, "acme")).text)

    await tenancy.tenants.revoke_token(ADMIN, "acme", created.token.id)

    for cookie in (session.cookie, inner.cookie):
        with pytest.raises(TokenRejected):
            tenancy.access.authenticate_cookie(cookie)
    ended = {call[2] for call in tenancy.running.calls}
    assert ended == {created.token.id, session.id, inner.id}


async def test_a_session_lasts_no_longer_than_the_token_that_opened_it(tenancy: Tenancy) -> None:
    await tenancy.make()
    minted = await tenancy.tenants.create_token(ADMIN, "acme", expires_in=timedelta(hours=1))
    issuer = tenancy.access.authenticate(minted.text)

    session = await tenancy.tickets.redeem((await tenancy.tickets.issue(issuer, "acme")).text)

    assert session.expires_at == minted.token.expires_at


async def test_a_session_can_be_logged_out_by_its_id(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    session = await tenancy.tickets.redeem((await tenancy.tickets.issue(ADMIN, "acme")).text)

    await tenancy.tenants.revoke_token(ADMIN, "acme", session.id)

    with pytest.raises(TokenRejected):
        tenancy.access.authenticate_cookie(session.cookie)
    assert tenancy.access.authenticate(created.token_text).tenant == "acme"


async def test_a_browser_ends_its_own_session_whatever_its_scopes(tenancy: Tenancy) -> None:
    await tenancy.make()
    chat = await tenancy.caller("acme", Scope.CHAT)
    session = await tenancy.tickets.redeem((await tenancy.tickets.issue(chat, "acme")).text)
    caller = tenancy.access.authenticate_cookie(session.cookie)
    inner = await tenancy.tickets.redeem((await tenancy.tickets.issue(caller, "acme")).text)

    await tenancy.tickets.end(caller)

    for cookie in (session.cookie, inner.cookie):
        with pytest.raises(TokenRejected):
            tenancy.access.authenticate_cookie(cookie)
    assert not tenancy.access.is_live(caller)
    assert tenancy.access.is_live(chat)
    assert tenancy.audit.names[-1] == "logout"


async def test_a_token_cannot_log_out(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    caller = tenancy.access.authenticate(created.token_text)

    for who in (caller, replace(ADMIN, tenant="acme")):
        with pytest.raises(InvalidRequest, match="browser session"):
            await tenancy.tickets.end(who)

    assert tenancy.access.is_live(caller)


@pytest.mark.parametrize("how", ["rotate", "disable", "delete", "recreate", "enable again"])
@pytest.mark.parametrize("opened", [True, False])
async def test_whatever_ends_the_tenant_ends_its_tickets_and_sessions(
    tenancy: Tenancy, how: str, *, opened: bool
) -> None:
    await tenancy.make()
    ticket = await tenancy.tickets.issue(ADMIN, "acme")
    cookie = (await tenancy.tickets.redeem(ticket.text)).cookie if opened else ""

    match how:
        case "rotate":
            await tenancy.tenants.rotate(ADMIN, "acme")
        case "delete" | "recreate":
            await tenancy.tenants.delete(ADMIN, "acme")
        case _:
            await tenancy.tenants.update(ADMIN, "acme", disabled=True)
    if how == "recreate":
        await tenancy.make()
    if how == "enable again":
        await tenancy.tenants.update(ADMIN, "acme", disabled=False)

    if not opened:
        with pytest.raises(TicketRejected):
            await tenancy.tickets.redeem(ticket.text)
    elif how == "enable again":
        assert tenancy.access.authenticate_cookie(cookie).tenant == "acme"
    else:
        with pytest.raises(TokenRejected):
            tenancy.access.authenticate_cookie(cookie)


async def test_a_ticket_of_a_token_that_was_revoked_meanwhile_is_refused(tenancy: Tenancy) -> None:
    created = await tenancy.make()
    issuer = tenancy.access.authenticate(created.token_text)
    ticket = await tenancy.tickets.issue(issuer, "acme")

    await tenancy.tenants.revoke_token(ADMIN, "acme", created.token.id)

    with pytest.raises(TicketRejected):
        await tenancy.tickets.redeem(ticket.text)


async def test_a_disabled_tenant_gets_no_ticket(tenancy: Tenancy) -> None:
    await tenancy.make()
    await tenancy.tenants.update(ADMIN, "acme", disabled=True)

    with pytest.raises(TenantDisabled):
        await tenancy.tickets.issue(ADMIN, "acme")


async def test_who_asks_in_a_loop_hurts_itself_only(tenancy: Tenancy) -> None:
    await tenancy.make()
    await tenancy.make("other")
    for _ in range(100):
        await tenancy.tickets.issue(ADMIN, "acme")

    with pytest.raises(Unavailable):
        await tenancy.tickets.issue(ADMIN, "acme")

    await tenancy.tickets.issue(ADMIN, "other")
    tenancy.clock.go_on(minutes=5)
    await tenancy.tickets.issue(ADMIN, "acme")
    assert len(tenancy.book) == 1


async def test_what_cannot_be_audited_issues_and_opens_nothing(tenancy: Tenancy) -> None:
    await tenancy.make()
    ticket = await tenancy.tickets.issue(ADMIN, "acme")
    tenancy.audit.broken = True

    with pytest.raises(AuditUnavailable):
        await tenancy.tickets.issue(ADMIN, "acme")
    with pytest.raises(AuditUnavailable):
        await tenancy.tickets.redeem(ticket.text)

    assert len(tenancy.registry.require("acme").tokens) == 1


async def test_a_record_without_scopes_gets_no_ticket(tenancy: Tenancy) -> None:
    await tenancy.make()
    caller = await tenancy.caller("acme", Scope.CHAT)
    bare = type(caller)(caller.kind, caller.credential, "acme", frozenset())

    with pytest.raises(ScopeMissing):
        await tenancy.tickets.issue(bare, "acme")
