"""Support sees a tenant's terminals with its consent, in its sight, and for a while."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import (
    AuditUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ScopeMissing,
)
from appliance.model.operator_scopes import Role
from appliance.model.terminals import EndReason, Mode, SupportState
from appliance.model.tokens import Scope
from appliance.services.terminals.life import Terminal
from appliance.services.terminals.support import MOST_REQUESTS, UNANSWERED, SupportRequest
from tests.fakes.awake import someone
from tests.services.tenancy import Tenancy
from tests.services.terminal_bench import OPERATOR, TerminalBench, Viewer, open_bench


@pytest.fixture
async def bench(tenancy: Tenancy) -> AsyncIterator[TerminalBench]:
    async with open_bench(tenancy) as opened:
        yield opened


async def ask(
    bench: TerminalBench,
    helper: Viewer,
    *,
    mode: Mode = Mode.READ,
    terminal: Terminal | None = None,
    minutes: int | None = 10,
) -> SupportRequest:
    return await bench.terminals.support.request(
        bench.tenant,
        helper.caller,
        helper,
        terminal_id=None if terminal is None else terminal.id,
        mode=mode,
        reason="ticket 42",
        lasts=None if minutes is None else timedelta(minutes=minutes),
    )


async def answer(
    bench: TerminalBench, client: Viewer, request: SupportRequest, *, allow: bool = True
) -> None:
    await bench.terminals.support.resolve(bench.tenant, client.caller, request.id, allow=allow)


def states(client: Viewer) -> list[str]:
    return [each["state"] for each in client.heard("terminal.support")]


def steps(bench: TerminalBench) -> list[tuple[str, str]]:
    prefix = "terminal.support."
    return [
        (each["action"].removeprefix(prefix), each["by"])
        for each in bench.audit.actions
        if each["action"].startswith(prefix)
    ]


async def test_without_consent_an_operator_who_acts_for_the_tenant_can_do_nothing(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)

    with pytest.raises(Forbidden, match=r"terminal\.support\.request"):
        await bench.spawn(helper)
    for mode in (None, Mode.READ, Mode.WRITE):
        with pytest.raises(Forbidden, match=r"terminal\.support\.request"):
            await bench.attach(helper, terminal, mode=mode)
    with pytest.raises(Forbidden, match="attach first"):
        bench.write(helper, terminal, "id")
    with pytest.raises(Forbidden, match="attach first"):
        bench.terminals.resize(
            bench.tenant, helper.caller, helper, terminal.id, columns=80, rows=24
        )
    with pytest.raises(Forbidden, match=r"terminal\.support\.request"):
        bench.terminals.require_recordings(helper.caller, "acme")
    assert len(bench.sandboxes.requests) == 1


async def test_who_was_let_in_to_look_hears_all_and_types_nothing(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, sandbox = await bench.spawn(client)
    request = await ask(bench, helper, terminal=terminal)
    assert request.state is SupportState.REQUESTED
    with pytest.raises(Forbidden):
        await bench.attach(helper, terminal)

    await answer(bench, client, request)
    found = await bench.attach(helper, terminal)
    await sandbox.say(b"secret")
    await trio.sleep(0.1)

    assert found["mode"] is Mode.READ
    assert helper.text == client.text == "secret"
    with pytest.raises(Forbidden, match="look on only"):
        bench.write(helper, terminal, "rm")
    with pytest.raises(Forbidden, match="consent to write"):
        await bench.attach(helper, terminal, mode=Mode.WRITE)
    assert bench.terminals.helper_of(bench.tenant, terminal) is request


async def test_who_was_let_in_to_write_types_and_both_see_it(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    await answer(bench, client, await ask(bench, helper, mode=Mode.WRITE))

    assert (await bench.attach(helper, terminal))["mode"] is Mode.WRITE
    bench.write(helper, terminal, "ls")
    await trio.sleep(0.1)
    assert client.text == helper.text == "ls"


async def test_who_may_write_may_still_choose_to_look_on(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    await answer(bench, client, await ask(bench, helper, mode=Mode.WRITE))
    await bench.attach(helper, terminal, mode=Mode.READ)

    with pytest.raises(Forbidden, match="look on only"):
        bench.write(helper, terminal, "x")


async def test_both_sides_are_told_of_each_step_and_by_whom(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    request = await ask(bench, helper, terminal=terminal)
    await answer(bench, client, request)
    await bench.attach(helper, terminal)
    await bench.terminals.support.end(bench.tenant, client.caller, request.id)

    assert states(client) == states(helper) == ["requested", "granted", "ended"]
    told = client.heard("terminal.support")[1]
    assert told == {
        "requestId": request.id,
        "state": "granted",
        "mode": "read",
        "admin": "helpdesk",
        "reason": "ticket 42",
        "minutes": 10,
        "expiresAtMs": round(bench.clock().timestamp() * 1000) + 600_000,
        "terminalId": terminal.id,
    }
    assert client.notices == [
        ("support", "helpdesk of support looks on: ticket 42"),
        ("support", "helpdesk of support has left"),
    ]


async def test_only_who_may_use_terminals_is_told(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    reader = bench.connect("reader", someone("acme", Scope.READ))
    node = bench.connect("node")
    node.role = Role.NODE
    other_admin = bench.connect("other", replace(OPERATOR, credential="sales"))
    typist = bench.connect("typist", someone("acme", Scope.TERMINAL))
    at_large = Viewer(id="large", caller=Caller(ActorKind.ADMIN, "helpdesk", None))
    await ask(bench, at_large)

    assert [each.events for each in (reader, node, other_admin)] == [[], [], []]
    assert states(typist) == states(at_large) == ["requested"]


async def test_access_ends_by_itself_and_takes_who_is_there_out(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, sandbox = await bench.spawn(client)
    request = await ask(bench, helper, mode=Mode.WRITE, minutes=10)
    await answer(bench, client, request)
    await bench.attach(helper, terminal)
    await trio.sleep(599)
    bench.write(helper, terminal, "x")
    await trio.sleep(2)

    assert states(client) == states(helper) == ["requested", "granted", "ended"]
    assert list(terminal.output.viewers) == [client.id]
    with pytest.raises(Forbidden):
        bench.write(helper, terminal, "x")
    await sandbox.say(b"private again")
    await trio.sleep(0.1)
    assert "private" not in helper.text
    assert "private" in client.text
    assert steps(bench)[-1] == ("end", "gateway")
    assert bench.terminals.support.list(bench.tenant) == ()
    assert not terminal.has_ended


@pytest.mark.parametrize("ender", ["tenant", "operator"])
async def test_either_side_ends_it_at_any_time(
    bench: TerminalBench, autojump_clock: MockClock, ender: str
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    request = await ask(bench, helper, mode=Mode.WRITE)
    await answer(bench, client, request)
    await bench.attach(helper, terminal)
    caller = client.caller if ender == "tenant" else helper.caller
    await bench.terminals.support.end(bench.tenant, caller, request.id)

    assert list(terminal.output.viewers) == [client.id]
    with pytest.raises(Forbidden):
        bench.write(helper, terminal, "x")
    assert steps(bench)[-1] == ("end", caller.credential)
    with pytest.raises(NotFound):
        await bench.terminals.support.end(bench.tenant, caller, request.id)
    await trio.sleep(10_000)
    assert steps(bench)[-1] == ("end", caller.credential)  # its time is not up a second time


async def test_a_refusal_is_final(bench: TerminalBench, autojump_clock: MockClock) -> None:
    client, helper = bench.connect(), bench.support()
    request = await ask(bench, helper)
    await answer(bench, client, request, allow=False)

    assert states(helper) == ["requested", "denied"]
    with pytest.raises(NotFound):
        await answer(bench, client, request)
    with pytest.raises(Forbidden):
        await bench.spawn(helper)


async def test_what_nobody_answers_lapses(bench: TerminalBench, autojump_clock: MockClock) -> None:
    client, helper = bench.connect(), bench.support()
    request = await ask(bench, helper)
    await trio.sleep(UNANSWERED.total_seconds() + 1)

    assert states(helper) == ["requested", "ended"]
    with pytest.raises(NotFound):
        await answer(bench, client, request)


async def test_an_operator_consents_to_nothing(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    helper = bench.support()
    request = await ask(bench, helper)

    with pytest.raises(Forbidden, match="only the tenant itself"):
        await answer(bench, helper, request)
    reader = bench.connect("reader", someone("acme", Scope.READ))
    with pytest.raises(ScopeMissing):
        await answer(bench, reader, request)


@pytest.mark.parametrize(
    ("policy", "mode", "state"),
    [
        ("ask", Mode.READ, "requested"),
        ("read", Mode.READ, "granted"),
        ("read", Mode.WRITE, "requested"),
        ("write", Mode.READ, "granted"),
        ("write", Mode.WRITE, "granted"),
    ],
)
async def test_the_settings_may_consent_beforehand(
    bench: TerminalBench, autojump_clock: MockClock, policy: str, mode: Mode, state: str
) -> None:
    bench.tenant.settle(support=policy)
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    request = await ask(bench, helper, mode=mode)

    assert request.state == state
    assert states(client) == (["requested"] if state == "requested" else ["requested", state])
    if state == "granted":
        await bench.attach(helper, terminal)
        assert ("allow", "gateway") in steps(bench)


async def test_never_is_never(bench: TerminalBench, autojump_clock: MockClock) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    bench.tenant.settle(support="write")
    await ask(bench, helper, mode=Mode.WRITE)
    bench.tenant.settle(support="never")

    with pytest.raises(Forbidden, match="settings allow no support"):
        await ask(bench, helper)
    with pytest.raises(Forbidden):  # what was granted before is worth nothing now
        await bench.attach(helper, terminal)


async def test_access_to_one_terminal_is_access_to_no_other(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    one, _ = await bench.spawn(client)
    other, _ = await bench.spawn(client)
    await answer(bench, client, await ask(bench, helper, terminal=one, mode=Mode.WRITE))
    await bench.attach(helper, one)

    with pytest.raises(Forbidden):
        await bench.attach(helper, other)
    with pytest.raises(Forbidden):
        await bench.spawn(helper)
    with pytest.raises(Forbidden):
        bench.terminals.require_recordings(helper.caller, "acme")


async def test_one_operators_access_is_no_other_operators(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    await answer(bench, client, await ask(bench, helper, mode=Mode.WRITE))

    other = bench.connect("other", replace(OPERATOR, credential="sales"))
    with pytest.raises(Forbidden):
        await bench.attach(other, terminal)


async def test_a_terminal_that_support_opened_ends_with_its_access(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    request = await ask(bench, helper, mode=Mode.WRITE)
    await answer(bench, client, request)
    terminal, _ = await bench.spawn(helper)
    assert terminal.wish.title == "support (helpdesk): bash"
    assert bench.terminals.helper_of(bench.tenant, terminal) is request
    await bench.attach(client, terminal)
    bench.write(helper, terminal, "x")
    await trio.sleep(0.1)
    assert client.text == "x"

    await bench.terminals.support.end(bench.tenant, client.caller, request.id)
    await terminal.ended.wait()
    assert terminal.reason is EndReason.SUPPORT


async def test_when_the_operators_key_is_withdrawn_so_is_the_access(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    await answer(bench, client, await ask(bench, helper, mode=Mode.WRITE))
    await bench.attach(helper, terminal)
    ((_, job),) = [each for each in bench.tenant.jobs if each[0].credential == "helpdesk"]
    job.cancel()
    await trio.sleep(0.1)

    assert list(terminal.output.viewers) == [client.id]
    assert states(client)[-1] == "ended"


async def test_every_step_is_in_the_log_before_it_is_done(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    bench.audit.broken = True
    with pytest.raises(AuditUnavailable):
        await ask(bench, helper)
    assert bench.terminals.support.list(bench.tenant) == ()

    bench.audit.broken = False
    request = await ask(bench, helper)
    bench.audit.broken = True
    with pytest.raises(AuditUnavailable):
        await answer(bench, client, request)
    assert request.state is SupportState.REQUESTED

    bench.audit.broken = False
    await answer(bench, client, request)
    bench.audit.broken = True
    with pytest.raises(AuditUnavailable):
        await bench.attach(helper, terminal)
    assert list(terminal.output.viewers) == [client.id]

    bench.audit.broken = False
    await bench.attach(helper, terminal)
    await bench.terminals.support.end(bench.tenant, client.caller, request.id)
    assert steps(bench) == [
        ("request", "helpdesk"),
        ("allow", "tok_1"),
        ("attach", "helpdesk"),
        ("end", "tok_1"),
    ]
    asked = next(e for e in bench.audit.actions if e["action"] == "terminal.support.request")
    assert asked["details"] == {
        "admin": "helpdesk",
        "mode": "read",
        "reason": "ticket 42",
        "minutes": 10,
    }


async def test_nobody_is_asked_for_longer_than_the_tenant_allows(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.tenant.settle(support_limit=600, support="read")
    helper = bench.support()

    with pytest.raises(InvalidRequest, match="more than the tenant allows"):
        await ask(bench, helper, minutes=11)
    assert (await ask(bench, helper, minutes=None)).lasts == timedelta(minutes=10)


async def test_requests_are_bounded(bench: TerminalBench, autojump_clock: MockClock) -> None:
    helper = bench.support()
    for _ in range(MOST_REQUESTS):
        await ask(bench, helper)

    with pytest.raises(RateLimited):
        await ask(bench, helper)


async def test_a_tenant_asks_for_nothing_and_unknown_terminals_are_not_found(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client: Any = bench.connect()
    with pytest.raises(Forbidden, match="admin key"):
        await ask(bench, client)
    with pytest.raises(NotFound):
        await bench.terminals.support.request(
            bench.tenant,
            OPERATOR,
            client,
            terminal_id="guessed",
            mode=Mode.READ,
            reason="x",
            lasts=None,
        )
    with pytest.raises(NotFound):
        await bench.terminals.support.end(bench.tenant, client.caller, "guessed")


async def test_support_that_loses_its_connection_is_seen_to_leave(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    await answer(bench, client, await ask(bench, helper))
    await bench.attach(helper, terminal)
    bench.leave(helper)
    await trio.sleep(2)

    assert client.notices[-1] == ("support", "helpdesk of support has left")
    assert bench.terminals.helper_of(bench.tenant, terminal) is None
