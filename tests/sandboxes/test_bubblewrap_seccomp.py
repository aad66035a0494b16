"""The filter of system calls, live: the same calls in bwrap with and without it."""

import errno
import os
import platform
import subprocess
from pathlib import Path

import pytest

from appliance.sandboxes.host_layout import HostLayout, Programs
from appliance.sandboxes.seccomp import program_bytes
from appliance.sandboxes.seccomp_tables import NUMBERS, Architecture
from tests.sandboxes.workshop import HAS_BWRAP, IS_ROOT, NO_BWRAP, UID, opened

PERL = Path("/usr/bin/perl")  # the one program of a minimal Debian that can make any call
pytestmark = [
    pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP),
    pytest.mark.skipif(not PERL.exists(), reason="needs perl"),
]
ALL = 0xFFFFFFFF

# Name and arguments; all are harmless without the filter, most for want of a valid argument.
REFUSED: dict[str, list[tuple[int, ...]]] = {
    "mount": [(0, 0, 0, 0, 0)],
    "umount2": [(0, 0)],
    "pivot_root": [(0, 0)],
    "chroot": [(0,)],
    "unshare": [(0,), (0x10000000,)],
    "setns": [(-1, 0)],
    "ptrace": [(0x4206, 999999, 0, 0)],
    "keyctl": [(0, 0, 0)],
    "add_key": [(0, 0, 0, 0, 0)],
    "request_key": [(0, 0, 0, 0)],
    "bpf": [(0, 0, 0)],
    "perf_event_open": [(0, 0, -1, -1, 0)],
    "userfaultfd": [(0xFFFF,)],
    "open_by_handle_at": [(-1, 0, 0)],
    "name_to_handle_at": [(-1, 0, 0, 0, 0)],
    "kexec_load": [(0, 0, 0, 0xFFFF)],
    "kexec_file_load": [(-1, -1, 0, 0, 0xFFFF)],
    "init_module": [(0, 0, 0)],
    "finit_module": [(-1, 0, 0xFFFF)],
    "delete_module": [(0, 0)],
    "iopl": [(4,)],
    "ioperm": [(0, 0, 1)],
    "reboot": [(0, 0, 0)],
    "swapon": [(0, 0)],
    "acct": [(1,)],
    "quotactl": [(0, 0, 0, 0)],
    "syslog": [(99, 0, 0)],
    "settimeofday": [(1, 0)],
    "clock_settime": [(99, 0)],
    "sethostname": [(1, 0)],
    "vhangup": [()],
    "modify_ldt": [(99, 0, 0)],
    "process_vm_readv": [(999999, 0, 0, 0, 0, 1)],
    "process_vm_writev": [(999999, 0, 0, 0, 0, 1)],
    "kcmp": [(999999, 999999, 99, 0, 0)],
    "fanotify_init": [(ALL, 0)],
    "move_pages": [(0, 0, 0, 0, 0, 0xFF)],
    "mbind": [(1, 1, 9, 0, 0, 0)],
    "set_mempolicy": [(9, 0, 0)],
    "personality": [(0x0040000,)],
    "uselib": [(0,)],
    "lookup_dcookie": [(0, 0, 0)],
    "adjtimex": [(0,)],
    "ioctl": [(99, 0x5412, 0), (99, 0x5412 | 1 << 32, 0), (99, 0x541C, 0)],
    "clone": [(0x10000000 | 0x200, 0, 0, 0, 0), (0x20000 | 0x200, 0, 0, 0, 0)],
    "chmod": [(0, 0o4755)],
    "fchmodat": [(-1, 0, 0o2755)],
    "mknod": [(0, 0o020666, 0x103)],
    "prctl": [(35, 99)],
}
ABSENT: dict[str, list[tuple[int, ...]]] = {
    "io_uring_setup": [(0, 0)],
    "io_uring_enter": [(-1, 0, 0, 0)],
    "io_uring_register": [(-1, 0, 0, 0)],
    "clone3": [(0, 0)],
    "pidfd_getfd": [(-1, 0, 0)],
    "fsopen": [(0, 0xFF)],
    "fsmount": [(-1, 0, 0)],
    "move_mount": [(-1, 0, -1, 0, ALL)],
    "open_tree": [(-1, 0, ALL)],
    "mount_setattr": [(-1, 0, 0xFFFF, 0, 0)],
    "memfd_secret": [(0xFF,)],
    "io_setup": [(0, 0)],
    "openat2": [(-1, 0, 0, 0)],
    "statmount": [(0, 0, 0, 0xFF)],
}
NO_FAMILY = [(38, 5, 0), (40, 1, 0), (17, 3, 0), (44, 3, 0)]  # of crypto, VSOCK, packets, XDP
NO_PROTOCOL = [(16, 3, 12), (2, 3, 255), (2, 1, 262)]
UNTOUCHED: dict[str, list[tuple[int, ...]]] = {
    "getppid": [()],
    "socket": [(1, 1, 0), (2, 1, 0), (16, 3, 0)],
    "memfd_create": [(0, 0)],
    "ioctl": [(99, 0x5401, 0)],
    "statx": [(-1, 0, 0, 0, 0)],
    "umask": [(0o22,)],
}

