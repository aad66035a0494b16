"""An interpreter of classic BPF, as far as a seccomp program uses it."""

import errno
import struct
from collections.abc import Sequence

from appliance.sandboxes import seccomp
from appliance.sandboxes.seccomp import Program


def run(program: Program, audit_number: int, number: int, arguments: Sequence[int] = ()) -> str:
    """``allow``, ``kill`` or the name of an error."""
    value, _ = trace(program, audit_number, number, arguments)
    if value == seccomp.ALLOW:
        return "allow"
    return "kill" if value == seccomp.KILL else errno.errorcode[value & 0xFFFF]


def trace(
    program: Program, audit_number: int, number: int, arguments: Sequence[int] = ()
) -> tuple[int, int]:
    """What is returned, and after how many steps."""
    six = [argument & (2**64 - 1) for argument in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit_number, 0, *six)
    register = position = steps = 0
    while True:
        code, value, yes, no = program[position]
        position += 1
        steps += 1
        match code:
            case seccomp.LOAD:
                register = struct.unpack_from("<I", data, value)[0]
            case seccomp.AND:
                register &= value
            case seccomp.JUMP:
                position += value
            case seccomp.RETURN:
                return value, steps
            case seccomp.JUMP_EQUAL:
                position += yes if register == value else no
            case seccomp.JUMP_AT_LEAST:
                position += yes if register >= value else no
            case seccomp.JUMP_GREATER:
                position += yes if register > value else no
            case seccomp.JUMP_ANY_BIT:
                position += yes if register & value else no
            case _:
                raise AssertionError(f"{code:#x} is not used here")
