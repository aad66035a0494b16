import os
from collections.abc import Iterator, Sequence
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


def test_files_are_added_up_by_the_directory_they_lie_in(tmp_path: Path) -> None:
    fill(tmp_path, {"tenant.json": 10, "workspace/a": 100, "workspace/deep/b": 1, "memory/m": 7})
    outside = tmp_path.parent / "large"
    outside.write_bytes(b"x" * 10_000)
    (tmp_path / "workspace/link").symlink_to(outside)
    os.mkfifo(tmp_path / "workspace/pipe")
    found = measure(directory(tmp_path), now=NOON)

    assert found == DiskUsage({"tenant.json": 10, "workspace": 101, "memory": 7}, NOON)
    assert (found.total, found.of("workspace"), found.of("nothing")) == (118, 101, 0)


def test_a_tenant_with_very_many_files_is_measured_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_usage, "MOST_ENTRIES", 5)
    fill(tmp_path, {f"workspace/{number}": 1 for number in range(10)})
    found = measure(directory(tmp_path), now=NOON)

    assert not found.complete
    assert 0 < found.total < 10


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
    assert second.total == 10


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
