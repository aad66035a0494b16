"""The filter of system calls, simulated: both architectures on any machine."""

import pytest

from appliance.sandboxes import seccomp
from appliance.sandboxes.seccomp_tables import ABSENT, ALLOWED, NUMBERS, Architecture
from tests.sandboxes import bpf

X86, ARM = Architecture.X86_64, Architecture.AARCH64
PROGRAMS = {each: seccomp.build(each) for each in Architecture}
SET_ID = (0o4755, 0o2755, 0o6000)

both = pytest.mark.parametrize("architecture", list(Architecture), ids=lambda each: each.value)


def verdict(architecture: Architecture, name: str, *arguments: int) -> str:
    number = NUMBERS[architecture][name]
    return bpf.run(PROGRAMS[architecture], architecture.audit_number, number, arguments)


@both
def test_what_is_allowed_absent_and_refused(architecture: Architecture) -> None:
    wrong = {}
    for name in NUMBERS[architecture].keys() - seccomp.CHECKED.keys():
        expected = "allow" if name in ALLOWED else "ENOSYS" if name in ABSENT else "EPERM"
        if (said := verdict(architecture, name)) != expected:
            wrong[name] = said
    assert wrong == {}


@both
def test_the_tables_name_calls_that_exist(architecture: Architecture) -> None:
    everywhere = NUMBERS[X86].keys() | NUMBERS[ARM].keys()
    named = ALLOWED | ABSENT | seccomp.CHECKED.keys()

    assert named - everywhere == set()
    assert not ALLOWED & ABSENT
    assert not (ALLOWED | ABSENT) & seccomp.CHECKED.keys()
    numbers = NUMBERS[architecture].values()
    assert len(set(numbers)) == len(numbers)


def test_numbers_are_the_kernels() -> None:
    """A few of each block; `uname -m` of whoever runs this decides nothing."""
    x86 = {"read": 0, "clone": 56, "ptrace": 101, "openat": 257, "rseq": 334, "clone3": 435}
    arm = {"io_setup": 0, "openat": 56, "ptrace": 117, "clone": 220, "wait4": 260, "clone3": 435}

    assert {name: NUMBERS[X86][name] for name in x86} == x86
    assert {name: NUMBERS[ARM][name] for name in arm} == arm


@both
def test_an_unknown_number_is_a_call_the_kernel_does_not_have(architecture: Architecture) -> None:
    program, known = PROGRAMS[architecture], set(NUMBERS[architecture].values())
    unknown = [number for number in (*range(1200), 2**29) if number not in known]

    said = {bpf.run(program, architecture.audit_number, number) for number in unknown}
    assert said == {"ENOSYS"}


@both
def test_calls_of_another_architecture_end_the_process(architecture: Architecture) -> None:
    others = {0x40000003, 0x40000028, *(each.audit_number for each in Architecture)}
    for other in others - {architecture.audit_number}:
        assert bpf.run(PROGRAMS[architecture], other, 1) == "kill"


def test_x32_calls_end_the_process() -> None:
    for number in (0, 1, 520):
        assert bpf.run(PROGRAMS[X86], X86.audit_number, 0x40000000 | number) == "kill"
    assert bpf.run(PROGRAMS[X86], X86.audit_number, -1) == "ENOSYS"


@both
@pytest.mark.parametrize("upper", [0, 1 << 32, 1 << 63])
def test_the_upper_half_of_an_argument_hides_nothing(
    architecture: Architecture, upper: int
) -> None:
    for request in (0x5412, 0x541C, 0x541D, 0x5423, 0x401C5820):
        assert verdict(architecture, "ioctl", 0, request | upper) == "EPERM"
    assert verdict(architecture, "ioctl", 0, 0x5413 | upper) == "allow"  # TIOCGWINSZ
    assert verdict(architecture, "ioctl", 0, 0x540E | upper) == "allow"  # TIOCSCTTY


@both
def test_threads_and_processes_but_no_namespaces(architecture: Architecture) -> None:
    assert verdict(architecture, "clone", 0x1200011) == "allow"
    assert verdict(architecture, "clone", 0x3D0F00) == "allow"
    for flag in (0x20000, *(1 << bit for bit in range(25, 31))):
        assert verdict(architecture, "clone", flag | 17) == "EPERM"
    assert verdict(architecture, "clone3") == "ENOSYS"  # its flags are behind a pointer
    assert verdict(architecture, "unshare", 0) == "EPERM"


