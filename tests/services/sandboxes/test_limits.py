"""The operator's limits of one sandbox, and a tenant's quotas of all of them."""

from dataclasses import replace
from typing import Any

import pytest

from appliance.config.sandbox_schema import SandboxLimits
from appliance.model.errors import QuotaExceeded
from appliance.model.quotas import Quotas
from appliance.sandboxes.base import Limits
from appliance.services.disk_usage import DiskUsage
from appliance.services.sandboxes.limits import (
    DiskLimits,
    disk_limits,
    disk_standing,
    limits_of_all,
    limits_of_one,
    require_quotas,
)
from tests.books import NOON

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("operator", "quotas", "expected"),
    [
        ({}, {}, (512 * MIB, 128, 100)),
        ({"memory_mb": None, "pids": None, "cpu_percent": None}, {}, (None, None, None)),
        ({"memory_mb": None}, {"sandbox_memory_mb": 64}, (64 * MIB, 128, 100)),
        ({"pids": 10}, {"sandbox_pids": 20, "sandbox_cpu_percent": 50}, (512 * MIB, 10, 50)),
    ],
)
def test_the_tighter_one_holds(
    operator: dict[str, Any],
    quotas: dict[str, int],
    expected: tuple[int | None, int | None, int | None],
) -> None:
    found = limits_of_one(SandboxLimits(**operator), Quotas(**quotas), left=None)

    assert (found.memory_bytes, found.pids, found.cpu_percent) == expected


def test_no_file_grows_beyond_what_is_left() -> None:
    assert limits_of_one(SandboxLimits(), Quotas(), left=7).file_bytes == 7


def test_quotas_are_of_all_sandboxes_together() -> None:
    assert limits_of_all(Quotas(sandbox_disk_mb=5)) is None
    found = limits_of_all(Quotas(sandbox_memory_mb=64))
    assert found == replace(Limits(), memory_bytes=64 * MIB, pids=None, cpu_percent=None)


@pytest.mark.parametrize(
    "key", ["sandbox_cpu_percent", "sandbox_memory_mb", "sandbox_pids", "sandbox_disk_mb"]
)
def test_a_quota_of_nothing_is_no_sandbox(key: str) -> None:
    require_quotas(Quotas(**{key: 1}))
    with pytest.raises(QuotaExceeded, match=f"{key} is 0"):
        require_quotas(Quotas(**{key: 0}))


def usage(workspace: int, other: int = 0, *, entries: int = 1, complete: bool = True) -> DiskUsage:
    return DiskUsage({"workspace": workspace, "sessions": other}, NOON, complete, entries)


def test_the_disk_is_limited_in_three_ways() -> None:
    assert disk_limits(
        SandboxLimits(disk_mb=5, files=2000), Quotas(sandbox_disk_mb=3, disk_bytes=99)
    ) == DiskLimits(3 * MIB, 99, 2000)


@pytest.mark.parametrize(
    ("found", "limits", "left", "said"),
    [
        (usage(10), DiskLimits(None, None, 5), None, None),
        (usage(10), DiskLimits(15, None, 5), 5, None),
        (usage(10, 80), DiskLimits(15, 92, 5), 2, None),
        (usage(15), DiskLimits(15, None, 5), 0, "15 bytes in its workspaces, of 15"),
        (usage(1, 98), DiskLimits(15, 99, 5), 0, "99 bytes in its files, of 99"),
        (usage(0, entries=6), DiskLimits(15, None, 5), 0, "more than 5 files"),
        (usage(0, complete=False), DiskLimits(None, None, 5), 0, "than can be measured"),
    ],
)
def test_where_a_tenant_stands(
    found: DiskUsage, limits: DiskLimits, left: int | None, said: str | None
) -> None:
    standing = disk_standing(found, limits)

    assert standing.left == left
    if said is None:
        assert standing.refusal is None
    else:
        assert standing.refusal is not None
        assert said in standing.refusal().detail
