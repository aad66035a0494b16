"""Proving the isolation: what is tried from inside and seen from outside, and what a failure means.

One sandbox is started as any other, and a shell in it tries to get out. What
it must not find is planted before: a variable in the gateway's environment, a
descriptor that was left open, a readable file beside the workspace.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from appliance.sandboxes.base import Limits, Probe, Sandbox, SandboxSpec
from appliance.sandboxes.spawning import seal_inherited_descriptors

_TIMEOUT = 20.0  # seconds; it takes 30 ms on an idle machine
_LONGEST_REPORT = 64 * 1024
_OPEN_FILES = 200  # a number nobody has by chance
_CANARY = "OPENCLAWMU_CANARY"

# What every backend asks inside, in the words of a shell.
RIGHTS = """\
while read -r key value; do
  case $key in
    Cap*:) case $value in *[!0]*) bad="$bad $key $value" ;; esac ;;
    NoNewPrivs:) nnp=$value ;;
    Seccomp:) seccomp=$value ;;
    Uid:) uids=$value ;;
  esac
done </proc/self/status
tell capabilities "$bad"
[ "$nnp" = 1 ] && bad= || bad="NoNewPrivs is $nnp"
tell no-new-privileges "$bad"
[ "$seccomp" = 2 ] && bad= || bad="Seccomp is $seccomp"
tell seccomp "$bad"
"""
NETWORK = """\
while read -r name rest; do
  case $name in *:) [ "$name" = lo: ] || bad="$bad $name" ;; esac
done </proc/net/dev
tell network "$bad"
"""
NAMESPACES = """\
for command in "unshare -Ur true" "unshare -n true" "mount -t tmpfs none /tmp"; do
  $command >/dev/null 2>&1 && bad="$bad $command;"
done
tell namespaces "$bad"
"""
# One line each: name, tab, detail; a detail is what went wrong.
SCRIPT = (
    r"""
tell() { printf '%s\t%s\n' "$1" "$2"; }
secret=$1 canary=$2= files=$3

bad=
for path in /etc/shadow /etc/hostname /root /home /sys /boot /var/lib "$secret"; do
  [ -e "$path" ] && bad="$bad $path"
done
for path in /* /.[!.]*; do
  case $path in
    /bin | /dev | /etc | /lib | /lib32 | /lib64 | /libx32 | /proc | /run | /sbin) ;;
    /tmp | /usr | /var | /workspace) ;;
    *) [ -e "$path" ] && bad="$bad $path" ;;
  esac
done
tell host-files "$bad"

bad=
"""
    + RIGHTS
    + r"""case $uids in 1000*1000*1000*1000) bad= ;; *) bad="is $uids" ;; esac
tell user "$bad"

bad=
"""
    + NETWORK
    + r"""
bad=
"""
    + NAMESPACES
    + r"""
bad=
for file in /probe /usr/probe /etc/probe /dev/probe /etc/passwd /proc/sys/kernel/hostname \
    /proc/sys/user/max_user_namespaces /proc/sys/kernel/core_pattern; do
  { echo probe >"$file"; } 2>/dev/null && bad="$bad $file"
done
while read -r id parent device root point options rest; do
  case $options in rw*) ;; *) continue ;; esac
  rest=" $rest"
  case "$point ${rest##* - }" in
    /workspace\ * | /proc\ proc* | /dev/pts\ devpts*) ;;
    /tmp\ tmpfs* | /run\ tmpfs* | /dev/shm\ tmpfs*) ;;
    /dev/null\ * | /dev/zero\ * | /dev/full\ * | /dev/random\ * | /dev/urandom\ * | /dev/tty\ *) ;;
    *) bad="$bad $point" ;;
  esac
done </proc/self/mountinfo
tell read-only "$bad"

bad=
for file in /workspace/probe /tmp/probe /dev/shm/probe; do
  { echo probe >"$file"; } 2>/dev/null || bad="$bad $file cannot be written;"
done
tell writable "$bad"

bad=
for file in /proc/kcore /proc/keys /proc/kallsyms /proc/timer_list /proc/config.gz; do
  { IFS= read -r line; } 2>/dev/null <"$file" && bad="$bad $file"
done
tell kernel "$bad"

bad=
for process in /proc/[0-9]*; do
  case ${process#/proc/} in 1 | $$) ;; *) bad="$bad $process" ;; esac
done
tell processes "$bad"

bad=
for file in /proc/1/environ /proc/1/cmdline "/proc/$$/environ"; do
  case $(tr '\0' ' ' <"$file") in *"$canary"*) bad="$bad $file" ;; esac
done
# Some shells leave these behind, and they say nothing.
case $(tr '\0' '\n' </proc/1/environ | grep -v -e '^PWD=/$' -e '^SHLVL=' -e '^_=/usr/bin/') in
  ?*) bad="$bad /proc/1/environ is not empty" ;;
esac
tell environment "$bad"

bad=
for file in /proc/$$/fd/*; do
  case ${file##*/} in 0 | 1 | 2) continue ;; esac
  # One is of this very listing, and closed by now.
  [ -e "$file" ] || [ -L "$file" ] && bad="$bad ${file##*/}"
done
tell descriptors "$bad"

