"""The original's internal API on the wire, member for member in its spelling."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from appliance.transports.schemas.base import Body, View
from appliance.transports.schemas.tenants import Name


class InternalTenantCreate(Body, frozen=True, rename="camel"):
    display_name: Name | None = None


class InternalTenant(View, frozen=True, rename="camel"):
    id: str
    display_name: str
    created_at: datetime
    disabled: bool


class InternalTenantCreated(View, frozen=True, rename="camel"):
    tenant: InternalTenant
    token: Annotated[str, Meta(description="Shown this once; only its digest is kept.")]


class InternalTenantDeleted(View, frozen=True, rename="camel"):
    id: str
    deleted: bool
    data_deleted: bool


class HostMetrics(Struct, frozen=True, kw_only=True, rename="camel"):
    cpu_count: int
    load1m: float
    memory_total_bytes: int
    memory_free_bytes: int
    uptime_seconds: int
    tenants_count: int
    reported_at: datetime


class InternalStatus(View, frozen=True, rename="camel"):
    version: str
    status: Literal["ok", "not ready"]
    capabilities: Sequence[str]
    multi_tenant: bool
    tenants_count: int
    metrics: HostMetrics
