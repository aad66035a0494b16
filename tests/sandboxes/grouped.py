"""Real processes in real control groups, for the tests of both versions."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.cgroup_mounts import find_mounts
from appliance.sandboxes.groups import Group, Groups

MIB = 1024 * 1024
# As a launcher does it: join first, then become the command.
JOIN = 'for file in $FILES; do echo 0 > "$file" || exit 125; done; unset FILES; exec "$@"'
# Writes into a file in memory, which is charged like any other memory.
MEMORY_BOMB = "head -c 512M /dev/zero | tail >/dev/null"
FORK_BOMB = 'i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; echo "$i"'


def real_v1() -> dict[str, Path]:
    """The hierarchies of this machine; skips where there are none or they are not ours."""
    mounts = find_mounts().hierarchies
    if not {"pids", "memory"} <= set(mounts):
        pytest.skip("cgroup v1 with pids and memory is not mounted here")
    if os.geteuid() != 0:
        pytest.skip("cgroup v1 groups can be made by root only")
    names = ("pids", "memory", "cpu", "cpuacct")
    return {name: mounts[name] for name in names if name in mounts}


@contextmanager
def joined(group: Group, script: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A shell in the group; it is killed and reaped at the end."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", JOIN, "sh", "/bin/sh", "-c", script],
        env={"FILES": " ".join(group.join_files), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def run(group: Group, script: str) -> tuple[int, bytes]:
    """The exit status and the output of a shell that ran in the group."""
    with joined(group, script) as process:
        with trio.fail_after(60):
            output, _ = await trio.to_thread.run_sync(process.communicate)
        return process.returncode, output


@asynccontextmanager
async def tidied(groups: Groups) -> AsyncIterator[Groups]:
    """Leaves no group on this machine, whatever fails."""
    try:
        yield groups
    finally:
        with trio.CancelScope(shield=True):
            await groups.aclose()


def groups_in(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir())


def leaf_of(group: Group) -> Path:
    """Its directory in the first hierarchy."""
    return Path(group.join_files[0]).parent


def cpu_seconds(group: Group) -> float:
    usage = group.usage()
    assert usage is not None
    return usage.cpu_seconds


def group_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()
