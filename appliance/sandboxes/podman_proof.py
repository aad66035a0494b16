"""Proving the isolation of containers: whether they can be made here, and what one finds inside."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

import trio

from appliance.sandboxes.base import Probe, Proof, Sandbox, SandboxFailed, SandboxSpec
from appliance.sandboxes.container_engine import ContainerEngine
from appliance.sandboxes.groups import Groups
from appliance.sandboxes.podman_arguments import Engine
from appliance.sandboxes.proving import NAMESPACES, NETWORK, RIGHTS, planted

_TIMEOUT = 60.0  # seconds
_LONGEST_REPORT = 64 * 1024
# One line each: name, tab, detail; a detail is what went wrong.
_SCRIPT = (
    r"""
tell() { printf '%s\t%s\n' "$1" "$2"; }
secret=$1 canary=$2
[ -e "$secret" ] && bad=$secret || bad=
tell host-files "$bad"
bad=
"""
    + RIGHTS
    + r"""case $uids in 0*) bad="is root" ;; *) bad= ;; esac
tell user "$bad"
bad=
"""
    + NETWORK
    + r"""bad=
"""
    + NAMESPACES
    + r"""bad=
for file in /probe /usr/probe /etc/probe /dev/probe /run/probe /etc/passwd \
    /proc/sys/kernel/hostname /proc/sys/kernel/core_pattern; do
  { echo probe >"$file"; } 2>/dev/null && bad="$bad $file"
done
tell read-only "$bad"
bad=
for file in /workspace/probe /tmp/probe /dev/shm/probe; do
  { echo probe >"$file"; } 2>/dev/null || bad="$bad $file cannot be written;"
done
tell writable "$bad"
bad=
for file in /proc/kcore /proc/keys /proc/timer_list; do
  { IFS= read -r line; } 2>/dev/null <"$file" && bad="$bad $file"
done
tell kernel "$bad"
bad=
for file in /proc/[0-9]*/environ; do
  case $(tr '\0' ' ' <"$file" 2>/dev/null) in *"$canary"*) bad="$bad $file" ;; esac
done
tell environment "$bad"
"""
)
_NAMES = (
    *("host-files", "capabilities", "no-new-privileges", "seccomp", "user", "network"),
    *("namespaces", "read-only", "writable", "kernel", "environment"),
)
NO_IMAGE = (
    "sandboxes of Podman are made of an image, and sandbox.image names none; build one with"
    " `mmdebstrap --variant=minbase bookworm base.tar` and"
    " `podman import base.tar localhost/openclawmu-base`, or fetch one with `podman pull`, and set"
    " sandbox.image to its name"
)
_DOCKER_LIMITS = (
    "Docker puts containers into groups of its own: a tenant's limits hold for each of its"
    " sandboxes, not for all of them together, and CPU time and memory are not counted"
)


class _Backend(Protocol):
    def open(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]: ...


async def prove(
    backend: _Backend, engine: ContainerEngine, image: str, groups: Groups, *, uid: int | None
) -> Proof:
    """Raises nothing."""
    is_docker = engine.kind is Engine.DOCKER
    warnings = (*groups.warnings, *((_DOCKER_LIMITS,) if is_docker else ()))
    probes: Sequence[Probe] = ()
    try:
        problem = await _image_problem(engine, image)
        if not problem:
            probes = await _probe(backend, uid)
            problem = _judge(probes)
    except SandboxFailed as exc:
        problem = f"a container cannot be started: {exc.detail}; {_remedy(exc.detail)}"
    except OSError as exc:
        problem = f"the self-test could not be prepared: {exc}"
    limits = engine.kind.value if is_docker else groups.level
    return Proof(backend="podman", problem=problem, probes=probes, limits=limits, warnings=warnings)


async def _image_problem(engine: ContainerEngine, image: str) -> str:
    if not image:
        return NO_IMAGE
    answer = await engine.ask("image", "inspect", "--format={{.Id}}", image)
    if answer.returncode == 0:
        return ""
    return (
        f"{engine.kind} has no image {image}, or cannot be used here: fetch it with"
        f" `{engine.kind} pull {image}`, as the user the gateway runs as"
    )


async def _probe(backend: _Backend, uid: int | None) -> Sequence[Probe]:
    with planted(uid) as spec:
        given = spec.command
        command = (*given[:2], _SCRIPT, *given[3:])
        async with backend.open(replace(spec, command=command)) as sandbox:
            report = await _read_report(sandbox)
    said = dict(line.split("\t", 1) for line in report.splitlines() if "\t" in line)
    return [
        Probe(name, said.get(name) == "", said.get(name, "nothing was reported").strip())
        for name in _NAMES
    ]


async def _read_report(sandbox: Sandbox) -> str:
    report = b""
    with trio.move_on_after(_TIMEOUT):
        await sandbox.input.aclose()
        async for chunk in sandbox.output:
            report += chunk
            if len(report) > _LONGEST_REPORT:
                break
        await sandbox.wait()
    return report.decode(errors="replace")


def _judge(probes: Sequence[Probe]) -> str:
    failed = [f"{probe.name} ({probe.detail})" for probe in probes if not probe.passed]
    if not failed:
        return ""
    return f"the container does not isolate: {', '.join(failed)}; nothing is run in it"


def _remedy(said: str) -> str:
    if "catatonit" in said or "init binary" in said:
        return "install catatonit, which is a container's process 1 (Debian: apt install catatonit)"
    if "hybrid mode" in said:
        return "install runc: crun cannot be used where cgroup v1 and v2 are both mounted"
    if "newuidmap" in said or "subuid" in said:
        return (
            "Podman of an ordinary user needs a range of user ids: `usermod --add-subuids`, and"
            " newuidmap (Debian: apt install uidmap)"
        )
    return "try `podman run --rm --network=none <image> true` as the user the gateway runs as"
