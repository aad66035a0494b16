"""What a tenant's sandboxes may use: the operator's limits of one, the quotas of all together."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance.config.sandbox_schema import SandboxLimits
from appliance.model.errors import ApplianceError, QuotaExceeded
from appliance.model.quotas import Quotas
from appliance.sandboxes.base import Limits
from appliance.services.disk_usage import DiskUsage

MIB = 1024 * 1024
WORKSPACES = "workspace"  # the part of a tenant's directory that sandboxes write into
_NEEDED = ("sandbox_cpu_percent", "sandbox_memory_mb", "sandbox_pids", "sandbox_disk_mb")


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """Of one tenant. ``files`` counts directories and all else that has a name."""

    workspace_bytes: int | None
    total_bytes: int | None
    files: int


@dataclass(frozen=True, slots=True)
class DiskStanding:
    """``left`` bytes may still be written (None: no limit); ``refusal`` says why none may."""

    left: int | None = None
    refusal: Callable[[], ApplianceError] | None = None


def require_quotas(quotas: Quotas) -> None:
    """Raise ``QuotaExceeded`` where a quota of 0 means that nothing runs at all."""
    for key in _NEEDED:
        if getattr(quotas, key) == 0:
            raise QuotaExceeded(
                f"the tenant's quota {key} is 0, so no sandbox may run; the operator can raise it",
                quota=key,
            )


def limits_of_one(operator: SandboxLimits, quotas: Quotas, *, left: int | None) -> Limits:
    """``left``: bytes that may still be written; no file grows beyond that."""
    return Limits(
        memory_bytes=_bytes(_least(operator.memory_mb, quotas.sandbox_memory_mb)),
        pids=_least(operator.pids, quotas.sandbox_pids),
        cpu_percent=_least(operator.cpu_percent, quotas.sandbox_cpu_percent),
        file_bytes=left,
    )


def limits_of_all(quotas: Quotas) -> Limits | None:
    """Of all sandboxes of a tenant together; None if nothing bounds them."""
    found = Limits(
        memory_bytes=_bytes(quotas.sandbox_memory_mb),
        pids=quotas.sandbox_pids,
        cpu_percent=quotas.sandbox_cpu_percent,
    )
    nothing = replace(found, memory_bytes=None, pids=None, cpu_percent=None)
    return None if found == nothing else found


def disk_limits(operator: SandboxLimits, quotas: Quotas) -> DiskLimits:
    return DiskLimits(
        workspace_bytes=_bytes(_least(operator.disk_mb, quotas.sandbox_disk_mb)),
        total_bytes=quotas.disk_bytes,
        files=operator.files,
    )


def disk_standing(usage: DiskUsage, limits: DiskLimits) -> DiskStanding:
    """Where a tenant stands that uses ``usage``."""
    if usage.entries > limits.files:
        return _over(f"more than {limits.files} files", "files")
    if not usage.complete:
        return _over("more is stored, or held open, than can be measured", "files")
    left: int | None = None
    for name, used, limit in (
        ("its workspaces", usage.of(WORKSPACES), limits.workspace_bytes),
        ("its files", usage.total, limits.total_bytes),
    ):
        if limit is None:
            continue
        if used >= limit:
            return _over(f"{used} bytes in {name}, of {limit} allowed", "disk")
        left = _least(left, limit - used)
    return DiskStanding(left)


def _over(found: str, quota: str) -> DiskStanding:
    text = (
        f"the tenant has no room left on the disk: {found}; "
        "delete files through the workspace API, or ask the operator for more"
    )
    return DiskStanding(0, lambda: QuotaExceeded(text, quota=quota))


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib * MIB
