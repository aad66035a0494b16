"""Terminals over a real WebSocket, in real sandboxes."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.services.terminals.output import TerminalOutput
from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.gateway.raw_websocket import raw
from tests.gateway.vitals import is_failure, resident, wait_quiet
from tests.gateway.websocket import Client, Refused, connected

# Seconds that nobody else's process sleeps, not even those of the same tests beside these.
LONG = f"47{os.getpid()}"
SHELL = {"env": {"PS1": "$ ", "HISTFILE": ""}, "shell": "/bin/bash"}


@pytest.fixture(autouse=True)
async def unharmed(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Afterwards nothing is left, and the log has no failure."""
    await gateway.sandbox_proved()
    yield
    with trio.fail_after(60):
        await wait_quiet()
    assert [record.getMessage() for record in caplog.records if is_failure(record)] == []


class Shell:
    """A terminal as a person uses it: looks at what is shown, types."""

    def __init__(self, client: Client, terminal: str) -> None:
        self.client = client
        self.id = terminal
        self.shown = ""

    async def type(self, text: str) -> None:
        await self.client.call("terminal.write", terminalId=self.id, data=text)

    async def sees(self, text: str) -> None:
        """Wait until ``text`` is shown, and forget all up to it."""
        with trio.fail_after(60):
            while text not in self.shown:
                event = await self.client.event("terminal.output", terminalId=self.id)
                self.shown += event["payload"]["data"]
        self.shown = self.shown.partition(text)[2]

    async def exit(self) -> dict[str, Any]:
        with trio.fail_after(60):
            event = await self.client.event("terminal.exit", terminalId=self.id)
        payload: dict[str, Any] = event["payload"]
        return payload


async def opened(client: Client, **params: Any) -> Shell:
    answer = await client.call("terminal.spawn", **{**SHELL, **params})
    return Shell(client, answer["terminalId"])


