"""Terminals of a tenant: opened, used, shared, closed, and ended by what ends them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from appliance.model.errors import (
    AuditUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    RateLimited,
)
from appliance.model.terminals import EndReason, Mode
from appliance.sandboxes.base import SandboxFailed, TerminalSize
from appliance.services.terminals.input import MOST_TYPED
from appliance.services.terminals.life import LINGERS
from appliance.services.terminals.limits import WARNED
from tests.fakes.awake import someone
from tests.fakes.sandboxes import FakeSandbox, Script
from tests.services.tenancy import Tenancy
from tests.services.terminal_bench import TerminalBench, Viewer, open_bench, program


@pytest.fixture
async def bench(tenancy: Tenancy) -> AsyncIterator[TerminalBench]:
    async with open_bench(tenancy) as opened:
        yield opened


async def settled() -> None:
    await trio.sleep(0.5)


# -- opening -----------------------------------------------------------------


async def test_a_terminal_is_the_shell_of_the_settings_on_a_tty(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    terminal, sandbox = await bench.spawn(client, columns=100, rows=30)

    (request,) = bench.sandboxes.requests
    assert request.command == ("/bin/bash",)
    assert request.purpose == "terminal"
    assert request.agent == "main"
    assert request.credential == "tok_1"
    assert request.terminal == TerminalSize(100, 30)
    assert request.environment["TERM"] == "xterm-256color"
    assert terminal.pid == sandbox.inner_pid
    assert terminal.wish.title == "bash"


async def test_a_client_says_what_runs_and_where(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    await bench.spawn(  # noqa: S604 - nothing is run
        bench.connect(),
        shell="/bin/sh",
        command="vim x",
        directory="src",
        environment={"EDITOR": "vi", "EMPTY": ""},
        title="edit\x1b]0;evil\x07",
    )

    (request,) = bench.sandboxes.requests
    assert request.command == ("/bin/sh", "-c", "vim x")
    assert request.directory == "src"
    assert request.environment["EDITOR"] == "vi"
    assert bench.tenant.state.terminals.all[0].wish.title == "edit ]0;evil"


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"shell": "bash"}, "shell"),
        ({"shell": "/bin/\0sh"}, "shell"),
        ({"command": "a\0b"}, "command"),
        ({"directory": "a\0b"}, "cwd"),
        ({"environment": {"A=B": "c"}}, "env"),
        ({"environment": {"": "c"}}, "env"),
        ({"environment": {"ÄB": "c"}}, "env"),
        ({"environment": {"A": "c\0"}}, "env.A"),
        ({"environment": {f"A{n}": "" for n in range(201)}}, "env"),
    ],
)
async def test_what_cannot_be_passed_on_is_refused_by_name(
    bench: TerminalBench, asked: dict[str, Any], named: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await bench.spawn(bench.connect(), **asked)

    assert caught.value.fields[0].field == named
    assert bench.sandboxes.requests == []


async def test_the_greeting_comes_before_the_first_word(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    await bench.spawn(client, Script(output=b"hello", hangs=True))
    await settled()

    assert client.events == ["welcome", "terminal.output"]


async def test_a_sandbox_that_does_not_start_is_no_terminal(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.limited(terminals=1)
    bench.sandboxes.will(Script(fails="no room"))
    with pytest.raises(SandboxFailed, match="no room"):
        await bench.spawn(bench.connect())
    await settled()

    assert bench.tenant.state.terminals.all == []
    await bench.spawn(bench.connect())  # it does not count


async def test_what_cannot_be_audited_is_not_opened(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.audit.broken = True
    with pytest.raises(AuditUnavailable):
        await bench.spawn(bench.connect())

    assert bench.sandboxes.requests == []


async def test_who_leaves_before_it_is_open_leaves_nothing_behind(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(0):
        await bench.spawn(bench.connect())
    await settled()

    assert bench.tenant.state.terminals.all == []
    assert bench.sandboxes.backend.running == 0


# -- the quota ---------------------------------------------------------------


async def test_nobody_gets_past_the_quota_not_even_all_at_once(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.limited(terminals=3)
    refused: list[str] = []

    async def open_one() -> None:
        try:
            await bench.spawn(bench.connect())
        except QuotaExceeded as error:
            refused.append(error.detail)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(open_one)

    assert len(bench.tenant.state.terminals.live) == 3
    assert bench.sandboxes.backend.running == 3
    assert len(refused) == 17
    assert "3 terminals at once" in refused[0]


async def test_one_that_has_ended_makes_room(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.limited(terminals=1)
    client = bench.connect()
    await bench.spawn(client, Script(output=b"done"))
    await settled()

    await bench.spawn(client)


async def test_a_quota_of_none_is_none(bench: TerminalBench, autojump_clock: MockClock) -> None:
    bench.limited(terminals=0)
    with pytest.raises(QuotaExceeded, match="no terminals"):
        await bench.spawn(bench.connect())


async def test_fifty_at_once_are_fine(bench: TerminalBench, autojump_clock: MockClock) -> None:
    client = bench.connect()
    terminals = [(await bench.spawn(client))[0] for _ in range(50)]
    for number, terminal in enumerate(terminals):
        bench.write(client, terminal, f"<{number}>")
    await settled()

    heard = {each["terminalId"]: each["data"] for each in client.heard("terminal.output")}
    assert heard == {terminal.id: f"<{number}>" for number, terminal in enumerate(terminals)}


# -- typing ------------------------------------------------------------------


async def test_what_is_typed_arrives_in_order_and_is_answered(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    terminal, _ = await bench.spawn(client)
    assert [bench.write(client, terminal, text) for text in ("l", "s", "é😀\x03", "\0")] == [
        1,
        1,
        4,
        1,
    ]
    await settled()

    assert client.text == "lsé😀\x03\0"


async def test_what_a_program_does_not_read_is_bounded(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    async def deaf(_: FakeSandbox) -> int:
        await trio.sleep_forever()
        raise AssertionError

    client = bench.connect()
    terminal, _ = await bench.spawn(client, program(deaf))
    terminal.input.waiting = MOST_TYPED - 1
    bench.write(client, terminal, "x")
    with pytest.raises(RateLimited, match="wait for the program"):
        bench.write(client, terminal, "y")


async def test_any_connection_of_the_tenant_may_type_and_hears_when_it_attaches(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    one, other = bench.connect("one"), bench.connect("other")
    terminal, _ = await bench.spawn(one)
    bench.write(other, terminal, "hi")
    await settled()
    assert (one.text, other.text) == ("hi", "")

    assert (await bench.attach(other, terminal))["data"] == "hi"
    bench.write(one, terminal, "!")
    await settled()
    assert (one.text, other.text) == ("hi!", "!")


async def test_who_attached_to_look_on_cannot_type(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    one, other = bench.connect("one"), bench.connect("other")
    terminal, _ = await bench.spawn(one)
    await bench.attach(other, terminal, mode=Mode.READ)

    with pytest.raises(Forbidden, match="look on only"):
        bench.write(other, terminal, "x")
    with pytest.raises(Forbidden, match="look on only"):
        bench.terminals.resize(bench.tenant, other.caller, other, terminal.id, columns=80, rows=24)


async def test_a_size_reaches_the_program_and_the_others(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    one, other = bench.connect("one"), bench.connect("other")
    terminal, sandbox = await bench.spawn(one)
    await bench.attach(other, terminal)

    size = bench.terminals.resize(bench.tenant, one.caller, one, terminal.id, columns=9999, rows=1)
    assert size == TerminalSize(500, 5) == terminal.size
    assert sandbox.resizes == [size]
    assert other.heard("terminal.resized") == [{"terminalId": terminal.id, "cols": 500, "rows": 5}]
    assert one.heard("terminal.resized") == []


async def test_unknown_and_ended_ones_are_not_found(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    terminal, _ = await bench.spawn(client, Script(output=b"bye", exit_code=3))
    await settled()

    with pytest.raises(NotFound, match="there is no such terminal"):
        bench.write(client, terminal, "x")
    with pytest.raises(NotFound, match="there is no such terminal"):
        bench.terminals.detach(bench.tenant, client, "nope")
    with pytest.raises(NotFound, match="there is no such terminal"):
        bench.terminals.acknowledge(bench.tenant, client, "nope", 1)


# -- leaving and coming back -------------------------------------------------


async def test_after_a_lost_connection_nothing_is_missed(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    first = bench.connect("first")
    terminal, sandbox = await bench.spawn(first)
    await sandbox.say(b"one ")
    await settled()
    bench.leave(first)
    await sandbox.say("zwei € ".encode())
    await trio.sleep(100)

    second = bench.connect("second")
    assert await bench.attach(second, terminal, offset=4) == {
        "data": "zwei € ",
        "offset": 11,
        "truncated": False,
        "mode": Mode.WRITE,
    }
    await sandbox.say(b"three")
    await settled()
    assert second.text == "three"


async def test_a_shell_goes_on_while_nobody_looks(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    async def chatter(sandbox: FakeSandbox) -> int:
        for _ in range(100):
            await sandbox.say(b"x" * 65_536)
            await trio.sleep(0.1)
        await trio.sleep_forever()
        raise AssertionError

    client = bench.connect()
    terminal, _ = await bench.spawn(client, program(chatter))
    bench.leave(client)
    await trio.sleep(20)

    assert terminal.output.end == 100 * 65_536


async def test_one_to_which_nobody_comes_back_ends(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.tenant.settle(detached_timeout=300)
    client = bench.connect()
    terminal, sandbox = await bench.spawn(client)
    await trio.sleep(100)
    bench.leave(client)
    await trio.sleep(298)
    assert not terminal.has_ended
    await trio.sleep(5)

    assert terminal.reason is EndReason.DETACHED
    assert sandbox.killed or sandbox.signals
    assert bench.audit.actions[-1]["details"]["reason"] == "detached"


async def test_who_comes_back_in_time_keeps_it(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.tenant.settle(detached_timeout=10)
    client = bench.connect()
    terminal, _ = await bench.spawn(client)
    for _ in range(3):
        bench.terminals.detach(bench.tenant, client, terminal.id)
        await trio.sleep(8)
        await bench.attach(client, terminal)
        await trio.sleep(5)

    assert not terminal.has_ended


# -- limits ------------------------------------------------------------------


async def test_an_idle_terminal_ends_after_a_warning_however_much_it_prints(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    async def chatter(sandbox: FakeSandbox) -> int:
        while True:
            await sandbox.say(b".")
            await trio.sleep(1)

    bench.tenant.settle(idle_timeout=300)
    client = bench.connect()
    terminal, _ = await bench.spawn(client, program(chatter))
    began = trio.current_time()
    await trio.sleep(300 - WARNED - 0.5)
    assert client.notices == []
    await trio.sleep(1)
    assert client.notices == [("idle", "this terminal closes in 60 s; unless somebody types")]
    (notice,) = client.heard("terminal.notice")
    assert notice["atMs"] == round(bench.clock().timestamp() * 1000) + 59_500

    await terminal.ended.wait()
    assert trio.current_time() - began == pytest.approx(300.5, abs=0.6)
    assert client.heard("terminal.exit")[0]["reason"] == "idle"
    assert client.notices[-1] == ("closed", EndReason.IDLE.message)


async def test_who_types_after_the_warning_is_warned_again_later(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.tenant.settle(idle_timeout=300)
    client = bench.connect()
    terminal, _ = await bench.spawn(client)
    await trio.sleep(250)
    bench.write(client, terminal, " ")
    await trio.sleep(239)
    assert [kind for kind, _ in client.notices] == ["idle"]
    await trio.sleep(2)
    assert [kind for kind, _ in client.notices] == ["idle", "idle"]
    assert not terminal.has_ended


async def test_a_short_limit_is_warned_of_halfway(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.tenant.settle(idle_timeout=10)
    client = bench.connect()
    await bench.spawn(client)
    await trio.sleep(5.5)

    assert client.notices == [("idle", "this terminal closes in 5 s; unless somebody types")]


async def test_no_terminal_lives_longer_than_it_may_however_busy(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    bench.tenant.settle(max_lifetime=600, idle_timeout=100)
    client = bench.connect()
    terminal, _ = await bench.spawn(client)
    while not terminal.has_ended:
        await trio.sleep(10)
        if not terminal.has_ended:
            bench.write(client, terminal, "x")

    assert trio.current_time() == pytest.approx(610, abs=11)
    assert [kind for kind, _ in client.notices] == ["lifetime", "closed"]
    assert client.heard("terminal.exit")[0]["reason"] == "lifetime"


async def test_zero_is_no_limit(bench: TerminalBench, autojump_clock: MockClock) -> None:
    bench.tenant.settle(max_lifetime=0, idle_timeout=0)
    client = bench.connect()
    terminal, _ = await bench.spawn(client)
    await trio.sleep(80_000)

    assert not terminal.has_ended
    assert client.notices == []


# -- the end -----------------------------------------------------------------


async def test_the_last_words_come_before_the_exit_and_stay_for_a_while(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    terminal, _ = await bench.spawn(client, Script(output=b"x" * 500_000 + b"bye", exit_code=7))
    await settled()

    assert client.text.endswith("bye")
    assert client.events[-1] == "terminal.exit"
    assert client.heard("terminal.exit") == [
        {
            "terminalId": terminal.id,
            "exitCode": 7,
            "signal": None,
            "reason": "exit",
            "offset": 500_003,
        }
    ]
    assert client.notices == []
    late = bench.connect("late")
    assert (await bench.attach(late, terminal))["data"].endswith("bye")
    assert terminal in bench.tenant.state.terminals.all
    await trio.sleep(LINGERS)
    assert bench.tenant.state.terminals.all == []


async def test_only_so_many_that_ended_are_kept(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    for _ in range(60):
        await bench.spawn(client, Script(output=b"x"))
        await settled()

    assert len(bench.tenant.state.terminals.all) <= 22


async def test_a_closed_one_is_killed_told_and_gone(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client, other = bench.connect(), bench.connect("other")
    terminal, sandbox = await bench.spawn(client)
    await bench.attach(other, terminal)
    await bench.terminals.close(bench.tenant, client.caller, terminal.id)

    assert sandbox.signals == [1]
    assert sandbox.killed
    for each in (client, other):
        assert each.heard("terminal.exit")[0]["reason"] == "closed"
    await settled()
    assert bench.tenant.state.terminals.all == []
    with pytest.raises(NotFound):
        await bench.terminals.close(bench.tenant, client.caller, terminal.id)


async def test_when_its_token_is_revoked_it_ends_and_the_others_are_told(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    owner = bench.connect()
    other = bench.connect("other", replace(someone("acme"), credential="tok_2"))
    terminal, sandbox = await bench.spawn(owner)
    await bench.attach(other, terminal)
    bench.dead.add("tok_1")
    bench.tenant.jobs[0][1].cancel()
    await settled()

    assert sandbox.killed
    assert other.notices == [("closed", EndReason.REVOKED.message)]
    assert other.heard("terminal.exit")[0]["reason"] == "revoked"
    assert bench.tenant.state.terminals.all == []
    assert bench.audit.actions[-1]["details"]["reason"] == "revoked"


async def test_when_the_tenant_stops_so_does_it(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    _, sandbox = await bench.spawn(client)
    bench.tenant.jobs[0][1].cancel()
    await settled()

    assert sandbox.killed
    assert client.heard("terminal.exit")[0]["reason"] == "stopped"


async def test_a_restart_of_the_gateway_waits_for_no_shell(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    await bench.spawn(client)
    await bench.spawn(client, Script(output=b"x"))
    await settled()
    bench.terminals.shut_down()

    with trio.fail_after(2):
        for _, job in bench.tenant.jobs:
            await job.ended.wait()


async def test_a_program_that_lets_go_of_its_tty_is_ended(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    async def daemon(sandbox: FakeSandbox) -> int:
        await trio.aclose_forcefully(sandbox._stdout)
        await trio.sleep_forever()
        raise AssertionError

    client = bench.connect()
    terminal, sandbox = await bench.spawn(client, program(daemon))
    with trio.fail_after(10):
        await terminal.ended.wait()

    assert sandbox.killed


async def test_opening_and_closing_are_audited(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    client = bench.connect()
    terminal, _ = await bench.spawn(client, Script(output=b"x", exit_code=2), command="make")
    await settled()

    assert bench.audit.names[-2:] == ["terminal.open", "terminal.close"]
    opened, closed = bench.audit.actions[-2:]
    assert (opened["target"], opened["tenant"], opened["by"]) == (terminal.id, "acme", "tok_1")
    assert opened["details"] == {"agent": "main", "command": ["/bin/bash", "-c", "make"]}
    assert closed["details"] == {"reason": "exit", "exit_code": 2, "seconds": 0}


async def test_a_lost_client_does_not_hold_the_program_up(
    bench: TerminalBench, autojump_clock: MockClock
) -> None:
    async def flood(sandbox: FakeSandbox) -> int:
        for _ in range(100):
            await sandbox.say(b"x" * 65_536)
            await trio.lowlevel.checkpoint()
        await trio.sleep_forever()
        raise AssertionError

    client = bench.connect()
    terminal, _ = await bench.spawn(client, program(flood))
    bench.ack(client, terminal, 0)
    await trio.sleep(0.1)
    assert terminal.output.end < 20 * 65_536
    client.is_leaving = True
    bench.tenant.clients.discard(client)
    await trio.sleep(2)

    assert terminal.output.end == 100 * 65_536


async def test_what_others_are_told_of_it(bench: TerminalBench, autojump_clock: MockClock) -> None:
    client: Viewer = bench.connect()
    terminal, _ = await bench.spawn(client)

    ((tenant, listed),) = bench.terminals.list(bench.tenant)
    assert (tenant.id, listed) == ("acme", terminal)
    assert bench.terminals.list(None) == [(bench.tenant, terminal)]
    assert bench.terminals.find("other") is None
