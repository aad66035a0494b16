"""What a tenant's sandboxes are given, what becomes of them, and what is written down."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.model.errors import DiskFull, QuotaExceeded, RateLimited, Unavailable
from appliance.sandboxes.base import (
    Access,
    Bind,
    EgressDoor,
    Proof,
    Sandbox,
    SandboxFailed,
    SandboxSpec,
    SandboxUnavailable,
    TerminalSize,
)
from appliance.sandboxes.egress_settings import EgressRecord, EgressSettings, Verdict
from appliance.services.sandboxes import starts as sandbox_starts
from appliance.services.sandboxes.egress import SandboxEgress
from appliance.services.workspaces import open_workspace
from appliance.storage.credentials import CredentialStore, ProviderCredential, Vault
from appliance.storage.paths import FreeSpace, PathRefused
from tests.fakes.sandboxes import PROOF, FakeBackend, FakeSandbox, Script
from tests.services.sandbox_bench import SandboxBench, ask, open_sandboxes

MIB = 1024 * 1024


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SandboxBench]:
    async with open_sandboxes(tmp_path) as bench:
        yield bench


async def spec_of(bench: SandboxBench, *command: str, **more: Any) -> SandboxSpec:
    async with bench.sandboxes.open(bench.tenant, ask(*command, **more)):
        return bench.backend.specs[-1]


class TestWhatItIsGiven:
    async def test_a_command_runs_in_its_agents_workspace(self, bench: SandboxBench) -> None:
        seen: list[os.stat_result] = []

        async def look(sandbox: FakeSandbox) -> int:
            seen.append(os.fstat(sandbox.spec.workspace))
            return 0

        bench.backend.will(Script(behave=look), Script(behave=look))
        await bench.run("make", agent="main", directory="src/../lib")
        await bench.run("make", agent="pirate")

        spec = bench.backend.specs[0]
        assert (spec.group, spec.command) == ("acme", ("make",))
        assert spec.directory == "/workspace/lib"
        home = bench.home / "workspace"
        assert os.path.samestat(seen[0], home.stat())
        assert os.path.samestat(seen[1], (home / "agents/pirate").stat())

    async def test_other_agents_are_hidden_from_the_first(self, bench: SandboxBench) -> None:
        assert (await spec_of(bench, agent="main")).hidden == ["agents"]
        assert (bench.home / "workspace/agents").is_dir(), "there is something to cover"
        assert (await spec_of(bench, agent="pirate")).hidden == []

    async def test_the_descriptor_of_the_workspace_is_closed_afterwards(
        self, bench: SandboxBench
    ) -> None:
        spec = await spec_of(bench)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(spec.workspace)

    async def test_a_workspace_that_is_a_link_is_refused(self, bench: SandboxBench) -> None:
        (bench.home / "workspace").symlink_to("/etc")

        with pytest.raises(PathRefused):
            await bench.run("cat")
        assert bench.backend.opened == []

    async def test_what_is_configured_reaches_it(self, bench: SandboxBench) -> None:
        bench.configure(
            """
    captain: {}
  sandbox: {workspace: ro, environment: {A: configured, B: configured}}
