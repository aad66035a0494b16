"""What ``tenants.*`` take and return, in the original's words.

Moments are RFC 3339 text where the original has it so, and milliseconds since
1970 where it has those. ``stateDir`` names the tenant and never a path.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from msgspec import UNSET, Meta, UnsetType, field

from appliance.model.errors import FieldError, InvalidRequest
from appliance.model.tenants import LONGEST_NAME, TenantRecord
from appliance.transports.rpc.fields import TenantIdText
from appliance.transports.rpc.method import Params, Result
from appliance.transports.schemas.base import Duration

Name = Annotated[str, Meta(max_length=LONGEST_NAME, description="For people; any text.")]


class OfTenant(Params, frozen=True, kw_only=True):
    """Params that name the tenant they are about; clients know the error for leaving it out."""

    tenant_id: TenantIdText | None = None

    def require_tenant(self) -> str:
        if self.tenant_id is None:
            reason = "tenantId is required"
            raise InvalidRequest(reason, fields=[FieldError("tenantId", "is required")])
        return self.tenant_id


class TenantsListParams(Params, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    cursor: Annotated[str, Meta(max_length=512)] | None = None
    query: Annotated[str, Meta(max_length=LONGEST_NAME)] = ""


class TenantsCreateParams(OfTenant, frozen=True, kw_only=True):
    display_name: Name | None = None
    quotas: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    template: Annotated[str, Meta(max_length=200)] | None = None


class TenantsGetParams(OfTenant, frozen=True, kw_only=True):
    pass


class TenantsUpdateParams(OfTenant, frozen=True, kw_only=True):
    """What is not named stays as it is."""

    display_name: Name | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET
    disabled_reason: Annotated[str, Meta(max_length=LONGEST_NAME)] = ""


class TenantsRotateParams(OfTenant, frozen=True, kw_only=True):
    grace: Annotated[Duration | None, Meta(description="How long the old tokens still work.")] = (
        None
    )


class TenantsDeleteParams(OfTenant, frozen=True, kw_only=True):
    delete_data: (
        Annotated[
            bool,
            Meta(
                description="Erase the data. By default an admin keeps it aside, and a tenant"
                " that ends itself leaves nothing behind."
            ),
        ]
        | None
    ) = None
    confirm: Annotated[bool, Meta(description="A tenant that ends itself must set it.")] = False


class TenantsUsageParams(OfTenant, frozen=True, kw_only=True):
    refresh_disk: Annotated[bool, Meta(description="Measure the disk anew.")] = False


class TenantsHistoryParams(OfTenant, frozen=True, kw_only=True):
    months: Annotated[int, Meta(ge=1, le=120)] = 6


class TenantsQuotaStatusParams(OfTenant, frozen=True, kw_only=True):
    pass


class TenantsQuotaUpdateParams(OfTenant, frozen=True, kw_only=True):
    quotas: Annotated[
        dict[str, Any],
        Meta(description="Changes by either name of a quota; null is unlimited."),
    ]


class TenantRow(Result, frozen=True, kw_only=True):
    tenant_id: str
    display_name: str | None = None
    created_at: datetime
    last_seen_at: datetime | None = None
    disabled: bool
    disabled_reason: str = ""
    tokens: int

    @classmethod
    def of(cls, record: TenantRecord) -> Self:
        return cls(**row_fields(record))


def row_fields(record: TenantRecord) -> dict[str, Any]:
    used = [token.last_used_at for token in record.tokens if token.last_used_at is not None]
    return {
        "tenant_id": record.id,
        "display_name": record.name or None,
        "created_at": record.created_at,
        "last_seen_at": max(used, default=None),
        "disabled": record.disabled,
        "disabled_reason": record.disabled_reason,
        "tokens": len(record.tokens),
    }


class BrokenRow(Result, frozen=True, kw_only=True):
    tenant_id: str
    reason: str


class TenantsListResult(Result, frozen=True, kw_only=True):
    tenants: Sequence[TenantRow]
    next_cursor: str | None = None
    broken: Annotated[
        Sequence[BrokenRow], Meta(description="Those whose record cannot be read; not paged.")
    ] = ()


class TenantsCreateResult(Result, frozen=True, kw_only=True):
    tenant_id: str
    token: Annotated[str, Meta(description="Shown this once; only its digest is kept.")]
    created_at: datetime
    state_dir: str
    display_name: str | None = None


class TenantsGetResult(TenantRow, frozen=True, kw_only=True):
    state_dir: Annotated[str, Meta(description="A name, not a path.")]


class TenantsUpdateResult(TenantRow, frozen=True, kw_only=True):
    updated: bool


class TenantsRotateResult(Result, frozen=True, kw_only=True):
    tenant_id: str
    token: Annotated[str, Meta(description="Shown this once; only its digest is kept.")]
    token_id: str


class TenantsDeleteResult(Result, frozen=True, kw_only=True):
    deleted: bool
    tenant_id: str
    data_deleted: bool


class UsageSnapshot(Result, frozen=True, kw_only=True):
    """What a tenant used in a month. What is not known is left out."""

    tenant_id: str
    period: Annotated[str, Meta(description="The month, such as 2026-11, in UTC.")]
    total_tokens: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    total_cost_cents: int
    total_cost: Annotated[str, Meta(description="Exactly, in the currency.")]
    currency: str
    total_requests: int
    estimated_requests: Annotated[
        int, Meta(description="Of which the provider did not say what they used.")
    ]
    tool_calls: int
    sandbox_cpu_seconds: float
    updated_at: Annotated[int, Meta(description="ms since 1970")]
    quota_reset_at: Annotated[int, Meta(description="ms since 1970")]
    requests_this_minute: int | None = None
    requests_this_hour: int | None = None
    active_requests: int | None = None
    total_sessions: int | None = None
    disk_usage_bytes: int | None = None
    workspace_bytes: int | None = None
    agent_data_bytes: int | None = None
    memory_db_bytes: int | None = None
    disk_measured_at: Annotated[int | None, Meta(description="ms since 1970")] = None


class UsageHistoryResult(Result, frozen=True, kw_only=True):
    tenant_id: str
    history: Annotated[Sequence[UsageSnapshot], Meta(description="Newest month first.")]


class QuotaStatusResult(Result, frozen=True, kw_only=True):
    tenant_id: str
    quotas: Annotated[Mapping[str, int], Meta(description="In the original's names.")]
    limits: Annotated[
        Mapping[str, str | int | None], Meta(description="All of them, as in REST; null: none.")
    ]
    usage: UsageSnapshot
    token_usage_percent: float
    cost_usage_percent: float
    disk_usage_percent: float
    is_over_token_limit: bool
    is_over_cost_limit: bool
    is_over_disk_limit: bool
    is_at_soft_limit: bool
    is_blocked: bool


class QuotaUpdateResult(Result, frozen=True, kw_only=True):
    updated: bool
    tenant_id: str
    quotas: Mapping[str, int]
    limits: Mapping[str, str | int | None]
