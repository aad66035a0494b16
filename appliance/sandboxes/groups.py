"""Control groups as a backend uses them: one for each sandbox, inside one for each tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.sandboxes.base import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupUsage:
    """What the kernel counted for everything that was ever in a group."""

    cpu_seconds: float
    peak_memory_bytes: int | None  # None: nobody counted
    out_of_memory: bool  # something in it was killed for want of memory


class Group(Protocol):
    """The group of one sandbox."""

    @property
    def join_files(self) -> Sequence[str]:
        """Files a process writes ``0`` into, each of them, to be in the group.

        The process must have one thread, and do it before it starts another or
        becomes another user. What it starts afterwards is born in the group.
        """

    @property
    def runtime_parent(self) -> str:
        """How a container runtime is told to make its own groups in this one; "" if it cannot."""

    def usage(self) -> GroupUsage | None:
        """What it used so far, at the end when it is closed; None where nobody counts."""

    async def kill(self) -> None:
        """Kill everything in it, also what is being started, and wait (bounded) for the end."""

    async def close(self) -> None:
        """Kill what is left and remove the group. May be called twice and when cancelled."""


class Groups(Protocol):
    """Where groups come from."""

    @property
    def level(self) -> str:
        """Who enforces memory and pids: "cgroup v2", "cgroup v1" or "rlimits"."""

    @property
    def warnings(self) -> Sequence[str]:
        """What is not enforced, or not as well as it could be, each with its remedy."""

    async def open(self, tenant: str, limits: Limits, tenant_limits: Limits | None) -> Group:
        """A new group with ``limits``, and with the tenant's others within ``tenant_limits``.

        Raises :exc:`SandboxFailed` if a limit cannot be set.
        """

    async def sweep(self) -> None:
        """Kill and remove what a former gateway of the same state directory left."""

    async def aclose(self) -> None:
        """Remove what belongs to no sandbox."""


class _NoGroup:
    join_files: Sequence[str] = ()
    runtime_parent = ""

    def usage(self) -> GroupUsage | None:
        return None

    async def kill(self) -> None:
        """Nobody can find its processes here: that is left to the backend."""

    async def close(self) -> None:
        """There is nothing to remove."""


class NoGroups:
    """No groups at all: a sandbox has the limits of its processes, and nothing is counted."""

    level = "rlimits"

    def __init__(self, reason: str = "") -> None:
        self.warnings: Sequence[str] = (reason,) if reason else ()

    async def open(self, tenant: str, limits: Limits, tenant_limits: Limits | None) -> Group:
        del tenant, limits, tenant_limits
        return _NoGroup()

    async def sweep(self) -> None:
        """Nothing was made."""

    async def aclose(self) -> None:
        """Nothing was made."""
