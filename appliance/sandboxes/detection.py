"""What there is on this machine to keep sandboxes apart and within their limits."""

from dataclasses import replace
from pathlib import Path

import trio

from appliance.config.sandbox_schema import SandboxConfig
from appliance.sandboxes.base import Proof, SandboxBackend
from appliance.sandboxes.bubblewrap import Bubblewrap
from appliance.sandboxes.cgroup_files import CgroupFs, GroupsUnavailable, owner_mark
from appliance.sandboxes.cgroup_mounts import PROC, find_mounts
from appliance.sandboxes.cgroup_v1 import use_hierarchies
from appliance.sandboxes.cgroup_v2 import enter_delegated
from appliance.sandboxes.container_engine import ContainerEngine
from appliance.sandboxes.groups import Groups, NoGroups
from appliance.sandboxes.host_layout import SYSTEM_PATH
from appliance.sandboxes.podman import Podman

NO_ENGINE = (
    "neither podman nor docker is installed; on Debian: apt install podman catatonit, and runc"
    " where cgroup v1 is still in use"
)


async def choose_groups(
    state_dir: Path, *, proc: Path = PROC, fs: CgroupFs | None = None
) -> Groups:
    """The best control groups there are for the gateway of ``state_dir``; never fails.

    To be called once, before anything is started: where a subtree was delegated,
    the calling process is moved to a leaf of it.
    """
    return await trio.to_thread.run_sync(_choose_groups, state_dir, proc, fs)


def _choose_groups(state_dir: Path, proc: Path, fs: CgroupFs | None) -> Groups:
    owner = owner_mark(state_dir)
    mounts = find_mounts(proc)
    reasons = []
    for attempt in (enter_delegated, use_hierarchies):
        try:
            return attempt(mounts, owner, fs=fs)
        except GroupsUnavailable as exc:
            reasons.append(str(exc))
    return NoGroups(
        f"nobody limits the memory and the processes of a sandbox as a whole: {'; '.join(reasons)}"
    )


async def choose_backend(
    config: SandboxConfig, *, groups: Groups, state_dir: Path, path: str = SYSTEM_PATH
) -> tuple[SandboxBackend | None, Proof]:
    """The first backend whose isolation holds here, or None and why there is none.

    Raises nothing. A machine changes: ask again later, or the backend itself
    with ``prove()``. Only what is configured is tried; "auto" is bubblewrap, then Podman.
    """
    if config.backend == "podman":
        return await _try_podman(config, groups, state_dir, path)
    bubblewrap = Bubblewrap(uid=config.uid, groups=groups)
    proof = await bubblewrap.prove()
    if proof.holds:
        return bubblewrap, proof
    await bubblewrap.aclose()
    if config.backend == "bubblewrap":
        return None, proof
    podman, other = await _try_podman(config, groups, state_dir, path)
    if podman is not None:
        warning = f"sandboxes start slowly, with Podman: {proof.problem}"
        return podman, replace(other, warnings=(warning, *other.warnings))
    # The first choice is what most will want to mend.
    return None, replace(proof, problem=f"{proof.problem}. Podman instead: {other.problem}")


async def _try_podman(
    config: SandboxConfig, groups: Groups, state_dir: Path, path: str
) -> tuple[SandboxBackend | None, Proof]:
    engine = ContainerEngine.find(is_old_cgroups=bool(find_mounts().hierarchies), path=path)
    if engine is None:
        return None, Proof(backend="podman", problem=NO_ENGINE, limits=groups.level)
    podman = Podman(
        engine=engine,
        image=config.image or "",
        uid=config.uid,
        groups=groups,
        state_dir=state_dir,
        directory=state_dir / "containers",
    )
    proof = await podman.prove()
    if proof.holds:
        return podman, proof
    await podman.aclose()
    return None, proof
