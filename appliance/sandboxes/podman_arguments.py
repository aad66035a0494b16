"""The command line of a container: a specification and paths in, arguments out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import (
    EGRESS_CERTIFICATES,
    EGRESS_SOCKET,
    WORKSPACE,
    Access,
    Bind,
    SandboxSpec,
)
from appliance.sandboxes.bubblewrap_arguments import HiddenName
from appliance.sandboxes.commands import Command

INNER_UID = 1000  # where user namespaces are there to make it so
LABEL = "openclawmu"
_RUN_BYTES = 1024 * 1024
_HIDDEN_BYTES = 4096
_LOCKED_BYTES = 64 * 1024

# It looks for the program on the PATH inside, and says 127 if there is none.
_INSIDE = 'cd "$1" || exit 125; shift; unset OLDPWD; exec "$@"'
# catatonit starts us with the signals of job control blocked (seen with 0.1.7), and only
# GNU's env can change that. Without it a shell works, but Ctrl-Z does not.
_JOB_CONTROL = (
    "signals=--default-signal=TSTP,TTIN,TTOU;"
    ' if env "$signals" true 2>/dev/null; then exec env "$signals" /bin/sh -c "$0" sandbox "$@";'
    ' else exec /bin/sh -c "$0" sandbox "$@"; fi'
)


class Engine(StrEnum):
    PODMAN = "podman"
    DOCKER = "docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What a container needs besides the specification. Paths are of the host."""

    name: str
    owner: str  # the state directory's mark, by which leftovers are found
    image: str
    workspace: str
    seccomp: str
    variables: str  # a file with a line for each variable
    uid: int | None  # who it is on the host; None: who we are
    runtime_parent: str = ""
    certificates: str | None = None
    hidden: Sequence[HiddenName] = ()
    processes: int = 4096  # what we may ask for at most


def create(
    spec: SandboxSpec, command: Command, container: Container, *, engine: Engine
) -> list[str | bytes]:
    """The arguments after the name of the program and its own options."""
    return [
        "create",
        *_identity(container, engine),
        *_isolation(container, engine),
        *_limits(spec, container, engine),
        *_file_system(spec, container, engine),
        *_terminal(spec),
        *("--env-file", container.variables),
        *_inline_variables(command),
        # A runtime would make a directory that is missing, as root and in the workspace.
        *("--workdir", "/", "--entrypoint", "/bin/sh"),
        container.image,
        *(("-c", _INSIDE, "sandbox") if spec.terminal is None else ("-c", _JOB_CONTROL, _INSIDE)),
        command.directory,
        *command.arguments,
    ]


def variable_lines(command: Command) -> bytes:
    """The file of variables, which no process list shows."""
    return b"".join(
        b"%s=%s\n" % pair for pair in command.environment.items() if not _has_line_end(pair[1])
    )


def _inline_variables(command: Command) -> Iterator[str | bytes]:
    # The file has no way to write a line end.
    for name, value in command.environment.items():
        if _has_line_end(value):
            yield b"--env=%s=%s" % (name, value)


def _has_line_end(value: bytes) -> bool:
    return b"\n" in value or b"\r" in value


def _identity(container: Container, engine: Engine) -> Iterator[str]:
    yield from ("--name", container.name, "--label", f"{LABEL}={container.owner}")
    yield from ("--hostname", "sandbox", "--pull=never", "--log-driver=none")
    # A process 1 that reaps orphans and hands signals on, which nobody else may ignore.
    yield "--init"
    if engine is Engine.PODMAN:
        yield from ("--no-healthcheck", "--systemd=false", "--http-proxy=false", "--unsetenv-all")
    else:
        yield "--no-healthcheck"


def _isolation(container: Container, engine: Engine) -> Iterator[str]:
    yield from ("--network=none", "--ipc=private", "--cgroupns=private")
    if container.uid is not None:
        yield f"--user={container.uid}:{container.uid}"
    elif engine is Engine.PODMAN:
        # Nobody but us exists inside, and our files are those of user 1000.
        yield f"--userns=keep-id:uid={INNER_UID},gid={INNER_UID}"
        yield f"--user={INNER_UID}:{INNER_UID}"
    else:
        yield f"--user={INNER_UID}:{INNER_UID}"
    yield from ("--cap-drop=ALL", "--security-opt=no-new-privileges")
    yield f"--security-opt=seccomp={container.seccomp}"
    # Labels of SELinux would keep it from a workspace that is not labelled for containers.
    yield "--security-opt=label=disable"
    if engine is Engine.PODMAN:
        yield "--security-opt=mask=/sys/fs/cgroup:/proc/key-users:/proc/kallsyms"