async def test_a_shell_is_used(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        answer = await client.call("terminal.spawn", cols=100, rows=30, **SHELL)
        assert (answer["cols"], answer["rows"], answer["title"]) == (100, 30, "bash")
        shell = Shell(client, answer["terminalId"])
        await shell.sees("$ ")
        await shell.type("echo $((6*7)); pwd; tty; stty size; echo $TERM\r")
        await shell.sees("42\r\n/workspace\r\n/dev/")
        await shell.sees("30 100\r\nxterm-256color\r\n")
        await shell.type("exit 3\r")
        ended = await shell.exit()
        assert (ended["exitCode"], ended["signal"], ended["reason"]) == (3, None, "exit")
        (listed,) = (await client.call("terminal.list"))["sessions"]
        assert listed["exited"]["exitCode"] == 3


async def test_control_keys_reach_the_foreground_job(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        shell = await opened(client)
        await shell.sees("$ ")
        assert "job control" not in shell.shown
        await shell.type("echo begin; sleep 1000\r")
        await shell.sees("begin\r\n")
        await shell.type("\x03")
        await shell.sees("^C")
        await shell.type("echo code=$?\r")
        await shell.sees("code=130")

        # A shell that has not begun the job yet is not stopped, and then nothing is.
        await shell.type("sh -c 'echo again; exec sleep 999'\r")
        await shell.sees("again\r\n")
        await shell.type("\x1a")
        await shell.sees("Stopped")
        await shell.type("kill -KILL %1; wait; jobs; echo 'all' over\r")
        await shell.sees("all over\r\n")
        await shell.type("\x04")
        assert (await shell.exit())["reason"] == "exit"


async def test_the_program_sees_its_new_size(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        shell = await opened(client)
        await shell.sees("$ ")
        await shell.type("trap 'stty size' WINCH; echo ready\r")
        await shell.sees("ready\r\n")
        size = await client.call("terminal.resize", terminalId=shell.id, cols=132, rows=50)
        assert size == {"cols": 132, "rows": 50}
        await shell.type("\r")
        await shell.sees("50 132\r\n")
        size = await client.call("terminal.resize", terminalId=shell.id, cols=1, rows=9999)
        assert size == {"cols": 10, "rows": 200}
        with pytest.raises(Refused, match="cols"):
            await client.call("terminal.resize", terminalId=shell.id, cols=80.5, rows=24)


async def test_after_a_lost_connection_all_is_there(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        shell = await opened(client)
        await shell.sees("$ ")
        await shell.type("echo before\r")
        await shell.sees("before\r\n")
        await shell.type("(until [ -e go ]; do sleep 0.05; done; echo mean€'while') &\r")
        await shell.sees("\r\n")

    async with connected(gateway.port, acme.token) as client:
        (gateway.state_dir / "tenants" / "acme" / "workspace" / "go").touch()
        await wait_until(
            lambda: "mean€while" in output(gateway, shell.id)._scrollback.read(0, 999)[1]
        )
        (listed,) = (await client.call("terminal.list"))["sessions"]
        assert (listed["terminalId"], listed["attached"]) == (shell.id, 0)
        found = await client.call("terminal.attach", terminalId=shell.id)
        assert "before" in found["data"]
        assert "mean€while" in found["data"]
        assert (found["truncated"], found["exited"]) == (False, None)
        again = Shell(client, shell.id)
        await again.type("echo after\r")
        await again.sees("after\r\n")
        offset = found["offset"]
    async with connected(gateway.port, acme.token) as client:
        found = await client.call("terminal.attach", terminalId=shell.id, offset=offset)
        assert "before" not in found["data"]
        assert "after" in found["data"]


async def test_what_is_typed_fast_stays_in_order(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        shell = await opened(client, command="stty -echo; echo ready; head -c 2000; echo; sleep 9")
        await shell.sees("ready\r\n")
        for number in range(400):
            text = f"{number:04}\n"
            await client.ask("terminal.write", terminalId=shell.id, data=text)
        expected = "".join(f"{number:04}\r\n" for number in range(400))
        await shell.sees(expected)


async def test_fifty_terminals_at_once(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        shells: list[Shell] = []
        with trio.fail_after(60):
            for _ in range(50):
                shells.append(await opened(client))  # noqa: PERF401 - one after the other
            for number, shell in enumerate(shells):
                await shell.type(f"echo 'nr '{number}\r")
            for number, shell in enumerate(shells):
                await shell.sees(f"nr {number}\r\n")
        listed = (await client.call("terminal.list"))["sessions"]
        assert len(listed) == 50
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for shell in shells:
                    nursery.start_soon(close, gateway, acme, shell.id)
        assert (await client.call("terminal.list"))["sessions"] == []


async def close(gateway: Gateway, tenant: Tenant, terminal: str) -> None:
    answer = await gateway.http.delete(
        f"/v1/tenants/{tenant.id}/terminals/{terminal}", headers=gateway.headers(tenant.token)
    )
    assert answer.status_code == 204, answer.text


async def test_a_flood_costs_no_memory_and_no_connection(gateway: Gateway, acme: Tenant) -> None:
    most = 60_000_000
    async with connected(gateway.port, acme.token) as client:
        before = resident()
        shell = await opened(client, command=f"stty -onlcr; yes | head -c {most}")
        got = acknowledged = 0
        with trio.fail_after(60):
            while got < most:
                event = await client.event("terminal.output", terminalId=shell.id)
                got = event["payload"]["offset"]
                if got - acknowledged > 200_000:
                    acknowledged = got
                    await client.ask("terminal.ack", terminalId=shell.id, offset=got)
                    client._answers.clear()
        assert (await shell.exit())["offset"] == most
        assert resident() - before < 60_000_000


async def test_who_never_reads_stalls_its_own_terminal_alone(
    gateway: Gateway, acme: Tenant
) -> None:
    async with raw(gateway.port) as deaf, connected(gateway.port, acme.token) as client:
        await deaf.connect(acme.token)
        params = {"command": "yes"}
        await deaf.say({"type": "req", "id": "r1", "method": "terminal.spawn", "params": params})
        flood = (await deaf.answer("r1"))["payload"]["terminalId"]
        shell = await opened(client)
        await shell.sees("$ ")
        before = resident()
        with trio.fail_after(60):
            said, later = -1, output(gateway, flood).end
            while said != later:  # until all is full that the kernel keeps for it
                before, said = resident(), later
                await trio.sleep(1)
                later = output(gateway, flood).end
        assert resident() - before < 5_000_000
        await shell.type("echo fine\r")
        await shell.sees("fine\r\n")
        assert (await client.call("terminal.close", terminalId=flood)) == {"closed": True}


def output(gateway: Gateway, terminal: str) -> TerminalOutput:
    """What a terminal has said, without attaching to it."""
    supervisor: Any = gateway.tenants._running
    (awake,) = supervisor.awake_tenants
    found: TerminalOutput = awake.state.terminals.require(terminal).output
    return found


@pytest.mark.parametrize("way", ["disable", "revoke"])
async def test_terminals_end_with_what_let_them_in(
    gateway: Gateway, acme: Tenant, way: str
) -> None:
    headers = gateway.headers(ADMIN_KEY)
    minted = await gateway.http.post(
        "/v1/tenants/acme/tokens", json={"scopes": ["terminal"]}, headers=headers
    )
    async with (
        connected(gateway.port, minted.json()["token"]) as client,
        connected(gateway.port, acme.token) as other,
    ):
        shell = await opened(
            client, command=f"trap '' HUP TERM INT; setsid sleep {LONG} & sleep {LONG}"
        )
        await other.call("terminal.attach", terminalId=shell.id)
        await wait_until(lambda: processes(f"sleep {LONG}") >= 2)
        with trio.fail_after(20):
            if way == "disable":
                await gateway.http.patch(
                    "/v1/tenants/acme", json={"disabled": True}, headers=headers
                )
            else:
                name = minted.json()["id"]
                await gateway.http.delete(f"/v1/tenants/acme/tokens/{name}", headers=headers)
            assert (await client.closed())[0] == 1008
        assert processes(f"sleep {LONG}") == 0
        if way == "revoke":
            notice = await other.event("terminal.notice", terminalId=shell.id)
            assert "revoked" in notice["payload"]["message"]
            assert (await Shell(other, shell.id).exit())["reason"] == "revoked"


@pytest.mark.parametrize("drain_timeout", [60])
async def test_a_restart_waits_for_no_shell(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        await opened(client, command=f"sleep {LONG}")
        await wait_until(lambda: processes(f"sleep {LONG}") == 1)
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(20):  # of the minute that running work is given
            assert await client.closed() == (1012, "service restart")
            while processes(f"sleep {LONG}"):  # noqa: ASYNC110 - they are not ours to wait for
                await trio.sleep(0.02)


async def test_the_quota_holds_against_all_at_once(gateway: Gateway, acme: Tenant) -> None:
    await gateway.http.put(
        "/v1/tenants/acme/quotas", json={"terminals": 3}, headers=gateway.headers(ADMIN_KEY)
    )
    async with connected(gateway.port, acme.token) as client:
        asked = [await client.ask("terminal.spawn") for _ in range(10)]
        results, refusals = [], []
        for each in asked:
            try:
                results.append((await client.answer(each))["terminalId"])
            except Refused as refused:
                refusals.append(refused.error["details"]["code"])
        assert refusals == ["INSUFFICIENT_QUOTA"] * 7
        assert len(results) == 3
        assert (await client.call("terminal.list"))["quota"] == 3


async def test_another_tenants_terminal_is_like_none(gateway: Gateway, acme: Tenant) -> None:
    other = await gateway.create("other")
    async with (
        connected(gateway.port, acme.token) as client,
        connected(gateway.port, other.token) as stranger,
    ):
        shell = await opened(client)
        calls: dict[str, dict[str, Any]] = {
            "terminal.attach": {},
            "terminal.detach": {},
            "terminal.write": {"data": "id\r"},
            "terminal.resize": {"cols": 80, "rows": 24},
            "terminal.ack": {"offset": 1},
            "terminal.close": {},
        }
        for method, params in calls.items():
            errors = []
            for name in (shell.id, "00000000-0000-4000-8000-000000000000"):
                with pytest.raises(Refused) as caught:
                    await stranger.call(method, terminalId=name, **params)
                errors.append(caught.value.error)
            assert errors[0] == errors[1], method
            assert errors[0]["code"] == "NOT_FOUND"
        assert (await stranger.call("terminal.list"))["sessions"] == []


async def test_a_terminal_needs_the_right_token(gateway: Gateway, acme: Tenant) -> None:
    for scope, may in (("terminal", True), ("full", True), ("chat", False), ("read", False)):
        minted = await gateway.http.post(
            "/v1/tenants/acme/tokens", json={"scopes": [scope]}, headers=gateway.headers(ADMIN_KEY)
        )
        async with connected(gateway.port, minted.json()["token"]) as client:
            assert ("terminal.spawn" in client.hello["features"]["methods"]) is may
            if not may:
                with pytest.raises(Refused, match="scope"):
                    await client.call("terminal.spawn")


async def test_support_is_let_in_seen_and_shown_out(gateway: Gateway, acme: Tenant) -> None:
    async with (
        connected(gateway.port, acme.token) as client,
        connected(gateway.port, ADMIN_KEY, "/t/acme/ws") as helper,
        connected(gateway.port, ADMIN_KEY) as at_large,
    ):
        shell = await opened(client)
        await shell.sees("$ ")
        with pytest.raises(Refused, match="consent"):
            await helper.call("terminal.attach", terminalId=shell.id)
        with pytest.raises(Refused, match="consent"):
            await helper.call("terminal.spawn")
        asked = await at_large.call(
            "terminal.support.request",
            tenantId="acme",
            terminalId=shell.id,
            mode="write",
            reason="ticket 42",
            minutes=5,
        )
        told = (await client.event("terminal.support"))["payload"]
        assert (told["state"], told["reason"]) == ("requested", "ticket 42")
        assert told["admin"] == asked["admin"] != ""
        await client.call("terminal.support.resolve", requestId=told["requestId"], decision="allow")
        for each in (helper, at_large):
            await each.event("terminal.support", state="granted")

        found = await helper.call("terminal.attach", terminalId=shell.id)
        assert found["mode"] == "write"
        theirs = Shell(helper, shell.id)
        await theirs.type("echo from support\r")
        await theirs.sees("from support\r\n")
        await shell.sees("from support\r\n")
        (listed,) = (await client.call("terminal.list"))["sessions"]
        assert listed["support"]["admin"] == asked["admin"]
        assert listed["attached"] == 2

        await client.call("terminal.support.end", requestId=told["requestId"])
        await helper.event("terminal.support", state="ended")
        with pytest.raises(Refused):
            await theirs.type("id\r")
    tail = await gateway.http.get("/v1/audit", headers=gateway.headers(acme.token))
    actions = [line["action"] for line in tail.json()["entries"]]
    assert [each for each in reversed(actions) if "support" in each] == [
        "terminal.support.request",
        "terminal.support.allow",
        "terminal.support.attach",
        "terminal.support.end",
    ]
    assert "terminal.open" in actions


async def test_what_is_recorded_is_downloaded(gateway: Gateway, acme: Tenant) -> None:
    headers = gateway.headers(acme.token)
    await gateway.configure(acme, {"defaults": {"sandbox": {"terminal": {"record": True}}}})
    async with connected(gateway.port, acme.token) as client:
        shell = await opened(client, command="echo recorded; exit 4")
        assert (await shell.exit())["exitCode"] == 4
        (listed,) = (await client.call("terminal.recordings.list"))["recordings"]
        name = listed["recordingId"]
        got = await client.call("terminal.recordings.get", recordingId=name)
        assert got["nextOffset"] is None
    path = "/v1/tenants/acme/terminals/recordings"
    (shown,) = (await gateway.http.get(path, headers=headers)).json()["recordings"]
    assert (shown["id"], shown["ended"]) == (name, "exit")
    answer = await gateway.http.get(f"{path}/{name}", headers=headers)
    assert answer.headers["content-type"] == "application/x-asciicast"
    assert answer.text == got["data"]
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0]["version"] == 2
    assert "".join(each[2] for each in lines[1:] if each[1] == "o") == "recorded\r\n"
    refused = await gateway.http.get(f"{path}/{name}", headers=gateway.headers(ADMIN_KEY))
    assert refused.status_code == 403
    assert (await gateway.http.delete(f"{path}/{name}", headers=headers)).status_code == 204
    assert (await gateway.http.get(path, headers=headers)).json()["recordings"] == []


async def test_several_connections_share_a_terminal(gateway: Gateway, acme: Tenant) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connected(gateway.port, acme.token)) for _ in range(3)
        ]
        shell = await opened(clients[0])
        others = [Shell(client, shell.id) for client in clients[1:]]
        await others[0].client.call("terminal.attach", terminalId=shell.id)
        await others[1].client.call("terminal.attach", terminalId=shell.id, mode="read")
        await others[0].type("echo shared\r")
        for each in (shell, *others):
            await each.sees("shared\r\n")
        with pytest.raises(Refused, match="look on only"):
            await others[1].type("x")
        await clients[0].call("terminal.resize", terminalId=shell.id, cols=90, rows=20)
        resized = await clients[2].event("terminal.resized")
        assert (resized["payload"]["cols"], resized["payload"]["rows"]) == (90, 20)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do, which tell nobody."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - as said
            await trio.sleep(0.02)


def processes(command: str) -> int:
    """How many processes of this machine run ``command``."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            found += line.replace(b"\0", b" ").decode(errors="replace").strip() == command
    return found