bad=
[ "$(ulimit -n)" = "$files" ] || bad="$(ulimit -n) open files"
[ "$(ulimit -c)" = 0 ] || bad="$bad core dumps"
tell limits "$bad"
"""
)
INSIDE = (
    *("host-files", "capabilities", "no-new-privileges", "seccomp", "user", "network"),
    *("namespaces", "read-only", "writable", "kernel", "processes", "environment"),
    *("descriptors", "limits"),
)


@contextmanager
def planted(uid: int | None) -> Iterator[SandboxSpec]:
    """Set the traps; the sandbox to start. All is taken away afterwards. Raises ``OSError``."""
    folder = Path(tempfile.mkdtemp(prefix="openclawmu-proof-"))
    leaked, far = os.pipe()
    try:
        secret, workspace = folder / "secret", folder / "workspace"
        folder.chmod(0o755)
        secret.write_text("planted")
        secret.chmod(0o644)
        workspace.mkdir(mode=0o700)
        if uid is not None:
            os.chown(workspace, uid, uid)
        os.environ[_CANARY] = "planted"
        os.set_inheritable(leaked, True)  # noqa: FBT003 - Python's own signature
        seal_inherited_descriptors()
        descriptor = os.open(workspace, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            command = ("/bin/sh", "-c", SCRIPT, "probe", str(secret), _CANARY, str(_OPEN_FILES))
            yield SandboxSpec(
                group="self-test",
                workspace=descriptor,
                command=command,
                limits=Limits(open_files=_OPEN_FILES),
            )
        finally:
            os.close(descriptor)
    finally:
        os.environ.pop(_CANARY, None)
        os.close(leaked)
        os.close(far)
        shutil.rmtree(folder, ignore_errors=True)


def look_from_outside(pid: int | None, uid: int, join_files: Sequence[str]) -> Sequence[Probe]:
    """Who the sandbox is on the host, and whether its group holds it. It must still wait."""
    found = _status_field(pid, "Uid")
    is_user = found.split() == [str(uid)] * 4 and uid != 0
    probes = [Probe("host-user", is_user, "" if is_user else f"it is {found or 'gone'}")]
    for path in join_files:
        members = Path(path).read_text().split()
        is_member = str(pid) in members
        probes.append(Probe("group", is_member, "" if is_member else f"it is not in {path}"))
    return probes


def _status_field(pid: int | None, name: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), "")


async def read_report(sandbox: Sandbox) -> Sequence[Probe]:
    """What was found inside; what was not reported has failed."""
    report = b""
    with trio.move_on_after(_TIMEOUT):
        await sandbox.input.aclose()
        async for chunk in sandbox.output:
            report += chunk
            if len(report) > _LONGEST_REPORT:
                break
        await sandbox.wait()
    return parse_report(report.decode(errors="replace"))


def parse_report(report: str) -> Sequence[Probe]:
    said = dict(line.split("\t", 1) for line in report.splitlines() if "\t" in line)
    return [
        Probe(name, said.get(name) == "", said.get(name, "nothing was reported").strip())
        for name in INSIDE
    ]


def judge(probes: Sequence[Probe]) -> str:
    """The problem; "" if everything was tried and the isolation holds."""
    untried = set(INSIDE) - {probe.name for probe in probes}
    failed = [f"{probe.name} ({probe.detail})" for probe in probes if not probe.passed]
    failed += [f"{name} (not tried)" for name in sorted(untried)]
    if not failed:
        return ""
    return (
        f"the sandbox does not isolate: {', '.join(failed)}; nothing is run in it."
        " Install the distribution's newest bubblewrap, or choose Podman with sandbox.backend"
    )


def explain(diagnosis: str, *, proc: Path = Path("/proc")) -> str:
    """What keeps a sandbox from starting, as the program that failed said it, and a remedy."""
    return f"a sandbox cannot be started: {_last_line(diagnosis)}; {_remedy(diagnosis, proc)}"


def _last_line(diagnosis: str) -> str:
    return next(iter(reversed(diagnosis.strip().splitlines())), "no reason was given")


def _remedy(diagnosis: str, proc: Path) -> str:
    if "Unknown option" in diagnosis or "Unknown argument" in diagnosis:
        return "bubblewrap is too old: it must know --bind-fd (0.8.0-2+deb12u1, or 0.10)"
    if "setpriv" in diagnosis:
        return (
            "a gateway that runs as root needs CAP_SETUID and CAP_SETGID; better run it as an"
            " ordinary user"
        )
    if "mount proc" in diagnosis:
        return "something is mounted below /proc here, as in most containers; run outside of it"
    if "Resource temporarily unavailable" in diagnosis:
        return "too many processes: raise LimitNPROC or TasksMax of the gateway's unit"
    if _setting(proc, "sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces here: install the profile of this package for"
            " bwrap, or set kernel.apparmor_restrict_unprivileged_userns to 0"
        )
    if _setting(proc, "sys/kernel/unprivileged_userns_clone") == "0":
        return "set kernel.unprivileged_userns_clone to 1 with sysctl"
    if _setting(proc, "sys/user/max_user_namespaces") == "0":
        return "user namespaces are switched off: raise user.max_user_namespaces with sysctl"
    return (
        "sandboxes need user, mount and network namespaces: the container or unit that the gateway"
        " runs in may forbid them (RestrictNamespaces, ProtectKernelTunables, a seccomp profile)"
    )


def _setting(proc: Path, name: str) -> str:
    try:
        return (proc / name).read_text().strip()
    except OSError:
        return ""