Call = tuple[str, tuple[int, ...]]

# One line each: the error's number, 0 for none.
SCRIPT = """
$| = 1;
for (@ARGV) {
  my @call = map { $_ + 0 } split /,/;
  $! = 0;
  my $result = syscall(shift @call, @call);
  print $result == -1 ? $! + 0 : 0, "\\n";
}
"""


def calls(table: dict[str, list[tuple[int, ...]]]) -> list[Call]:
    return [(name, arguments) for name, several in table.items() for arguments in several]


def expectations() -> dict[Call, int | None]:
    """None: as without the filter."""
    expected: dict[Call, int | None] = dict.fromkeys(calls(REFUSED), errno.EPERM)
    expected |= dict.fromkeys(calls(ABSENT), errno.ENOSYS)
    expected |= {("socket", each): errno.EAFNOSUPPORT for each in NO_FAMILY}
    expected |= {("socket", each): errno.EPROTONOSUPPORT for each in NO_PROTOCOL}
    expected |= dict.fromkeys(calls(UNTOUCHED), None)
    numbers = NUMBERS[Architecture(platform.machine())]
    return {call: error for call, error in expected.items() if call[0] in numbers}


def command(made: list[Call]) -> list[str]:
    numbers = NUMBERS[Architecture(platform.machine())]
    texts = [",".join(map(str, (numbers[name], *arguments))) for name, arguments in made]
    return [str(PERL), "-e", SCRIPT, *texts]


def in_plain_bwrap(made: list[Call], program: bytes | None) -> list[int]:
    layout, programs = HostLayout.read(), Programs.find()
    options = ["--unshare-all", "--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]
    for target, path in layout.links:
        options += ["--symlink", target, path]
    for path in layout.folders:
        options += ["--ro-bind", path, path]
    options += ["--proc", "/proc", "--dev", "/dev", "--die-with-parent"]
    become = [programs.setpriv, f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    descriptor = os.memfd_create("filter")
    try:
        if program is not None:
            os.write(descriptor, program)
            os.lseek(descriptor, 0, os.SEEK_SET)
            options += ["--seccomp", str(descriptor)]
        done = subprocess.run(
            [*(become if IS_ROOT else []), programs.bwrap, *options, *command(made)],
            pass_fds=[descriptor],
            capture_output=True,
            check=True,
            timeout=30,
        )
    finally:
        os.close(descriptor)
    return [int(line) for line in done.stdout.split()]


def test_each_call_is_answered_as_the_filter_says() -> None:
    expected = expectations()
    made = list(expected)
    assert len(made) >= 60
    bare = in_plain_bwrap(made, None)
    filtered = in_plain_bwrap(made, program_bytes(Architecture(platform.machine())))
    assert len(bare) == len(filtered) == len(made)

    wrong = {
        call: errno.errorcode.get(got, got)
        for call, got, without in zip(made, filtered, bare, strict=True)
        if got != (without if expected[call] is None else expected[call])
    }
    assert wrong == {}
    # Without the filter they are answered otherwise, or this would prove nothing.
    different = sum(one != other for one, other in zip(bare, filtered, strict=True))
    assert different > len(made) // 2


async def test_a_sandbox_has_the_filter(tmp_path: Path) -> None:
    expected = expectations()
    made = [call for call, error in expected.items() if error is not None]
    async with opened(tmp_path) as shop:
        result = await shop.run(shop.spec(*command(made)))

    assert [int(line) for line in result.output.split()] == [expected[call] for call in made]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the gate of 32-bit calls is x86's")
async def test_a_32_bit_call_of_a_64_bit_program_ends_it(tmp_path: Path) -> None:
    """int 0x80 from machine code in a writable and executable page: getpid and exit(0)."""
    machine_code = bytes.fromhex("b814000000cd80b801000000bb00000000cd80")
    header = bytes.fromhex(
        "7f454c4602010100000000000000000002003e00010000007800400000000000"
        "4000000000000000000000000000000000000000400038000100000000000000"
        "0100000005000000000000000000000000004000000000000000400000000000"
    )
    size = (len(header) + 24 + len(machine_code)).to_bytes(8, "little")
    elf = header + size + size + (0x1000).to_bytes(8, "little") + machine_code
    async with opened(tmp_path) as shop:
        shop.write("program", elf, mode=0o755)
        ending = (await shop.run(shop.spec("/workspace/program"))).ending

    assert (ending.exit_code, ending.signal) == (128 + 31, 31)  # SIGSYS
