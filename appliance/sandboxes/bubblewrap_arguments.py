"""The command line of one sandbox: a specification and numbers of descriptors in, bytes out.

``docs/sandbox.md`` says what each argument is for. Everything but the command
goes to bwrap through a descriptor: paths of the host and values of variables
are neither in ``ps`` nor in ``/proc/1/cmdline``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from appliance.sandboxes import seccomp
from appliance.sandboxes.base import (
    EGRESS_CERTIFICATES,
    EGRESS_SOCKET,
    MIB,
    WORKSPACE,
    Access,
    Bind,
    EgressDoor,
    SandboxSpec,
)
from appliance.sandboxes.commands import USER, Command
from appliance.sandboxes.host_layout import HostLayout, Programs
from appliance.sandboxes.launcher import (
    MOUNTED_EGRESS,
    MOUNTED_WORKSPACE,
    SHELL,
    Descriptor,
    Identity,
    inside,
    launcher,
)

UID = 1000  # inside
_RUN_BYTES = 4 * MIB

_ETC: Mapping[str, bytes] = {
    "passwd": (
        f"root:x:0:0:root:/:/usr/sbin/nologin\n{USER}:x:{UID}:{UID}::{WORKSPACE}:/bin/bash\n"
        "nobody:x:65534:65534::/:/usr/sbin/nologin\n"
    ).encode(),
    "group": f"root:x:0:\n{USER}:x:{UID}:\nnogroup:x:65534:\n".encode(),
    "hosts": b"127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": b"# There are no names here: the egress proxy looks them up.\n",
    "profile": b"PS1='\\u@\\h:\\w\\$ '\n",
}

_Argument = str | bytes | int


@dataclass(frozen=True, slots=True)
class HiddenName:
    """Something that is there in the workspace and shall not be seen."""

    name: str
    is_directory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What has to be started, and with which descriptors."""

    argv: Sequence[str | bytes]
    arguments: bytes  # what Descriptor.ARGUMENTS holds
    files: Mapping[int, bytes]  # contents of further descriptors; the same for many sandboxes
    descriptors: Mapping[int, int]  # those of the specification, by their number in the launcher


def build(
    spec: SandboxSpec,
    command: Command,
    *,
    programs: Programs,
    layout: HostLayout,
    hidden: Sequence[HiddenName] = (),
    uid: int | None = None,
    join_files: Sequence[str] = (),
) -> Invocation:
    """``hidden`` is what of ``spec.hidden`` exists; ``uid`` whom root shall become."""
    shows_workspace = spec.access is not Access.NONE
    identity = uid and Identity(
        uid=uid,
        mounts_workspace=shows_workspace,
        egress_path=spec.egress.path if spec.egress else None,
    )
    options = _options(spec, command, layout, hidden, is_mounted=bool(identity))
    start = launcher(
        programs, layout, spec.limits, identity=identity or None, join_files=join_files
    )
    first = inside(has_terminal=spec.terminal is not None)
    return Invocation(
        argv=[
            *start,
            *(programs.bwrap, "--args", str(Descriptor.ARGUMENTS.value), "--"),
            *(SHELL, "-c", first, "sandbox", command.directory),
            *command.arguments,
        ],
        arguments=b"\0".join(map(_bytes, options)),
        files=_files(spec.egress, layout),
        descriptors={
            **({Descriptor.WORKSPACE: spec.workspace} if shows_workspace else {}),
            **({Descriptor.EGRESS: spec.egress.socket} if spec.egress and not identity else {}),
        },
    )


def _bytes(argument: _Argument) -> bytes:
    if isinstance(argument, int):
        return b"%d" % argument
    return argument if isinstance(argument, bytes) else argument.encode()


def _files(egress: EgressDoor | None, layout: HostLayout) -> dict[int, bytes]:
    files = {Descriptor.FIRST_FILE + place: text for place, text in enumerate(_ETC.values())}
    files[Descriptor.SECCOMP] = seccomp.program_bytes(layout.architecture)
    if egress is not None and egress.certificates:
        # Programs take one bundle: it has the system's authorities as well.
        files[Descriptor.CERTIFICATES] = (
            layout.certificates.rstrip() + b"\n" + egress.certificates.encode()
        )
    return files


