"""What the verbs of ``TenantService`` answer with."""

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.model.quotas import Quotas
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import TokenRecord


@dataclass(frozen=True, slots=True)
class CreatedTenant:
    record: TenantRecord
    token: TokenRecord
    token_text: str


@dataclass(frozen=True, slots=True)
class TenantPage:
    """``broken`` names the tenants of this gateway whose record cannot be read, and why."""

    records: tuple[TenantRecord, ...]
    next_cursor: str | None
    broken: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TenantQuotas:
    """``explicit`` is set for the tenant; ``effective`` has the gateway's defaults below it."""

    effective: Quotas
    explicit: Mapping[str, int | None]
