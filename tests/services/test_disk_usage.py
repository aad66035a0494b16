import errno
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.services import disk_usage
from appliance.services.disk_usage import DiskSizes, DiskUsage, measure
from appliance.storage.paths import TenantRoot
from appliance.storage.state import StateDirectory
from tests.books import NOON, HandClock, directory


def fill(folder: Path, files: dict[str, int]) -> None:
    for name, size in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory.open(tmp_path / "state")


def tenant(state: StateDirectory, name: str, files: dict[str, int]) -> Path:
    state.create_tenant(name).close()
    path = state.path / "tenants" / name
    fill(path, files)
    return path


def taken(*paths: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in paths)


def test_what_is_taken_is_added_up_by_the_directory_it_lies_in(tmp_path: Path) -> None:
    fill(tmp_path, {"tenant.json": 10, "workspace/a": 9000, "workspace/deep/b": 1, "memory/m": 7})
    workspace = tmp_path / "workspace"
    found = measure(directory(tmp_path), now=NOON)

    assert found == DiskUsage(
        {
            "tenant.json": taken(tmp_path / "tenant.json"),
            "workspace": taken(workspace, *workspace.rglob("*")),
            "memory": taken(tmp_path / "memory", tmp_path / "memory/m"),
        },
        NOON,
        entries=7,
    )
    assert found.total == sum(found.by_part.values())
    assert (found.of("workspace") > 9000, found.of("nothing")) == (True, 0)


def test_what_a_link_leads_to_is_not_counted(tmp_path: Path) -> None:
    outside = tmp_path / "large"
    fill(outside, {"file": 1_000_000})
    inside = tmp_path / "tenant"
    inside.mkdir()
    (inside / "file").symlink_to(outside / "file")
    (inside / "folder").symlink_to(outside)
    os.mkfifo(inside / "pipe")

    found = measure(directory(inside), now=NOON)
    assert found.entries == 3
    assert found.total < 20_000


def test_a_file_with_holes_takes_what_it_takes_and_one_with_two_names_does_so_once(
    tmp_path: Path,
) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(10**12)
    fill(tmp_path, {"one": 100_000})
    (tmp_path / "two").hardlink_to(tmp_path / "one")

    assert measure(directory(tmp_path), now=NOON).total == taken(tmp_path / "one")


def test_a_tenant_with_very_many_files_is_measured_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_usage, "MOST_ENTRIES", 5)
    fill(tmp_path, {f"workspace/{number}": 1 for number in range(10)})

    assert not measure(directory(tmp_path), now=NOON).complete


async def test_what_was_measured_is_kept_and_measured_anew_when_asked(
    state: StateDirectory,
) -> None:
    clock = HandClock()
    sizes = DiskSizes(state, clock=clock)
    path = tenant(state, "acme", {"workspace/a": 5})

    assert sizes.known("acme") is None
    first = await sizes.usage("acme")
    fill(path, {"workspace/b": 5})
    assert await sizes.usage("acme") is first
    assert await sizes.usage("acme", refresh=True) is first  # too soon
    clock.advance(10)
    assert await sizes.usage("acme") is first
    second = await sizes.usage("acme", refresh=True)
    assert second is not None
    assert second.total == taken(path / "workspace", *(path / "workspace").iterdir())
    assert first is not None
    sizes.learn("acme", first)
    assert sizes.known("acme") is first


async def test_a_tenant_that_is_gone_has_no_size(state: StateDirectory) -> None:
    sizes = DiskSizes(state, clock=HandClock())

    assert await sizes.usage("nobody") is None
    assert await sizes.usage("../../etc") is None


class Roots:
    """Tenants of which one cannot be read; tells when it is asked for one."""

    def __init__(self, state: StateDirectory) -> None:
        self.state = state
        self.names = ["acme", "bad", "globex"]
        self._send, self.asked = trio.open_memory_channel[str](10)

    def tenants(self) -> Sequence[str]:
        return list(self.names)

    def tenant_root(self, tenant: str) -> TenantRoot:
        trio.from_thread.run_sync(self._send.send_nowait, tenant)
        if tenant == "bad":
            raise OSError("the disk is on fire")
        return self.state.tenant_root(tenant)


async def test_the_background_measures_all_and_forgets_who_left(
    state: StateDirectory, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    clock, roots = HandClock(), Roots(state)
    for name in ("acme", "globex"):
        tenant(state, name, {"workspace/a": 5})
    sizes = DiskSizes(roots, clock=clock)
    nursery.start_soon(sizes.run)
    assert [await roots.asked.receive() for _ in range(3)] == ["acme", "bad", "globex"]

    roots.names = ["bad"]
    clock.advance(3600)
    assert await roots.asked.receive() == "bad"
    assert sizes.known("globex") is None


async def test_a_disk_that_cannot_be_listed_is_tried_again(
    state: StateDirectory,
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    roots = Roots(state)
    answers: Iterator[OSError | list[str]] = iter([OSError("the disk is on fire"), ["acme"]])

    def tenants() -> Sequence[str]:
        found = next(answers, [])
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(roots, "tenants", tenants)
    nursery.start_soon(DiskSizes(roots, clock=HandClock()).run)
    assert await roots.asked.receive() == "acme"


def test_what_nobody_lets_us_look_into_is_measured_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "acme", {"workspace/a": 10})

    def closed(*_: object, **__: object) -> Generator[int, None, None]:
        yield 0
        raise PermissionError(errno.EACCES, "closed again")

    monkeypatch.setattr(disk_usage, "walk", closed)
    assert not measure(directory(tmp_path / "acme"), now=NOON).complete
