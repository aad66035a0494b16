"""The seccomp program of a sandbox, assembled here: classic BPF from tables, no library.

A list of what is allowed. What is known and refused gets EPERM, what is unknown
ENOSYS, so that libraries fall back to what they did before; the system calls of
another architecture end the process. A filter sees numbers, never what a
pointer points to.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from appliance.sandboxes.seccomp_tables import ABSENT, ALLOWED, NUMBERS, Architecture

# linux/filter.h: load a word, jump, and, return
LOAD, JUMP, AND, RETURN = 0x20, 0x05, 0x54, 0x06
JUMP_EQUAL, JUMP_AT_LEAST, JUMP_GREATER, JUMP_ANY_BIT = 0x15, 0x35, 0x25, 0x45
# linux/seccomp.h
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16  # struct seccomp_data
_X32_BIT = 0x40000000
_SKIPPED = 0xFFFFFFFF  # the number of a call that a tracer has skipped

# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_NEW_NAMESPACES = 0x7E020000
_SET_ID = 0o6000
_CREATES = 0x400040  # O_CREAT and the bit that tells O_TMPFILE from O_DIRECTORY
_FILE_KIND, _CHARACTER_DEVICE, _BLOCK_DEVICE = 0o170000, 0o020000, 0o060000
_UNIX, _INET, _NETLINK, _INET6 = 1, 2, 16, 10
_TCP, _UDP = 6, 17
_SOCKET_KIND, _DATAGRAM = 0xF, 2  # the rest of the second argument are flags
_QUERY_PERSONALITY = 0xFFFFFFFF

# Typing for somebody else (TIOCSTI, TIOCLINUX), taking the console's output (TIOCCONS),
# loading a line discipline (TIOCSETD), leaving a disk quota (FS_IOC_FSSETXATTR).
_REFUSED_IOCTLS = (0x5412, 0x541C, 0x541D, 0x5423, 0x401C5820)
_REFUSED_PRCTLS = (35, 59)  # PR_SET_MM, PR_SET_SYSCALL_USER_DISPATCH


class Instruction(NamedTuple):
    """One step; ``yes`` and ``no`` are how many steps a jump leaves out."""

    code: int
    value: int
    yes: int = 0
    no: int = 0


Program = tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers from ``first`` up to the next range, which all get the same answer."""

    first: int
    answer: Program


@cache
def program_bytes(architecture: Architecture) -> bytes:
    """What ``bwrap --seccomp`` reads: an array of ``struct sock_filter``."""
    return b"".join(
        struct.pack("<HBBI", step.code, step.yes, step.no, step.value)
        for step in build(architecture)
    )


def build(architecture: Architecture) -> Program:
    """The program: check the architecture, then search the number in a binary tree."""
    program = (*_head(architecture), *_search(list(_ranges(NUMBERS[architecture]))))
    if len(program) > MOST_INSTRUCTIONS:
        raise ValueError(f"{len(program)} instructions are more than the kernel takes")
    return program


def _head(architecture: Architecture) -> Iterator[Instruction]:
    yield Instruction(LOAD, _ARCHITECTURE_OFFSET)
    yield Instruction(JUMP_EQUAL, architecture.audit_number, yes=1)
    yield Instruction(RETURN, KILL)
    yield Instruction(LOAD, _NUMBER_OFFSET)
    if architecture is Architecture.X86_64:
        # The x32 calls have numbers of their own that the table does not know.
        yield Instruction(JUMP_EQUAL, _SKIPPED, no=1)
        yield _refuse(ENOSYS)
        yield Instruction(JUMP_AT_LEAST, _X32_BIT, no=1)
        yield Instruction(RETURN, KILL)


def _ranges(numbers: Mapping[str, int]) -> Iterator[_Range]:
    names = {number: name for name, number in numbers.items()}
    before: Program | None = None
    for number in range(max(names) + 2):  # one beyond: everything after it is unknown
        answer = _answer(names[number]) if number in names else (_refuse(ENOSYS),)
        if answer != before:
            yield _Range(number, answer)
            before = answer


def _search(ranges: Sequence[_Range]) -> Program:
    if len(ranges) == 1:
        return ranges[0].answer
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    pivot = ranges[middle].first
    if len(below) <= 255:  # what fits a conditional jump
        return (Instruction(JUMP_AT_LEAST, pivot, yes=len(below)), *below, *above)
    far = Instruction(JUMP, len(below))
    return (Instruction(JUMP_AT_LEAST, pivot, no=1), far, *below, *above)


def _answer(name: str) -> Program:
    if name in CHECKED:
        return CHECKED[name]
    if name in ALLOWED:
        return (_ALLOW,)
    return (_refuse(ENOSYS if name in ABSENT else EPERM),)


# What depends on arguments. An answer is a small program of its own, and ends in a return.

_ALLOW = Instruction(RETURN, ALLOW)


def _refuse(errno: int) -> Instruction:
    return Instruction(RETURN, REFUSE | errno)


def _argument(index: int) -> Instruction:
    """The lower half of an argument. Both architectures put it first.

    The kernel looks at these 32 bits of what is checked here, too; comparing
    all 64 let TIOCSTI with a bit set above through (CVE-2019-10063).
    """
    return Instruction(LOAD, _ARGUMENTS_OFFSET + 8 * index)


