"""Version 2 for real, in a subtree that was delegated to this process and to it alone.

``make test-cgroup-v2`` boots a machine that has one. Elsewhere pytest would have
to be moved to another group, so this is asked for by name.
"""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.base import Limits
from appliance.sandboxes.cgroup_files import owner_mark, wait_until
from appliance.sandboxes.cgroup_mounts import find_mounts
from appliance.sandboxes.cgroup_v2 import enter_delegated
from appliance.sandboxes.detection import choose_groups
from appliance.sandboxes.groups import Groups
from tests.sandboxes import grouped
from tests.sandboxes.contract import SandboxContract
from tests.sandboxes.workshop import Workshop, opened

MIB = grouped.MIB

pytestmark = pytest.mark.skipif(
    "OPENCLAWMU_DELEGATED" not in os.environ,
    reason="needs a delegated subtree of its own: make test-cgroup-v2",
)


@pytest.fixture
async def groups(tmp_path: Path) -> AsyncIterator[Groups]:
    chosen = await choose_groups(tmp_path)
    assert (chosen.level, list(chosen.warnings)) == ("cgroup v2", [])
    async with grouped.tidied(chosen):
        yield chosen


def read(file: Path) -> str:
    return file.read_text().strip()


async def test_this_process_is_in_a_leaf_and_sandboxes_beside_it(groups: Groups) -> None:
    group = await groups.open("acme", Limits(), None)

    assert grouped.group_of(os.getpid()).strip().endswith("/gw")
    assert group.join_files[0].startswith("/sys/fs/cgroup/")
    assert "/gw/" not in group.join_files[0]


async def test_a_memory_bomb_is_killed_as_a_whole(groups: Groups) -> None:
    group = await groups.open("acme", Limits(memory_bytes=48 * MIB), None)
    status, output = await grouped.run(group, f"({grouped.MEMORY_BOMB}); echo went on")
    await group.close()

    usage = group.usage()
    assert (status, output) == (-signal.SIGKILL, b"")
    assert usage is not None
    assert usage.out_of_memory
    assert usage.peak_memory_bytes is not None
    assert 40 * MIB < usage.peak_memory_bytes <= 48 * MIB


async def test_files_in_memory_are_memory(groups: Groups) -> None:
    group = await groups.open("acme", Limits(memory_bytes=32 * MIB), None)
    descriptor = os.memfd_create("bomb")
    try:
        name = f"/proc/{os.getpid()}/fd/{descriptor}"
        status, _ = await grouped.run(group, f"head -c 128M /dev/zero >{name}")
    finally:
        os.close(descriptor)

    usage = group.usage()
    assert status != 0
    assert usage is not None
    assert usage.out_of_memory


async def test_sandboxes_of_one_tenant_share_its_memory(groups: Groups) -> None:
    tenant = Limits(memory_bytes=32 * MIB, pids=None, cpu_percent=None)
    group = await groups.open("acme", Limits(memory_bytes=400 * MIB), tenant)
    other = await groups.open("globex", Limits(memory_bytes=400 * MIB), None)
    status, _ = await grouped.run(group, grouped.MEMORY_BOMB)
    spared, output = await grouped.run(other, "echo fine")

    assert status == -signal.SIGKILL
    assert (spared, output) == (0, b"fine\n")


async def test_a_fork_bomb_stops_at_the_limit(groups: Groups) -> None:
    group = await groups.open("acme", Limits(pids=20), None)
    leaf = grouped.leaf_of(group)
    with grouped.joined(group, grouped.FORK_BOMB) as process:
        assert await wait_until(
            lambda: int(read(leaf / "pids.current")) == 20 or process.poll() is not None
        )
        assert int(read(leaf / "pids.current")) <= 20
        await group.kill()
        assert read(leaf / "cgroup.procs") == ""


async def test_a_busy_loop_gets_its_share_of_the_processor(groups: Groups) -> None:
    group = await groups.open("acme", Limits(cpu_percent=20), None)
    with grouped.joined(group, "while :; do :; done"):
        began = time.monotonic()
        assert await wait_until(lambda: grouped.cpu_seconds(group) > 0.2, at_most=120)
        seconds = time.monotonic() - began

    assert seconds > 0.7


async def test_what_a_former_gateway_left_is_swept(groups: Groups, tmp_path: Path) -> None:
    group = await groups.open("acme", Limits(), None)
    script = "trap '' TERM HUP; (setsid sleep 600 &); echo up; exec sleep 600"
    with grouped.joined(group, script) as process:
        assert process.stdout is not None
        with trio.fail_after(60):
            await trio.to_thread.run_sync(process.stdout.readline)
            # It finds itself in the leaf, and what is beside it.
            await enter_delegated(find_mounts(), owner_mark(tmp_path)).sweep()
        assert process.wait(30) == -signal.SIGKILL
    assert not grouped.leaf_of(group).exists()


class TestBubblewrapInADelegatedSubtree(SandboxContract):
    @pytest.fixture
    async def shop(self, tmp_path: Path, groups: Groups) -> AsyncIterator[Workshop]:
        async with opened(tmp_path, groups) as workshop:
            yield workshop