def _limits(spec: SandboxSpec, container: Container, engine: Engine) -> Iterator[str]:
    limits = spec.limits
    if limits.memory_bytes is not None:
        yield from (f"--memory={limits.memory_bytes}b", f"--memory-swap={limits.memory_bytes}b")
    yield f"--pids-limit={-1 if limits.pids is None else limits.pids + 1}"  # process 1 counts
    if limits.cpu_percent is not None:
        yield f"--cpus={limits.cpu_percent / 100:.2f}"
    if container.runtime_parent and engine is Engine.PODMAN:
        yield f"--cgroup-parent={container.runtime_parent}"
    yield f"--ulimit=nofile={limits.open_files}:{limits.open_files}"
    yield from ("--ulimit=core=0:0", f"--ulimit=memlock={_LOCKED_BYTES}:{_LOCKED_BYTES}")
    # Counted for the user on the whole host, so it is no limit for one sandbox. Without it
    # a runtime asks for more than we may have ourselves, and fails.
    yield f"--ulimit=nproc={container.processes}:{container.processes}"
    if limits.file_bytes is not None:
        yield f"--ulimit=fsize={limits.file_bytes}:{limits.file_bytes}"


def _file_system(spec: SandboxSpec, container: Container, engine: Engine) -> Iterator[str]:
    scratch = spec.limits.scratch_bytes
    yield "--read-only"
    if engine is Engine.PODMAN:
        yield from ("--read-only-tmpfs=false", "--image-volume=ignore")
    yield from _tmpfs("/tmp", scratch, "mode=1777", engine)  # noqa: S108 - inside
    yield from _tmpfs("/run", _RUN_BYTES, "mode=755", engine)
    yield f"--shm-size={scratch}b"
    if spec.access is Access.NONE:
        yield from _tmpfs(WORKSPACE, scratch, "mode=1777", engine)
    else:
        is_writable = spec.access is Access.WRITE
        yield from _mount(container.workspace, WORKSPACE, is_writable=is_writable)
        for hidden in container.hidden:
            yield from _hide(hidden, engine)
    for bind in spec.binds:
        yield from _bind(bind)
    if spec.egress is not None:
        yield from _mount(spec.egress.path, EGRESS_SOCKET, is_writable=False)
        if container.certificates is not None:
            yield from _mount(container.certificates, EGRESS_CERTIFICATES, is_writable=False)


def _terminal(spec: SandboxSpec) -> Iterator[str]:
    yield "--interactive"
    if spec.terminal is not None:
        yield "--tty"


def _tmpfs(path: str, size: int, options: str, engine: Engine) -> Iterator[str]:
    # Podman would fill it with what it is to hide.
    empty = ",notmpcopyup" if engine is Engine.PODMAN else ""
    yield from ("--tmpfs", f"{path}:{options},nosuid,nodev,size={size}{empty}")


def _hide(hidden: HiddenName, engine: Engine) -> Iterator[str]:
    path = f"{WORKSPACE}/{hidden.name}"
    if hidden.is_directory:
        _refuse_separators("hidden", path)
        yield from _tmpfs(path, _HIDDEN_BYTES, "ro,mode=555", engine)
    else:
        yield from _mount("/dev/null", path, is_writable=False)


def _bind(bind: Bind) -> Iterator[str]:
    yield from _mount(bind.source, bind.target, is_writable=bind.is_writable)


def _mount(source: str, target: str, *, is_writable: bool) -> Iterator[str]:
    for path in (source, target):
        _refuse_separators("binds", path)
    yield "--mount"
    yield f"type=bind,source={source},destination={target}" + ("" if is_writable else ",readonly")


def _refuse_separators(field: str, path: str) -> None:
    """They would end the path and begin an option."""
    if any(char in path for char in ',:"\n'):
        raise InvalidRequest.at(field, f"a container cannot be shown {path!r}", "rename it")
