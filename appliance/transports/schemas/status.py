"""Where the gateway and its tenants stand, on the wire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Self

from msgspec import Meta

from appliance.model.quotas import render_limit
from appliance.model.spending import QuotaStanding, Standing
from appliance.sandboxes.base import Proof
from appliance.transports.schemas.base import View


class QuotaView(View, frozen=True):
    limit: Annotated[str | int | None, Meta(description="null is unlimited.")]
    soft_limit: str | int | None
    used: str | int
    reserved: Annotated[str | int, Meta(description="Held by calls that are running.")]
    remaining: str | int | None
    resets_at: datetime | None

    @classmethod
    def of(cls, quota: QuotaStanding) -> Self:
        def shown(value: int | None) -> str | int | None:
            return render_limit(quota.key, value)

        return cls(
            limit=shown(quota.limit),
            soft_limit=shown(quota.soft_limit),
            used=shown(quota.used) or 0,
            reserved=shown(quota.reserved) or 0,
            remaining=shown(quota.remaining),
            resets_at=quota.resets_at,
        )


class TenantStatus(View, frozen=True):
    """Where one tenant stands with its quotas."""

    tenant: str
    quotas: Mapping[str, QuotaView]
    soft_limits_reached: Sequence[str]

    @classmethod
    def of(cls, tenant: str, standing: Standing) -> Self:
        return cls(
            tenant=tenant,
            quotas={quota.key: QuotaView.of(quota) for quota in standing.quotas},
            soft_limits_reached=standing.soft_limits,
        )


class TenantCounts(View, frozen=True):
    known: int
    disabled: int
    awake: int
    broken: Annotated[
        Mapping[str, str], Meta(description="Those whose data cannot be used, and why.")
    ]


class SandboxStatus(View, frozen=True):
    """What isolates commands, and whether it does."""

    available: bool
    backend: str
    limits: Annotated[str, Meta(description="Who enforces memory and processes.")]
    problem: Annotated[str, Meta(description="Why nothing is run, with the remedy.")]
    warnings: Sequence[str]
    running: int

    @classmethod
    def of(cls, proof: Proof, *, running: int) -> Self:
        return cls(
            available=proof.holds,
            backend=proof.backend,
            limits=proof.limits,
            problem=proof.problem,
            warnings=proof.warnings,
            running=running,
        )


class GatewayStatus(View, frozen=True):
    """The whole gateway; for admins."""

    version: str
    started_at: datetime
    uptime_seconds: int
    ready: bool
    reasons: Sequence[str]
    warnings: Sequence[str]
    loop_lag_ms: float
    tenants: TenantCounts
    disk_free_bytes: int
    config_problem: str | None
    providers: Sequence[str]
    sandbox: SandboxStatus