sandbox: {binds: ["/opt/tools:/opt/tools", "/srv/shared:/shared:rw"], limits: {memory_mb: 64}}
"""
        )
        spec = await spec_of(bench, environment={"A": "asked"}, terminal=TerminalSize(80, 24))

        assert spec.access is Access.READ
        assert spec.environment == {"A": "asked", "B": "configured"}
        assert spec.binds == [
            Bind("/opt/tools", "/opt/tools"),
            Bind("/srv/shared", "/shared", is_writable=True),
        ]
        assert (spec.limits.memory_bytes, spec.group_limits) == (64 * MIB, None)
        assert spec.terminal == TerminalSize(80, 24)

    @pytest.mark.parametrize(
        ("configured", "asked", "given"),
        [
            ("rw", None, Access.WRITE),
            ("rw", Access.READ, Access.READ),
            ("ro", Access.WRITE, Access.READ),
            ("none", Access.READ, Access.NONE),
        ],
    )
    async def test_nobody_is_given_more_of_the_workspace_than_is_configured(
        self, bench: SandboxBench, configured: str, asked: Access | None, given: Access
    ) -> None:
        bench.configure(f"    captain: {{}}\n  sandbox: {{workspace: {configured}}}\n")

        assert (await spec_of(bench, access=asked)).access is given

    async def test_quotas_bound_one_sandbox_and_all_of_them(self, bench: SandboxBench) -> None:
        bench.limit(sandbox_memory_mb=100, sandbox_pids=7)
        spec = await spec_of(bench)

        assert (spec.limits.memory_bytes, spec.limits.pids) == (100 * MIB, 7)
        assert spec.group_limits is not None
        assert (spec.group_limits.memory_bytes, spec.group_limits.pids) == (100 * MIB, 7)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    async def test_an_older_workspace_is_given_to_who_runs_in_it(self, bench: SandboxBench) -> None:
        home = bench.home / "workspace"
        home.mkdir()
        (home / "AGENTS.md").touch()

        await bench.run("true")
        uid = bench.tenant.config.sandbox.uid
        assert (home.stat().st_uid, (home / "AGENTS.md").stat().st_uid) == (uid, uid)


class TestRefusals:
    async def test_nothing_runs_where_the_isolation_does_not_hold(
        self, bench: SandboxBench
    ) -> None:
        bench.sandboxes.use(bench.backend, Proof(backend="fake", problem="no user namespaces"))

        with pytest.raises(SandboxUnavailable, match="no user namespaces"):
            bench.sandboxes.require()
        with pytest.raises(SandboxUnavailable, match="no user namespaces"):
            await bench.run("true")
        assert bench.backend.opened == []

    async def test_the_first_waits_until_the_isolation_was_tried(
        self, tmp_path: Path, autojump_clock: MockClock
    ) -> None:
        async with open_sandboxes(tmp_path, proved=False) as bench:
            bench.ready("main")
            bench.backend.will(Script())
            with pytest.raises(SandboxUnavailable, match="being tested"):
                bench.sandboxes.require()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.run, "true")
                await trio.sleep(5)
                bench.sandboxes.use(bench.backend, PROOF)
            assert len(bench.backend.opened) == 1

    async def test_and_not_for_ever(self, tmp_path: Path, autojump_clock: MockClock) -> None:
        async with open_sandboxes(tmp_path, proved=False) as bench:
            with pytest.raises(SandboxUnavailable, match="being tested"):
                await bench.run("true")

    async def test_a_quota_of_nothing_is_refused(self, bench: SandboxBench) -> None:
        bench.limit(sandbox_pids=0)
        with pytest.raises(QuotaExceeded, match="sandbox_pids is 0"):
            await bench.run("true")

    async def test_a_full_disk_is_refused(self, bench: SandboxBench) -> None:
        bench.free[0] = FreeSpace(1000)
        with pytest.raises(DiskFull):
            await bench.run("true")
        bench.free[0] = FreeSpace(10**12, 5)
        with pytest.raises(DiskFull):
            await bench.run("true")

    async def test_a_tenant_has_so_many_at_once(
        self, bench: SandboxBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sandbox_starts, "MOST_OF_A_TENANT", 2)
        opened = bench.sandboxes.open
        async with opened(bench.tenant, ask()), opened(bench.tenant, ask()):
            assert len(bench.sandboxes.starts) == 2
            with pytest.raises(RateLimited):
                await bench.run("true")
        assert len(bench.sandboxes.starts) == 0
        assert bench.sandboxes.starts.all() == []
        bench.backend.will(Script())
        await bench.run("true")

    async def test_one_tenant_does_not_hold_up_the_starts_of_others(
        self, bench: SandboxBench, autojump_clock: MockClock
    ) -> None:
        bench.ready("main")
        slow = SlowBackend()
        bench.sandboxes.use(slow, PROOF)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(bench.run, "true")
            await trio.testing.wait_all_tasks_blocked()
            assert slow.starting == 4
            with bench.sandboxes.starts.taken("globex"):
                async with bench.sandboxes.starts.turn("globex"):
                    assert trio.current_time() == 0

    async def test_nobody_waits_for_a_start_for_ever(
        self, bench: SandboxBench, autojump_clock: MockClock
    ) -> None:
        bench.ready("main")
        slow = SlowBackend(takes=1000)
        bench.sandboxes.use(slow, PROOF)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(bench.run, "true")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Unavailable, match="too many sandboxes are being started"):
                await bench.run("true")
            nursery.cancel_scope.cancel()


class SlowBackend(FakeBackend):
    """Takes its time to start one."""

    def __init__(self, takes: float = 1.0) -> None:
        super().__init__(choose=lambda _: Script())
        self.takes = takes
        self.starting = 0

    @asynccontextmanager
    async def open(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        self.starting += 1
        try:
            await trio.sleep(self.takes)
        finally:
            self.starting -= 1
        async with super().open(spec) as sandbox:
            yield sandbox


class TestBooks:
    async def test_what_was_used_is_written_down(
        self, bench: SandboxBench, autojump_clock: MockClock
    ) -> None:
        bench.ready("pirate")
        bench.backend.will(Script(lasts=1.5, cpu_seconds=0.25, peak_memory_bytes=7 * MIB))
        await bench.run("make", agent="pirate", session="s1", run_id="r1", credential="tok_1")

        columns = (
            "kind, route, provider, agent, session, request_id, token_id, sandbox_ms,"
            "sandbox_cpu_ms, peak_memory_bytes, egress_bytes, cost_nano, outcome"
        )
        assert bench.tenant.entries(columns) == [
            (
                "sandbox", "sandbox/exec", "", "pirate", "s1", "r1", "tok_1", 1500,
                250, 7 * MIB, 0, 0, "ok",
            )
        ]  # fmt: skip
        assert bench.counted.ends == [("exec", "ended", 0)]
        assert len(bench.counted.starts) == 1

    async def test_it_counts_as_no_request(self, bench: SandboxBench) -> None:
        bench.limit(requests_per_minute=1)
        for _ in range(5):
            bench.backend.will(Script())
            await bench.run("true")

        standing = bench.tenant.meter.standing()
        assert standing.requests is not None
        assert standing.requests.remaining == 1

    async def test_whoever_leaves_first_ends_it_and_that_is_booked(
        self, bench: SandboxBench
    ) -> None:
        async with bench.sandboxes.open(bench.tenant, ask("vi", purpose="terminal")) as sandbox:
            await sandbox.input.send_all(b"x")
        assert bench.backend.running == 0
        assert bench.tenant.entries("route, outcome") == [("sandbox/terminal", "cancelled")]
        assert bench.counted.ends == [("terminal", "killed", 0)]

    async def test_what_could_not_be_started_is_counted_and_costs_nothing(
        self, bench: SandboxBench
    ) -> None:
        bench.backend.will(Script(fails="no namespaces"))
        with pytest.raises(SandboxFailed):
            await bench.run("true")

        assert bench.tenant.entries() == []
        assert bench.counted.ends == [("exec", "failed", 0)]
        assert len(bench.sandboxes.starts) == 0

    async def test_a_ledger_that_cannot_be_written_loses_no_output(
        self, bench: SandboxBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: object) -> None:
            raise DiskFull("there is no space left")

        monkeypatch.setattr(bench.tenant.meter, "book_sandbox", full)
        bench.backend.will(Script(output=b"done"))
        assert (await bench.run("make")).output == b"done"


class TestEnding:
    async def test_a_timeout_is_told(self, bench: SandboxBench, autojump_clock: MockClock) -> None:
        bench.ready("main")
        bench.backend.will(Script(hangs=True, output=b"begun"))
        result = await bench.run("sleep", timeout=3)

        assert (result.timed_out, result.output) == (True, b"begun")
        assert "3 seconds" in result.reason

    async def test_who_is_ended_by_the_operator_is_told_why(self, bench: SandboxBench) -> None:
        async with bench.sandboxes.open(bench.tenant, ask("sleep", "9")) as sandbox:
            (running,) = bench.sandboxes.starts.of("acme")
            assert (running.tenant, running.command) == ("acme", "sleep")
            assert bench.sandboxes.starts.of("globex") == ()
            await running.end("ended by the operator")
            await running.end("a second reason")
            ending = await sandbox.wait()
        assert (ending.killed, ending.reason) == (True, "ended by the operator")

    async def test_nothing_outlives_the_work_it_belongs_to(self, bench: SandboxBench) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(bench.run, "cat")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert bench.backend.running == 0
        assert len(bench.sandboxes.starts) == 0

    async def test_a_size_and_a_signal_are_passed_on(self, bench: SandboxBench) -> None:
        request = ask("sh", terminal=TerminalSize(80, 24))
        async with bench.sandboxes.open(bench.tenant, request) as sandbox:
            sandbox.resize(TerminalSize(100, 30))
            sandbox.interrupt(2)
            inside = bench.backend.opened[0]
            assert (inside.resizes, inside.signals) == ([TerminalSize(100, 30)], [2])
            assert (sandbox.inner_pid, sandbox.errors) == (2, None)


class FakeDoors:
    """Satisfies ``services.sandbox_egress.Doors``; one connection goes through each."""

    def __init__(self) -> None:
        self.settings: list[EgressSettings] = []
        self.secrets: list[str | None] = []

    @asynccontextmanager
    async def open(
        self, settings: EgressSettings, note: Callable[[EgressRecord], None]
    ) -> AsyncIterator[EgressDoor]:
        self.settings.append(settings)
        self.secrets.append(settings.credentials("github"))
        try:
            yield EgressDoor(7, "/run/door.sock", "PEM")
        finally:
            note(
                EgressRecord(
                    host="api.example.org",
                    port=443,
                    sent_bytes=10,
                    received_bytes=90,
                    seconds=0.1,
                    verdict=Verdict.PASSED,
                )
            )


class TestEgress:
    RULES = """
    captain: {}
