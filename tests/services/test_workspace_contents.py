"""The files of a tenant's workspaces, for the tenant itself."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import (
    AlreadyExists,
    AuditUnavailable,
    DiskFull,
    Forbidden,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    RateLimited,
    ScopeMissing,
    TooLarge,
)
from appliance.model.tokens import Scope
from appliance.services import workspace_contents
from appliance.services.agents import AgentChanges, AgentService
from appliance.services.workspace_contents import (
    ANYTHING,
    MOST_TRANSFERS,
    Condition,
    WorkspaceContents,
)
from appliance.storage.paths import PathRefused
from appliance.storage.workspace_entries import NewFile
from tests.services.tenancy import ADMIN, Tenancy
from tests.transports.rpc.settings_bench import Bench as Settings
from tests.transports.rpc.settings_bench import FakeTenant

OWNER = Caller(ActorKind.TENANT, "tok_1", "acme", frozenset({Scope.FULL}))


class Bench:
    def __init__(self, tenancy: Tenancy, tenant: FakeTenant) -> None:
        self.tenancy = tenancy
        self.tenant = tenant
        self.agents = AgentService(
            tenancy.tenants, gateway=lambda: tenancy.gateway, audit=tenancy.audit
        )
        self.contents = WorkspaceContents(agents=self.agents, audit=tenancy.audit)
        self.place = tenancy.state.path / "tenants" / "acme" / "workspace"

    async def send(
        self,
        path: str,
        *pieces: bytes,
        condition: Condition = ANYTHING,
        caller: Caller = OWNER,
    ) -> workspace_contents.Written:
        return await self.contents.receive(
            self.tenant, caller, "main", path, _each(pieces), size=None, condition=condition
        )

    async def put(self, path: str, data: bytes = b"x", **more: Condition) -> str:
        return (
            await self.contents.write(self.tenant, OWNER, "main", path, data, **more)
        ).entry.etag

    async def names(self, path: str = "") -> list[str]:
        _, page = await self.contents.list(self.tenant, "main", path, limit=100)
        return [entry.name for entry in page.entries]


def _each(pieces: tuple[bytes, ...]) -> Callable[[], Awaitable[bytes]]:
    left = iter(pieces)

    async def next_piece() -> bytes:
        await trio.lowlevel.checkpoint()
        return next(left, b"")

    return next_piece


@pytest.fixture
async def bench(tenancy: Tenancy) -> AsyncIterator[Bench]:
    tenant = await Settings(tenancy, ()).open()
    yield Bench(tenancy, tenant)
    assert tenant.state.workspace_transfers == 0
    tenant.root.close()


async def test_a_file_is_written_listed_read_moved_and_deleted(bench: Bench) -> None:
    written = await bench.contents.write(bench.tenant, OWNER, "main", "a/b.txt", b"hello")
    await bench.contents.mkdir(bench.tenant, OWNER, "main", "c/d")
    await bench.contents.move(bench.tenant, OWNER, "main", "a/b.txt", "e/f.txt")
    async with bench.contents.opened(bench.tenant, "main", "/workspace/e/f.txt") as file:
        assert await file.read(1, 3) == b"ell"
        assert file.entry.size == 5
    assert await bench.names() == ["a", "c", "e"]
    await bench.contents.delete(bench.tenant, OWNER, "main", "e", recursive=True)

    assert written.created
    assert await bench.names() == ["a", "c"]
    assert [(each["action"], each["target"]) for each in bench.tenancy.audit.actions[-4:]] == [
        ("workspace.write", "main/a/b.txt"),
        ("workspace.mkdir", "main/c/d"),
        ("workspace.move", "main/a/b.txt -> e/f.txt"),
        ("workspace.delete", "main/e"),
    ]


async def test_a_file_comes_in_pieces_and_is_seen_when_it_is_whole(bench: Bench) -> None:
    await bench.put("big", b"old")

    each = _each((b"new ", b"content"))

    async def pieces() -> bytes:
        assert (bench.place / "big").read_bytes() == b"old"
        return await each()

    written = await bench.contents.receive(bench.tenant, OWNER, "main", "big", pieces, size=11)

    assert (bench.place / "big").read_bytes() == b"new content"
    assert (written.created, written.entry.size) == (False, 11)
    assert bench.tenancy.audit.actions[-1]["details"] == {"bytes": 11}


async def test_what_ends_on_the_way_leaves_nothing(bench: Bench) -> None:
    each = _each((b"half",))

    async def breaks() -> bytes:
        if piece := await each():
            return piece
        raise InvalidRequest("the client left")

    with pytest.raises(InvalidRequest):
        await bench.contents.receive(bench.tenant, OWNER, "main", "a", breaks, size=None)

    assert await bench.names() == []


async def test_conditions_hold_before_and_after_the_content_came(bench: Bench) -> None:
    first = await bench.put("a", b"one")
    with pytest.raises(PreconditionFailed, match="already"):
        await bench.send("a", b"two", condition=Condition(exists=False))
    with pytest.raises(PreconditionFailed, match="no such file"):
        await bench.put("b", condition=Condition(exists=True))

    each = _each((b"ours",))

    async def meanwhile() -> bytes:
        await bench.put("a", b"theirs")
        return await each()

    with pytest.raises(PreconditionFailed, match="changed since"):
        await bench.contents.receive(
            bench.tenant, OWNER, "main", "a", meanwhile, size=4, condition=Condition(etag=first)
        )
    with pytest.raises(PreconditionFailed):
        await bench.contents.delete(bench.tenant, OWNER, "main", "a", etag=first)

    assert (bench.place / "a").read_bytes() == b"theirs"


async def test_what_exists_is_moved_over_only_on_request(bench: Bench) -> None:
    await bench.put("a", b"a")
    await bench.put("b", b"b")

    with pytest.raises(AlreadyExists):
        await bench.contents.move(bench.tenant, OWNER, "main", "a", "b")
    await bench.contents.move(bench.tenant, OWNER, "main", "a", "b", overwrite=True)
    with pytest.raises(NotFound):
        await bench.contents.move(bench.tenant, OWNER, "main", "a", "new/c")

    assert (bench.place / "b").read_bytes() == b"a"
    assert await bench.names() == ["b"]


async def test_a_directory_that_is_not_empty_is_deleted_only_on_request(bench: Bench) -> None:
    await bench.put("d/a")

    with pytest.raises(AlreadyExists, match="d is not empty"):
        await bench.contents.delete(bench.tenant, OWNER, "main", "d")


async def test_only_who_may_manage_changes_files(bench: Bench) -> None:
    reader = Caller(ActorKind.TENANT, "tok_2", "acme", frozenset({Scope.READ, Scope.CHAT}))
    stranger = Caller(ActorKind.TENANT, "tok_3", "mallory", frozenset({Scope.FULL}))
    manager = Caller(ActorKind.TENANT, "tok_4", "acme", frozenset({Scope.MANAGE}))
    contents, tenant = bench.contents, bench.tenant
    for caller, refusal in ((reader, ScopeMissing), (stranger, Forbidden)):
        with pytest.raises(refusal):
            await contents.write(tenant, caller, "main", "a", b"")
        with pytest.raises(refusal):
            await bench.send("a", caller=caller)
        with pytest.raises(refusal):
            await contents.delete(tenant, caller, "main", "a")
        with pytest.raises(refusal):
            await contents.mkdir(tenant, caller, "main", "a")
        with pytest.raises(refusal):
            await contents.move(tenant, caller, "main", "a", "b")
    for caller in (manager, ADMIN):
        await contents.write(tenant, caller, "main", "a", b"")


async def test_an_agent_that_is_not_there_has_no_files(bench: Bench) -> None:
    for agent in ("ghost", "../main"):
        with pytest.raises(NotFound, match="not found"):
            await bench.contents.list(bench.tenant, agent, "", limit=1)
        with pytest.raises(NotFound, match="not found"):
            await bench.contents.write(bench.tenant, OWNER, agent, "a", b"")
    assert not (bench.place / "agents" / "ghost").exists()


async def test_agents_see_their_own_files_only(bench: Bench) -> None:
    await bench.agents.create(bench.tenant, ADMIN, AgentChanges(name="blue"))
    await bench.contents.write(bench.tenant, OWNER, "blue", "secret", b"of blue")

    assert (bench.place / "agents" / "blue" / "secret").read_bytes() == b"of blue"
    assert await bench.names() == []
    for path in ("agents", "agents/blue/secret"):
        with pytest.raises(PathRefused):
            await bench.contents.delete(bench.tenant, OWNER, "main", path, recursive=True)
        with pytest.raises(PathRefused):
            await bench.contents.move(bench.tenant, OWNER, "main", path, "mine")


async def test_no_more_comes_than_there_is_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.tenant.root.room.told(left=10, refusal=None)
    with pytest.raises(QuotaExceeded):
        await bench.send("a", b"x" * 6, b"y" * 6)
    bench.tenant.root.room.told(left=None, refusal=None)
    monkeypatch.setattr(workspace_contents, "LARGEST", 10)
    with pytest.raises(TooLarge, match="at most 10 bytes"):
        await bench.send("a", b"x" * 6, b"y" * 6)
    monkeypatch.setattr(NewFile, "free_bytes", lambda _: 1000)
    with pytest.raises(DiskFull):
        await bench.send("a", b"x")

    assert await bench.names() == []


async def test_what_is_announced_too_large_is_refused_at_once(bench: Bench) -> None:
    bench.tenant.root.room.told(left=10, refusal=None)

    async def never() -> bytes:
        raise AssertionError("it was asked for")

    with pytest.raises(QuotaExceeded):
        await bench.contents.receive(bench.tenant, OWNER, "main", "a", never, size=11)


async def test_only_so_many_files_are_on_their_way_at_once(bench: Bench) -> None:
    await bench.put("a")
    async with trio.open_nursery() as nursery:

        async def hold(task_status: trio.TaskStatus[None]) -> None:
            async with bench.contents.opened(bench.tenant, "main", "a"):
                task_status.started()
                await trio.sleep_forever()

        for _ in range(MOST_TRANSFERS):
            await nursery.start(hold)
        with pytest.raises(RateLimited):
            await bench.send("b", b"x")
        nursery.cancel_scope.cancel()

    await bench.send("b", b"x")


async def test_what_cannot_be_audited_is_not_done(bench: Bench) -> None:
    await bench.put("a", b"kept")
    bench.tenancy.audit.broken = True

    with pytest.raises(AuditUnavailable):
        await bench.send("a", b"new")
    with pytest.raises(AuditUnavailable):
        await bench.contents.delete(bench.tenant, OWNER, "main", "a")

    assert (bench.place / "a").read_bytes() == b"kept"


@pytest.mark.parametrize("path", ["away/x", "link", "pipe", "/etc/x", "..", ""])
async def test_nothing_leads_out(bench: Bench, tmp_path: Path, path: str) -> None:
    await bench.names()
    (bench.place / "away").symlink_to(tmp_path)
    (bench.place / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(bench.place / "pipe")

    with pytest.raises((PathRefused, InvalidRequest)):
        await bench.send(path, b"x")
    with pytest.raises((PathRefused, InvalidRequest)):
        await bench.put(path)
    with pytest.raises((PathRefused, InvalidRequest)):
        async with bench.contents.opened(bench.tenant, "main", path):
            pass

    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "x").exists()
