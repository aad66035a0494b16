"""What of this host a sandbox is built from; read once, when the gateway starts."""

import platform
import re
import resource
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.sandboxes.base import SandboxUnavailable
from appliance.sandboxes.seccomp_tables import Architecture

# Where programs of the system are; the gateway's own PATH is whatever its starter had.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"

_PROGRAM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Public, and needed: which alternative is chosen, where libraries are, which authorities
# are trusted, what time it is. Nothing else of the host's /etc is anyone's business.
_SHOWN_ETC = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
)
# Of the machine and not of the sandbox's own processes.
_MASKED_PROC = (
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
)
_CERTIFICATES = ("etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt")
_RLIMITS = {
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
}
# Since then RLIMIT_NPROC counts within a user namespace; before, it counted the whole
# host's processes of the user, and a limit for one sandbox would have been one for all.
_NPROC_PER_NAMESPACE = (5, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The host's programs that start a sandbox, by absolute path."""

    bwrap: str
    unshare: str
    setpriv: str
    mount: str

    @classmethod
    def find(cls) -> "Programs":
        """Raises :exc:`SandboxUnavailable` that says what to install."""
        return cls(
            bwrap=_find("bwrap", "bubblewrap"),
            unshare=_find("unshare", "util-linux"),
            setpriv=_find("setpriv", "util-linux"),
            mount=_find("mount", "mount"),
        )


def _find(program: str, package: str) -> str:
    found = shutil.which(program, path=SYSTEM_PATH)
    if found is None:
        raise SandboxUnavailable(
            f"the program {program} is not installed; on Debian: apt install {package}"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLayout:
    architecture: Architecture
    links: Sequence[tuple[str, str]]  # target and path: usr/lib, /lib
    folders: Sequence[str]  # of programs that are no links, where /usr is not merged
    etc: Sequence[str]
    masked: Sequence[str]
    certificates: bytes  # of the authorities the system trusts, PEM
    hard_limits: Mapping[str, int]  # of this process, which nobody can raise; no entry: none
    counts_processes: bool  # RLIMIT_NPROC can be used

    @classmethod
    def read(cls, root: Path = Path("/"), *, proc: Path = Path("/proc")) -> "HostLayout":
        """Raises :exc:`SandboxUnavailable` on an architecture without a filter."""
        folders = [root / name for name in _PROGRAM_FOLDERS]
        return cls(
            architecture=_architecture(platform.machine()),
            links=[
                (str(folder.readlink()).lstrip("/"), f"/{folder.name}")
                for folder in folders
                if folder.is_symlink()
            ],
            folders=[
                f"/{folder.name}"
                for folder in folders
                if folder.is_dir() and not folder.is_symlink()
            ],
            etc=[path for path in _SHOWN_ETC if (root / path.lstrip("/")).exists()],
            masked=[path for path in _MASKED_PROC if (proc / path.removeprefix("/proc/")).exists()],
            certificates=_read_first(root / name for name in _CERTIFICATES),
            hard_limits=_hard_limits(),
            counts_processes=_release(platform.release()) >= _NPROC_PER_NAMESPACE,
        )

    def within(self, name: str, value: int) -> int:
        """``value``, or what this process itself may have if that is less."""
        return min(value, self.hard_limits.get(name, value))


def _architecture(machine: str) -> Architecture:
    try:
        return Architecture(machine)
    except ValueError:
        known = ", ".join(each.value for each in Architecture)
        raise SandboxUnavailable(
            f"there is no filter of system calls for {machine}, only for {known}"
        ) from None


def _read_first(paths: Iterable[Path]) -> bytes:
    for path in paths:
        try:
            return path.read_bytes()
        except OSError:
            continue
    return b""


def _hard_limits() -> Mapping[str, int]:
    limits = {name: resource.getrlimit(number)[1] for name, number in _RLIMITS.items()}
    return {name: hard for name, hard in limits.items() if hard != resource.RLIM_INFINITY}


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