def _refuse_bits(index: int, bits: int) -> Program:
    return (
        _argument(index),
        Instruction(JUMP_ANY_BIT, bits, no=1),
        _refuse(EPERM),
        _ALLOW,
    )


def _choose(index: int, values: Sequence[int], chosen: Instruction, rest: Instruction) -> Program:
    """``chosen`` if the argument is one of ``values``."""
    comparisons = (
        Instruction(JUMP_EQUAL, value, yes=len(values) - position)
        for position, value in enumerate(values)
    )
    return (_argument(index), *comparisons, rest, chosen)


def _refuse_values(index: int, values: Sequence[int]) -> Program:
    return _choose(index, values, _refuse(EPERM), _ALLOW)


def _allow_values(index: int, values: Sequence[int], errno: int) -> Program:
    return _choose(index, values, _ALLOW, _refuse(errno))


def _opening(flags: int, mode: int) -> Program:
    """The mode counts only where a file may be made; otherwise it is whatever was there."""
    return (
        _argument(flags),
        Instruction(JUMP_ANY_BIT, _CREATES, yes=1),
        _ALLOW,
        *_refuse_bits(mode, _SET_ID),
    )


def _making_node(mode: int) -> Program:
    """FIFOs, sockets and files; no devices."""
    return _with_labels(
        (
            (_argument(mode),),
            (Instruction(JUMP_ANY_BIT, _SET_ID), "refuse", None),
            (Instruction(AND, _FILE_KIND),),
            (Instruction(JUMP_EQUAL, _CHARACTER_DEVICE), "refuse", None),
            (Instruction(JUMP_EQUAL, _BLOCK_DEVICE), "refuse", "allow"),
        ),
        {"refuse": _refuse(EPERM), "allow": _ALLOW},
    )


def _socket() -> Program:
    """Unix; TCP and UDP; of netlink only routes, which ``getifaddrs`` asks for.

    The rest is code of the kernel that nobody in a sandbox needs, and
    AF_VSOCK leads out of it: no network namespace covers it.
    """
    return _with_labels(
        (
            (_argument(0),),
            (Instruction(JUMP_EQUAL, _UNIX), "allow", None),
            (Instruction(JUMP_EQUAL, _INET), "internet", None),
            (Instruction(JUMP_EQUAL, _INET6), "internet", None),
            (Instruction(JUMP_EQUAL, _NETLINK), "netlink", "no family"),
            ("internet", _argument(1)),
            (Instruction(AND, _SOCKET_KIND),),
            (Instruction(JUMP_GREATER, _DATAGRAM), "no protocol", None),
            (_argument(2),),
            (Instruction(JUMP_EQUAL, _TCP), "allow", None),
            (Instruction(JUMP_EQUAL, _UDP), "allow", None),
            ("netlink", _argument(2)),  # NETLINK_ROUTE is 0, and so is "whatever fits" of TCP
            (Instruction(JUMP_EQUAL, 0), "allow", "no protocol"),
        ),
        {
            "allow": _ALLOW,
            "no family": _refuse(EAFNOSUPPORT),
            "no protocol": _refuse(EPROTONOSUPPORT),
        },
    )


_Line = (
    tuple[Instruction]  # a step
    | tuple[str, Instruction]  # a step that can be jumped to
    | tuple[Instruction, str | None, str | None]  # a jump: where to if so, and if not; None: on
)


def _with_labels(lines: Sequence[_Line], ends: Mapping[str, Instruction]) -> Program:
    """Count the jumps of ``lines``; ``ends`` come after them, in order."""
    places = {line[0]: place for place, line in enumerate(lines) if isinstance(line[0], str)}
    places |= {name: len(lines) + place for place, name in enumerate(ends)}
    program: list[Instruction] = []
    for place, line in enumerate(lines):
        match line:
            case (Instruction() as jump, yes, no):
                there = [0 if to is None else places[to] - place - 1 for to in (yes, no)]
                program.append(jump._replace(yes=there[0], no=there[1]))
            case (str(), Instruction() as step):
                program.append(step)
            case (Instruction() as step,):
                program.append(step)
    return (*program, *ends.values())


def _same(names: Iterable[str], answer: Program) -> dict[str, Program]:
    return dict.fromkeys(names, answer)


CHECKED: Mapping[str, Program] = MappingProxyType(
    {
        "ioctl": _refuse_values(1, _REFUSED_IOCTLS),
        "clone": _refuse_bits(0, _NEW_NAMESPACES),
        "socket": _socket(),
        "socketpair": _allow_values(0, (_UNIX,), EAFNOSUPPORT),
        "personality": _allow_values(0, (0, _QUERY_PERSONALITY), EPERM),
        "prctl": _refuse_values(0, _REFUSED_PRCTLS),
        "open": _opening(1, 2),
        "openat": _opening(2, 3),
        # A set-id file in the workspace would be somebody on the host, for whoever finds it.
        **_same(("creat", "chmod", "fchmod", "mkdir"), _refuse_bits(1, _SET_ID)),
        **_same(("fchmodat", "mkdirat"), _refuse_bits(2, _SET_ID)),
        "mknod": _making_node(1),
        "mknodat": _making_node(2),
    }
)
