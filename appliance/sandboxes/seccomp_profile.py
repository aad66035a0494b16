"""The same filter of system calls as ``seccomp.py``, as container runtimes take it: JSON.

libseccomp makes the program there. A call has rules, one of which has to fit,
and a rule one comparison for each argument, so that "none of these values"
becomes a list of bit patterns that together cover every other value.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from errno import ENOSYS, EPERM
from itertools import product
from typing import Any

from appliance.sandboxes.seccomp_tables import ABSENT, ALLOWED, NUMBERS, Architecture

_ARCHITECTURES = {
    Architecture.X86_64: "SCMP_ARCH_X86_64",
    Architecture.AARCH64: "SCMP_ARCH_AARCH64",
}
_WORD = 32  # the bits of an argument that the kernel looks at in all of these calls
_ALL_BITS = (1 << _WORD) - 1

_NEW_NAMESPACES = 0x7E020000
_SET_ID = 0o6000
_CREATES = 0x400040
_FILE_KINDS = (0, 0o010000, 0o100000, 0o140000)  # nothing said, FIFO, file, socket
_FILE_KIND = 0o170000
_REFUSED_IOCTLS = (0x5412, 0x541C, 0x541D, 0x5423, 0x401C5820)
_REFUSED_PRCTLS = (35, 59)

Comparison = tuple[int, int, int]  # argument, mask, what it has to be under the mask
Rule = Sequence[Comparison]


def profile(architecture: Architecture) -> dict[str, Any]:
    """An OCI profile. What it does not know is refused with EPERM; runtimes add ENOSYS.

    Two differences: a refused family of sockets is EPERM, and what libseccomp is
    too old to know is refused.
    """
    known = NUMBERS[architecture]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": [_ARCHITECTURES[architecture]],
        "syscalls": [
            _entry(sorted(known.keys() & ALLOWED)),
            _entry(sorted(known.keys() & ABSENT), errno=ENOSYS),
            *(
                _entry([name], rule=rule)
                for name, rules in CHECKED.items()
                if name in known
                for rule in rules
            ),
        ],
    }


def _entry(names: Sequence[str], *, rule: Rule = (), errno: int = 0) -> dict[str, Any]:
    entry: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if errno:
        entry |= {"action": "SCMP_ACT_ERRNO", "errnoRet": errno}
    if rule:
        entry["args"] = [
            {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
            for index, mask, value in rule
        ]
    return entry


def others(values: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Masks and values that fit every word but ``values``, each word once."""
    yield from _beside(frozenset(values), prefix=0, bits=0)


def _beside(values: frozenset[int], *, prefix: int, bits: int) -> Iterator[tuple[int, int]]:
    """Of the words that begin with ``bits`` bits of ``prefix``. The halves without any of
    the values are covered as a whole, the others are halved again."""
    if bits == _WORD:
        return
    bit = 1 << (_WORD - 1 - bits)
    mask = _ALL_BITS & ~(bit - 1)
    for half in (prefix, prefix | bit):
        inside = frozenset(value for value in values if value & mask == half)
        if inside:
            yield from _beside(inside, prefix=half, bits=bits + 1)
        else:
            yield mask, half


def _none_of(index: int, values: Iterable[int]) -> list[Rule]:
    return [((index, mask, value),) for mask, value in others(values)]


def _one_of(index: int, values: Iterable[int]) -> list[Rule]:
    return [((index, _ALL_BITS, value),) for value in values]


def _no_bits(index: int, bits: int) -> list[Rule]:
    return [((index, bits, 0),)]


def _sockets() -> list[Rule]:
    unix, internet, netlink = 1, (2, 10), 16
    stream_or_datagram, protocols = (1, 2), (0, 6, 17)
    return [
        ((0, _ALL_BITS, unix),),
        ((0, _ALL_BITS, netlink), (2, _ALL_BITS, 0)),
        *(
            ((0, _ALL_BITS, family), (1, 0xF, kind), (2, _ALL_BITS, protocol))
            for family, kind, protocol in product(internet, stream_or_datagram, protocols)
        ),
    ]


def _making_node(index: int) -> list[Rule]:
    return [((index, _FILE_KIND | _SET_ID, kind),) for kind in _FILE_KINDS]


CHECKED: Mapping[str, Sequence[Rule]] = {
    "ioctl": _none_of(1, _REFUSED_IOCTLS),
    "clone": _no_bits(0, _NEW_NAMESPACES),
    "socket": _sockets(),
    "socketpair": _one_of(0, (1,)),
    "personality": _one_of(0, (0, _ALL_BITS)),
    "prctl": _none_of(0, _REFUSED_PRCTLS),
    "open": [*_no_bits(1, _CREATES), *_no_bits(2, _SET_ID)],
    "openat": [*_no_bits(2, _CREATES), *_no_bits(3, _SET_ID)],
    **dict.fromkeys(("creat", "chmod", "fchmod", "mkdir"), _no_bits(1, _SET_ID)),
    **dict.fromkeys(("fchmodat", "mkdirat"), _no_bits(2, _SET_ID)),
    "mknod": _making_node(1),
    "mknodat": _making_node(2),
}
