"""The audit log as services use it: before the deed, durable, or not at all."""

import errno
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.model.audit import AuditEntry, Result
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import AuditUnavailable, DiskFull, Forbidden, ScopeMissing
from appliance.model.tokens import Scope, TenantToken
from appliance.services.audit import GATEWAY, Audit
from appliance.storage.audit_chain import verify_state
from appliance.storage.audit_log import AuditLog
from appliance.storage.state import StateDirectory
from tests.services.tenancy import ADMIN, NOW

ACME = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset({Scope.FULL}), "req_2", "198.51.100.7")


class SlowLog:
    """A log whose disk can be stopped and can fail."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self.failure: Exception | None = None
        self.batches: list[int] = []
        self.gate: threading.Event | None = None

    def append(self, drafts: Sequence[AuditEntry]) -> list[AuditEntry]:
        if self.gate is not None:
            assert self.gate.wait(60)
        self.batches.append(len(drafts))
        if self.failure is not None:
            raise self.failure
        return self._log.append(drafts)

    def tail(self, *, limit: int, tenant: str | None, before: int | None) -> list[AuditEntry]:
        return self._log.tail(limit=limit, tenant=tenant, before=before)

    def reopen(self) -> None:
        self._log.reopen()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    with StateDirectory.open(tmp_path / "state") as state:
        yield state


@pytest.fixture
def disk(state: StateDirectory) -> Iterator[SlowLog]:
    log = AuditLog(state, clock=lambda: NOW)
    yield SlowLog(log)
    log.close()


@pytest.fixture
async def audit(disk: SlowLog, nursery: trio.Nursery) -> AsyncIterator[Audit]:
    audit = Audit(disk, clock=lambda: NOW)
    await nursery.start(audit.run)
    yield audit
    nursery.cancel_scope.cancel()


async def lines(audit: Audit) -> list[AuditEntry]:
    return await audit.tail(ADMIN)


async def test_a_line_says_who_did_what_to_whom_from_where(
    audit: Audit, state: StateDirectory
) -> None:
    seq = await audit.record(
        ADMIN, "token.mint", tenant="acme", target="tok_1", details={"label": "ci"}
    )

    (line,) = await lines(audit)
    assert line.seq == seq == 1
    assert (line.actor.kind, line.actor.id) == (ActorKind.ADMIN, "first")
    assert (line.tenant, line.action, line.target) == ("acme", "token.mint", "tok_1")
    assert (line.ts, line.ip, line.request_id) == (NOW, "192.0.2.1", "req_1")
    assert (line.result, line.details) == (Result.OK, {"label": "ci"})
    assert verify_state(state).is_intact


async def test_the_gateway_itself_is_an_actor(audit: Audit) -> None:
    await audit.record(GATEWAY, "upgrade", details={"to": "0.2.0"})

    (line,) = await lines(audit)
    assert line.actor.kind is ActorKind.SYSTEM


async def test_no_secret_reaches_the_file(audit: Audit, state: StateDirectory) -> None:
    token = TenantToken.generate("acme").text
    caller = Caller(ActorKind.ADMIN, "first", None, request_id=token, ip="x")

    await audit.record(
        caller, "config.write", target=token, details={"api_key": "hunter22", "note": token}
    )

    text = (state.path / "audit.log").read_text()
    assert token not in text
    assert "hunter22" not in text


async def test_the_line_is_on_disk_before_the_deed(audit: Audit) -> None:
    async with audit.action(ADMIN, "tenant.delete", tenant="acme"):
        assert [line.action for line in await lines(audit)] == ["tenant.delete"]


async def test_a_deed_that_fails_gets_a_second_line_and_its_failure_is_raised(
    audit: Audit,
) -> None:
    with pytest.raises(DiskFull):
        async with audit.action(ADMIN, "tenant.create", tenant="acme", target="x"):
            raise DiskFull("no room")
    with pytest.raises(KeyError):
        async with audit.action(ADMIN, "tenant.create", tenant="acme"):
            raise KeyError("sk-secret0123456789")

    crash, _, failed, ok = await lines(audit)
    assert (ok.result, failed.result) == (Result.OK, Result.FAILED)
    assert failed.details == {"of": ok.seq, "reason": "disk-full"}
    assert (failed.action, failed.tenant, failed.target) == ("tenant.create", "acme", "x")
    assert crash.details["reason"] == "KeyError"


@pytest.mark.parametrize(
    "failure", [OSError(errno.EIO, "Input/output error"), DiskFull("the disk is full")]
)
async def test_what_cannot_be_logged_does_not_happen(
    audit: Audit, disk: SlowLog, failure: Exception
) -> None:
    disk.failure = failure
    done = False

    with pytest.raises(AuditUnavailable):
        async with audit.action(ADMIN, "tenant.delete", tenant="acme"):
            done = True

    assert not done
    assert audit.problem == str(failure)
    disk.failure = None
    await audit.record(ADMIN, "tenant.delete")
    assert audit.problem is None


async def test_a_failure_that_cannot_be_logged_does_not_hide_the_failure(
    audit: Audit, disk: SlowLog, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        async with audit.action(ADMIN, "tenant.delete"):
            disk.failure = OSError("gone")
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await fail()

    assert "could not be marked as failed" in caplog.text


async def test_many_lines_share_a_sync(audit: Audit, disk: SlowLog, state: StateDirectory) -> None:
    disk.gate = threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(audit.record, ADMIN, "x")
        await wait_all_tasks_blocked()
        disk.gate.set()

    assert sum(disk.batches) == 100
    assert len(disk.batches) <= 3
    found = verify_state(state)
    assert found.is_intact
    assert found.lines == 100


async def test_when_the_disk_hangs_the_queue_is_bounded(audit: Audit, disk: SlowLog) -> None:
    disk.gate = threading.Event()
    refused = 0

    async def record() -> None:
        nonlocal refused
        try:
            await audit.record(ADMIN, "x")
        except AuditUnavailable:
            refused += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(record)
        await wait_all_tasks_blocked()
        for _ in range(300):
            nursery.start_soon(record)
        await wait_all_tasks_blocked()
        assert refused == 300 - 256
        disk.gate.set()

    assert refused == 300 - 256


async def test_nothing_is_accepted_before_it_runs_or_after(disk: SlowLog) -> None:
    audit = Audit(disk, clock=lambda: NOW)
    with pytest.raises(AuditUnavailable):
        await audit.record(ADMIN, "x")

    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        nursery.cancel_scope.cancel()

    with pytest.raises(AuditUnavailable):
        await audit.record(ADMIN, "x")


async def test_whoever_waits_when_it_ends_is_told(disk: SlowLog) -> None:
    audit = Audit(disk, clock=lambda: NOW)
    disk.gate = threading.Event()
    outcomes: list[str] = []

    async def record() -> None:
        try:
            await audit.record(ADMIN, "x")
        except AuditUnavailable:
            outcomes.append("refused")
        else:
            outcomes.append("written")

    async with trio.open_nursery() as waiters, trio.open_nursery() as writer:
        await writer.start(audit.run)
        waiters.start_soon(record)
        await wait_all_tasks_blocked()
        waiters.start_soon(record)
        await wait_all_tasks_blocked()
        writer.cancel_scope.cancel()
        disk.gate.set()

    # The first was being written, and what is written counts.
    assert sorted(outcomes) == ["refused", "written"]


async def test_from_the_line_on_a_deed_is_not_cancelled(audit: Audit) -> None:
    steps: list[str] = []

    with trio.CancelScope() as scope:
        async with audit.action(ADMIN, "token.revoke"):
            scope.cancel()
            await trio.lowlevel.checkpoint()
            steps.append("done")
        await trio.lowlevel.checkpoint()
        steps.append("never")

    assert steps == ["done"]


async def test_a_tenant_sees_its_own_lines_without_the_operators_address(audit: Audit) -> None:
    await audit.record(ADMIN, "tenant.create", tenant="acme")
    await audit.record(ADMIN, "tenant.create", tenant="other")
    await audit.record(ADMIN, "upgrade")
    await audit.record(ACME, "config.write", tenant="acme")

    seen = await audit.tail(ACME, tenant="other")

    assert [line.action for line in seen] == ["config.write", "tenant.create"]
    assert [line.ip for line in seen] == ["198.51.100.7", ""]
    assert {line.seq for line in seen} == {0}
    assert [line.tenant for line in await audit.tail(ADMIN, tenant="other")] == ["other"]
    assert len(await audit.tail(ADMIN, limit=2)) == 2
    assert [line.seq for line in await audit.tail(ADMIN, before=3)] == [2, 1]


async def test_a_tenant_sees_nothing_of_who_had_its_id_before(audit: Audit) -> None:
    for action in ("tenant.create", "token.mint", "tenant.delete", "tenant.create", "quota.write"):
        await audit.record(ADMIN, action, tenant="acme")

    assert [line.action for line in await audit.tail(ACME)] == ["quota.write", "tenant.create"]
    assert len(await audit.tail(ADMIN, tenant="acme")) == 5


async def test_a_tenant_needs_the_scope_to_look(audit: Audit) -> None:
    chat = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset({Scope.CHAT}))
    with pytest.raises(ScopeMissing):
        await audit.tail(chat)
    with pytest.raises(Forbidden):
        await audit.tail(Caller(ActorKind.TENANT, "tok_1", None))


async def test_it_goes_on_after_the_file_was_moved_away(
    audit: Audit, state: StateDirectory
) -> None:
    await audit.record(ADMIN, "x")
    (state.path / "audit.log").rename(state.path / "audit.log.1")
    audit.reopen()

    await audit.record(ADMIN, "x")

    assert len(await lines(audit)) == 1
    assert verify_state(state).is_intact