@both
@pytest.mark.parametrize(
    ("family", "kind", "protocol", "expected"),
    [
        *((1, kind, 0, "allow") for kind in (1, 2, 5, 1 | 0o2004000)),
        *((family, 1, protocol, "allow") for family in (2, 10) for protocol in (0, 6)),
        *((family, 2, protocol, "allow") for family in (2, 10) for protocol in (0, 17)),
        *((family, 3, 1, "EPROTONOSUPPORT") for family in (2, 10)),  # raw
        (2, 1, 262, "EPROTONOSUPPORT"),  # MPTCP
        (2, 1, 132, "EPROTONOSUPPORT"),  # SCTP
        (2, 5, 132, "EPROTONOSUPPORT"),
        (2, 2, 1, "EPROTONOSUPPORT"),  # ping
        (10, 6, 33, "EPROTONOSUPPORT"),  # DCCP
        (16, 3, 0, "allow"),  # netlink: routes
        *((16, 3, protocol, "EPROTONOSUPPORT") for protocol in (4, 6, 9, 12, 15)),
        *((family, 3, 0, "EAFNOSUPPORT") for family in (0, 3, 4, 9, 17, 21, 29, 30, 38, 40, 44)),
    ],
)
def test_sockets(
    architecture: Architecture, family: int, kind: int, protocol: int, expected: str
) -> None:
    assert verdict(architecture, "socket", family, kind, protocol) == expected


@both
def test_pairs_of_sockets_are_unix(architecture: Architecture) -> None:
    assert verdict(architecture, "socketpair", 1, 1, 0) == "allow"
    assert verdict(architecture, "socketpair", 30, 1, 0) == "EAFNOSUPPORT"


@both
def test_no_file_gets_a_set_id_bit(architecture: Architecture) -> None:
    making = {
        name: place
        for name, place in (
            *(("creat", 1), ("chmod", 1), ("fchmod", 1), ("mkdir", 1)),
            *(("fchmodat", 2), ("mkdirat", 2), ("mknod", 1), ("mknodat", 2)),
        )
        if name in NUMBERS[architecture]
    }
    for name, place in making.items():
        for mode in SET_ID:
            assert verdict(architecture, name, *[0] * place, mode | 0o100000) == "EPERM", name
        assert verdict(architecture, name, *[0] * place, 0o101777) == "allow", name


@both
def test_opening_makes_no_set_id_file_and_a_mode_that_is_not_used_is_not_looked_at(
    architecture: Architecture,
) -> None:
    for flags in (0o101, 0x410002):  # O_CREAT, O_TMPFILE
        assert verdict(architecture, "openat", -100, 0, flags, 0o4755) == "EPERM"
        assert verdict(architecture, "openat", -100, 0, flags, 0o1755) == "allow"
    assert verdict(architecture, "openat", -100, 0, 0, 0o4755) == "allow"
    if architecture is X86:
        assert verdict(architecture, "open", 0, 0o101, 0o2755) == "EPERM"


@both
def test_no_devices_are_made(architecture: Architecture) -> None:
    for kind in (0o020000, 0o060000):
        assert verdict(architecture, "mknodat", 0, 0, kind | 0o666, 0x103) == "EPERM"
    for kind in (0o010000, 0o140000, 0o100000, 0):
        assert verdict(architecture, "mknodat", 0, 0, kind | 0o644) == "allow"


@both
def test_other_arguments_that_count(architecture: Architecture) -> None:
    assert [verdict(architecture, "personality", value) for value in (0, 0xFFFFFFFF, 8)] == [
        *("allow", "allow", "EPERM")
    ]
    assert [verdict(architecture, "prctl", option) for option in (15, 38, 35, 59)] == [
        *("allow", "allow", "EPERM", "EPERM")
    ]


@both
def test_a_call_is_decided_in_a_few_steps(architecture: Architecture) -> None:
    steps = [
        bpf.trace(PROGRAMS[architecture], architecture.audit_number, number)[1]
        for number in NUMBERS[architecture].values()
    ]
    assert max(steps) <= 18
    assert len(PROGRAMS[architecture]) < 300


@both
def test_the_program_is_what_the_kernel_reads(architecture: Architecture) -> None:
    packed = seccomp.program_bytes(architecture)

    assert len(packed) == 8 * len(PROGRAMS[architecture])
    assert packed[:16] == bytes.fromhex("2000000004000000") + bytes.fromhex(
        "15000100" + ("3e0000c0" if architecture is X86 else "b70000c0")
    )
    assert seccomp.program_bytes(architecture) is packed  # built once
