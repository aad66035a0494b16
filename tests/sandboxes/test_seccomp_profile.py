"""The filter as container runtimes take it says what our own program says."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from appliance.sandboxes import seccomp, seccomp_profile
from appliance.sandboxes.seccomp_tables import ABSENT, ALLOWED, NUMBERS, Architecture
from tests.sandboxes import bpf

PROGRAMS = {each: seccomp.build(each) for each in Architecture}
PROFILES = {each: seccomp_profile.profile(each) for each in Architecture}
HIGH = 1 << 32  # a bit that the kernel does not look at in any of these

both = pytest.mark.parametrize("architecture", list(Architecture), ids=lambda each: each.value)

SAMPLES: Mapping[str, Sequence[tuple[int, ...]]] = {
    "ioctl": [
        (0, number + high)
        for value in (0, 0x5401, 0x5412, 0x541B, 0x541C, 0x541D, 0x5423, 0x401C5820, 0xFFFFFFFF)
        for number in (max(0, value - 1), value, min(0xFFFFFFFF, value + 1))
        for high in (0, HIGH)
    ],
    "prctl": [(number + high,) for number in range(70) for high in (0, HIGH)],
    "clone": [(0x1200011,), (0x3D0F00,), (0x10000000,), (0x2000000,), (0x40000000,), (0x20000,)],
    "socket": [
        (family, kind, protocol)
        for family in (0, 1, 2, 10, 16, 17, 38, 40)
        for kind in (1, 2, 3, 5, 0x80001, 0x802)
        for protocol in (0, 6, 17, 255, 262)
    ],
    "socketpair": [(1,), (2,), (16,), (HIGH + 1,)],
    "personality": [(0,), (0xFFFFFFFF,), (8,), (0x40000,)],
    "open": [(0, flags, mode) for flags in (0, 0o100, 0x410000) for mode in (0o644, 0o4755)],
    "openat": [(0, 0, flags, mode) for flags in (0, 0o100, 0x410000) for mode in (0o644, 0o2755)],
    **dict.fromkeys(("creat", "chmod", "fchmod", "mkdir"), ((0, 0o644), (0, 0o4755), (0, 0o2000))),
    **dict.fromkeys(("fchmodat", "mkdirat"), ((0, 0, 0o644), (0, 0, 0o4755), (0, 0, 0o2000))),
    "mknod": [(0, kind | mode) for kind in range(0, 0o170000, 0o10000) for mode in (0, 0o4644)],
    "mknodat": [
        (0, 0, kind | mode) for kind in range(0, 0o170000, 0o10000) for mode in (0, 0o4644)
    ],
}


def is_allowed(profile: Mapping[str, Any], name: str, arguments: tuple[int, ...]) -> bool:
    """As libseccomp reads it: one entry has to fit, and all comparisons of that entry."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    for entry in profile["syscalls"]:
        if name not in entry["names"] or entry["action"] != "SCMP_ACT_ALLOW":
            continue
        if all(
            padded[each["index"]] & each["value"] == each["valueTwo"]
            for each in entry.get("args", [])
        ):
            return True
    return False


@both
def test_every_call_is_allowed_where_our_own_program_allows_it(architecture: Architecture) -> None:
    for name, number in NUMBERS[architecture].items():
        for arguments in SAMPLES.get(name, [()]):
            verdict = bpf.run(PROGRAMS[architecture], architecture.audit_number, number, arguments)
            said = is_allowed(PROFILES[architecture], name, arguments)
            # Kinds of files the kernel refuses anyway need no rule of ours.
            if name in {"mknod", "mknodat"} and verdict == "allow" and not said:
                assert arguments[-1] & 0o170000 not in (0, 0o010000, 0o100000, 0o140000)
                continue
            assert said == (verdict == "allow"), (name, arguments)


def test_every_call_with_checked_arguments_is_sampled() -> None:
    assert seccomp.CHECKED.keys() == seccomp_profile.CHECKED.keys() == SAMPLES.keys()


@both
def test_what_has_another_way_is_said_not_to_exist(architecture: Architecture) -> None:
    entries = PROFILES[architecture]["syscalls"]
    [absent] = [entry for entry in entries if entry.get("errnoRet")]

    assert set(absent["names"]) == ABSENT & NUMBERS[architecture].keys()
    assert absent["errnoRet"] == 38
    assert PROFILES[architecture]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert not ALLOWED & ABSENT


def test_patterns_fit_every_value_but_the_given_ones() -> None:
    values = {0, 1, 0x5412, 0xFFFFFFFF}
    patterns = list(seccomp_profile.others(values))

    def fitting(word: int) -> int:
        return sum(word & mask == value for mask, value in patterns)

    assert [fitting(value) for value in values] == [0] * 4
    near = {value + step for value in values for step in (-1, 1, 256, 65536)} - values
    assert {fitting(word & 0xFFFFFFFF) for word in near if 0 <= word <= 0xFFFFFFFF} == {1}
    assert sum(1 << (32 - mask.bit_count()) for mask, _ in patterns) == (1 << 32) - 4


def test_it_is_json() -> None:
    text = json.dumps(PROFILES[Architecture.X86_64])

    assert json.loads(text)["architectures"] == ["SCMP_ARCH_X86_64"]
