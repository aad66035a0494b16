"""The original's names of quotas, beside ours.

``tenants.quota.*`` speak both: a control plane written for the original finds
the members it knows, with amounts in cents, and ours are all there are.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.model.money import NANO, format_amount
from appliance.model.quotas import COST_KEYS, Quotas

ORIGINAL: Mapping[str, str] = {
    "monthlyTokenLimit": "tokens_per_month",
    "monthlyTokenSoftLimit": "soft_tokens_per_month",
    "monthlyCostLimitCents": "cost_per_month",
    "monthlyCostSoftLimitCents": "soft_cost_per_month",
    "diskSpaceLimitBytes": "disk_bytes",
    "maxConcurrentSessions": "concurrent_sessions",
    "requestsPerMinute": "requests_per_minute",
    "requestsPerHour": "requests_per_hour",
    "maxSandboxCpuPercent": "sandbox_cpu_percent",
    "maxSandboxMemoryMB": "sandbox_memory_mb",
    "maxSandboxDiskMB": "sandbox_disk_mb",
    "maxSandboxPids": "sandbox_pids",
}
_CENT = NANO // 100


def cents(nano: int) -> int:
    """Money in whole cents, half a cent rounded up."""
    return int((Decimal(nano) / _CENT).to_integral_value(ROUND_HALF_UP))


def in_original_names(quotas: Quotas) -> dict[str, int]:
    """What is limited, as the original writes it; a limit that is not set is left out."""
    shown: dict[str, int] = {}
    for name, key in ORIGINAL.items():
        limit: int | None = getattr(quotas, key)
        if limit is not None:
            shown[name] = cents(limit) if key in COST_KEYS else limit
    return shown


def in_our_names(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """``wanted`` with the original's names replaced; what is no name of either stays.

    Raises :exc:`InvalidRequest` for cents that are none, and for a quota that
    is named twice.
    """
    ours: dict[str, Any] = {}
    for name, value in wanted.items():
        key = ORIGINAL.get(name, name)
        if key in ours:
            raise InvalidRequest.at(f"quotas.{name}", "is named twice", f"leave {key} or it out")
        ours[key] = _amount(name, value) if name in ORIGINAL and key in COST_KEYS else value
    return ours


def _amount(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest.at(
            f"quotas.{name}", "must be whole cents, or null", f"or use {ORIGINAL[name]}"
        )
    return format_amount(value * _CENT)