egress:
  only: ["*.example.org"]
  allow: [{host: api.example.org}, {host: other.example.com}]
"""

    @asynccontextmanager
    async def bench(self, path: Path) -> AsyncIterator[tuple[SandboxBench, FakeDoors]]:
        doors, vault = FakeDoors(), Vault(b"k" * 32)
        async with open_sandboxes(path, egress=SandboxEgress(doors, vault=vault)) as bench:
            credential = ProviderCredential("github", None, None, api_key="ghp_secret")
            CredentialStore(bench.tenant.root, vault).set(credential)
            yield bench, doors

    async def test_without_rules_there_is_no_way_out(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as (bench, doors):
            spec = await spec_of(bench, "curl")

        assert (spec.egress, doors.settings, spec.command) == (None, [], ("curl",))
        assert "https_proxy" not in spec.environment

    async def test_rules_open_a_door_within_the_operators_bound(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as (bench, doors):
            bench.configure(self.RULES)
            spec = await spec_of(bench, "curl", environment={"https_proxy": "mine"})

        assert spec.egress == EgressDoor(7, "/run/door.sock", "PEM")
        assert spec.command[-1] == "curl"
        assert len(spec.command) > 1
        assert spec.environment["http_proxy"] == "http://127.0.0.1:3128"
        assert spec.environment["https_proxy"] == "mine"
        assert [rule.host.text for rule in doors.settings[0].rules.rules] == ["api.example.org"]
        assert doors.secrets == ["ghp_secret"]

    async def test_whoever_wants_none_has_none(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as (bench, doors):
            bench.configure(self.RULES)
            spec = await spec_of(bench, "rg", has_egress=False)
        assert (spec.egress, doors.settings) == (None, [])

    async def test_what_went_through_is_booked(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as (bench, _):
            bench.configure(self.RULES)
            bench.backend.will(Script())
            await bench.run("curl")

            assert bench.tenant.entries("egress_bytes") == [(100,)]
            assert bench.counted.ends == [("exec", "ended", 100)]

    async def test_a_credential_that_is_not_there_is_none(self, tmp_path: Path) -> None:
        async with self.bench(tmp_path) as (bench, doors):
            CredentialStore(bench.tenant.root, Vault(b"k" * 32)).delete("github")
            bench.configure(self.RULES)
            await spec_of(bench)
        assert doors.secrets == [None]


def test_a_workspace_is_opened_for_whoever_writes_files(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_sandboxes(tmp_path) as bench:
            with open_workspace(bench.tenant, "pirate") as workspace:
                workspace.write_atomic("a", b"x")
            assert (bench.home / "workspace/agents/pirate/a").read_bytes() == b"x"

    trio.run(main)
