"""The shell text that turns into a sandbox, one ``exec`` after another.

Two texts run on the host, one inside. They are made of numbers and of constants;
what comes from outside goes through "$@". Nothing of the environment is passed
on: bwrap is process 1 inside, and there its environment can be read.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from appliance.sandboxes.base import Limits
from appliance.sandboxes.host_layout import HostLayout, Programs

SHELL = "/bin/sh"
MOUNT_POINT = "/run/openclawmu-sandbox"  # only in mount namespaces of the launcher's own
MOUNTED_WORKSPACE = f"{MOUNT_POINT}/workspace"
MOUNTED_EGRESS = f"{MOUNT_POINT}/egress.sock"

# What the kernel counts for a user on the host, and so for all sandboxes together.
INOTIFY_INSTANCES = 64
INOTIFY_WATCHES = 16_384
LOCKED_BYTES = 64 * 1024
# The gateway is worth more than what it runs: the kernel shall kill that first.
OUT_OF_MEMORY_SCORE = 500

FAILED = 125  # of a step of the launcher, as env, timeout and docker use it
GO = b"go\n"
NO_DIRECTORY = b"no directory\n"


class Descriptor(IntEnum):
    """Numbers in the launcher. The shell can name only those of one digit."""

    HANDSHAKE = 3  # a socket: the gateway learns that the sandbox stands, and lets it go
    STATUS = 4  # bwrap's status, lines of JSON
    ARGUMENTS = 5  # bwrap's arguments
    SECCOMP = 6
    WORKSPACE = 7
    EGRESS = 8
    # The other end of the status. Without it bwrap would end on SIGPIPE when the gateway
    # has ended, and leave a process 1 that waits for it for ever.
    STATUS_READER = 9
    CERTIFICATES = 10
    FIRST_FILE = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the sandbox is on the host, if that is not who the gateway is (root).

    That user cannot walk to a workspace in the gateway's own directories. So it
    is mounted first, by root, where everybody can go, in a mount namespace that
    ends with the sandbox.
    """

    uid: int
    mounts_workspace: bool
    egress_path: str | None


def launcher(
    programs: Programs,
    layout: HostLayout,
    limits: Limits,
    *,
    identity: Identity | None,
    join_files: Sequence[str],
) -> list[str | bytes]:
    """The start of a command line, to be followed by that of bwrap."""
    text = "\n".join(_outer(programs, layout, limits, identity, is_grouped=bool(join_files)))
    egress = [identity.egress_path] if identity and identity.egress_path else []
    return [SHELL, "-c", text, "sandbox", *join_files, "--", *egress]


def _outer(
    programs: Programs,
    layout: HostLayout,
    limits: Limits,
    identity: Identity | None,
    *,
    is_grouped: bool,
) -> Iterator[str]:
    # First of all, so that everything later is born in the group.
    yield f'while [ "$1" != -- ]; do echo 0 >"$1" || exit {FAILED}; shift; done; shift'
    yield f"echo {OUT_OF_MEMORY_SCORE} >/proc/self/oom_score_adj"
    # Here and not inside, so that bwrap has them as well: process 1 can be made to run
    # other code by whoever is inside.
    yield from _rlimits(layout, limits, is_grouped=is_grouped)
    inner = shlex.quote("\n".join(_namespace(layout, limits)))
    apart = f'exec {programs.unshare} -Ur {SHELL} -c {inner} sandbox "$@"'
    if identity is None:
        yield "cd /; umask 077; unset PWD OLDPWD"
        yield apart
        return
    become = f"{programs.setpriv} --reuid={identity.uid} --regid={identity.uid} --clear-groups"
    apart = apart.replace("exec ", f"exec {become} --inh-caps=-all --no-new-privs -- ", 1)
    steps = "\n".join((*_mounts(programs, identity), "cd /; umask 077; unset PWD OLDPWD", apart))
    if identity.mounts_workspace:
        yield f"cd /proc/self/fd/{Descriptor.WORKSPACE} || exit {FAILED}"
    yield "unset PWD OLDPWD"
    yield f'exec {programs.unshare} -m {SHELL} -c {shlex.quote(steps)} sandbox "$@"'


def _mounts(programs: Programs, identity: Identity) -> Iterator[str]:
    # A descriptor belongs to the mount namespace it was opened in and cannot be mounted
    # from; the working directory has come along. So no name is looked up.
    bind = f"{programs.mount} -n -c --bind"
    if identity.mounts_workspace:
        yield f"{bind} . {MOUNTED_WORKSPACE} || exit {FAILED}"
        # It is of the host's mounts, and ".." leads on from it.
        yield f"exec {Descriptor.WORKSPACE}<&-"
    if identity.egress_path:
        yield f'{bind} "$1" {MOUNTED_EGRESS} || exit {FAILED}; shift'


def _rlimits(layout: HostLayout, limits: Limits, *, is_grouped: bool) -> Iterator[str]:
    within = layout.within
    yield f"ulimit -c 0; ulimit -r 0; ulimit -l {within('memlock', LOCKED_BYTES) // 1024}"
    yield f"ulimit -n {within('nofile', limits.open_files)} || exit {FAILED}"
    if limits.file_bytes is not None:
        yield f"ulimit -f {within('fsize', limits.file_bytes) // 512} || exit {FAILED}"
    if limits.memory_bytes is not None and not is_grouped:
        # Of one process; better than nothing. Not -v: runtimes reserve what they never use.
        yield f"ulimit -d {within('data', limits.memory_bytes) // 1024} || exit {FAILED}"


def _namespace(layout: HostLayout, limits: Limits) -> Iterator[str]:
    """In a user namespace of its own: what is counted for a user is counted for this one."""
    settings = "/proc/sys/user/max_inotify_"
    yield f"echo {INOTIFY_INSTANCES} >{settings}instances || exit {FAILED}"
    yield f"echo {INOTIFY_WATCHES} >{settings}watches || exit {FAILED}"
    if limits.pids is not None and layout.counts_processes:
        pids = layout.within("nproc", limits.pids)
        # dash calls it -p, bash -u.
        yield f"ulimit -u {pids} 2>/dev/null || ulimit -p {pids} || exit {FAILED}"
    yield "unset PWD OLDPWD"
    yield 'exec "$@"'


@cache
def inside(*, has_terminal: bool) -> str:
    """What runs first in the sandbox; "$1" is the directory, the rest the command.

    It says its process id as it is seen inside; the kernel adds the one seen
    outside. The command does not start before the gateway has taken hold of
    both, and never if the gateway is gone.
    """
    handshake = Descriptor.HANDSHAKE
    lines = [
        f'cd "$1" 2>/dev/null || {{ echo no directory >&{handshake}; exit {FAILED}; }}',
        f'echo "$$" >&{handshake} && read -r sandbox_go <&{handshake} || exit {FAILED}',
        f"exec {handshake}>&- {Descriptor.STATUS_READER}<&-",
        "shift; unset sandbox_go OLDPWD",
        'exec "$@"',
    ]
    if has_terminal:
        # A session of the command's own, with the terminal as its controlling one. The
        # foreground is then the command alone, and not bwrap, which would end with the
        # first Ctrl-C. Nothing forks here: the process id stays.
        lines[-1] = 'exec setsid -c -- "$@"'
    return "\n".join(lines)