def _options(
    spec: SandboxSpec,
    command: Command,
    layout: HostLayout,
    hidden: Sequence[HiddenName],
    *,
    is_mounted: bool,
) -> Iterator[_Argument]:
    yield from _isolation()
    yield from _system(layout)
    yield from _proc(layout)
    yield from _scratch(spec.limits.scratch_bytes)
    yield from _workspace(spec, is_mounted=is_mounted)
    if spec.access is not Access.NONE:
        for each in hidden:
            yield from _hide(each)
    for bind in spec.binds:
        yield from _bind(bind)
    if spec.egress is not None:
        yield from _egress(spec.egress, is_mounted=is_mounted)
    # Last of the mounts: bwrap makes mount points in / until then.
    yield from ("--remount-ro", "/", "--chdir", "/", "--clearenv")
    for name, value in command.environment.items():
        yield from ("--setenv", name, value)
    yield from ("--seccomp", Descriptor.SECCOMP, "--json-status-fd", Descriptor.STATUS)


def _isolation() -> Iterator[_Argument]:
    # Named besides --unshare-all, which would go on without it.
    yield from ("--unshare-user", "--unshare-all", "--disable-userns")
    yield from ("--uid", UID, "--gid", UID, "--hostname", "sandbox")
    yield from ("--die-with-parent", "--new-session", "--cap-drop", "ALL")


def _system(layout: HostLayout) -> Iterator[_Argument]:
    yield from ("--ro-bind", "/usr", "/usr")
    for target, path in layout.links:
        yield from ("--symlink", target, path)
    for path in layout.folders:
        yield from ("--ro-bind", path, path)
    # bwrap makes parents with 0700.
    yield from ("--perms", "0755", "--dir", "/etc")
    for parent in sorted({path.rpartition("/")[0] for path in layout.etc} - {"/etc"}):
        above = parent.removeprefix("/etc/").split("/")
        for depth in range(1, len(above) + 1):
            yield from ("--perms", "0755", "--dir", "/".join(("/etc", *above[:depth])))
    for path in layout.etc:
        yield from ("--ro-bind-try", path, path)
    for place, name in enumerate(_ETC):
        yield from ("--perms", "0444", "--file", Descriptor.FIRST_FILE + place, f"/etc/{name}")


def _proc(layout: HostLayout) -> Iterator[_Argument]:
    # Settings of the sandbox's own IPC namespace could be written otherwise.
    yield from ("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys")
    for path in layout.masked:
        yield from ("--ro-bind", "/dev/null", path)


def _scratch(size: int) -> Iterator[_Argument]:
    yield from ("--dev", "/dev", *_tmpfs("/dev/shm", "1777", size), "--remount-ro", "/dev")  # noqa: S108 - the sandbox's own
    yield from _tmpfs("/tmp", "1777", size)  # noqa: S108 - the sandbox's own
    yield from _tmpfs("/run", "0755", _RUN_BYTES)
    yield from ("--perms", "0755", "--dir", "/var")
    yield from ("--symlink", "../tmp", "/var/tmp", "--symlink", "../run", "/var/run")  # noqa: S108 - the sandbox's own


def _tmpfs(path: str, mode: str, size: int) -> tuple[_Argument, ...]:
    # Without a size it may grow to half of the machine's memory.
    return ("--perms", mode, "--size", size, "--tmpfs", path)


def _workspace(spec: SandboxSpec, *, is_mounted: bool) -> Iterator[_Argument]:
    if spec.access is Access.NONE:
        yield from _tmpfs(WORKSPACE, "0700", spec.limits.scratch_bytes)
        return
    option = "--bind" if spec.access is Access.WRITE else "--ro-bind"
    if is_mounted:
        yield from (option, MOUNTED_WORKSPACE, WORKSPACE)
    else:
        # bwrap compares what it has mounted with what the descriptor is: no swapped link.
        yield from (f"{option}-fd", Descriptor.WORKSPACE, WORKSPACE)


def _hide(hidden: HiddenName) -> Iterator[_Argument]:
    path = f"{WORKSPACE}/{hidden.name}"
    if hidden.is_directory:
        yield from (*_tmpfs(path, "0555", 4096), "--remount-ro", path)
    else:
        yield from ("--ro-bind", "/dev/null", path)


def _bind(bind: Bind) -> Iterator[_Argument]:
    yield from ("--bind" if bind.is_writable else "--ro-bind", bind.source, bind.target)


def _egress(door: EgressDoor, *, is_mounted: bool) -> Iterator[_Argument]:
    if is_mounted:
        yield from ("--ro-bind", MOUNTED_EGRESS, EGRESS_SOCKET)
    else:
        yield from ("--ro-bind-fd", Descriptor.EGRESS, EGRESS_SOCKET)
    if door.certificates:
        yield from ("--perms", "0444", "--file", Descriptor.CERTIFICATES, EGRESS_CERTIFICATES)
