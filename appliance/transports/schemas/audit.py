"""The audit log on the wire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from msgspec import UNSET, Meta, UnsetType

from appliance.model.audit import AuditEntry
from appliance.transports.schemas.base import PageSize, Query, View
from appliance.transports.schemas.tenants import TenantId


class AuditQuery(Query, frozen=True):
    limit: PageSize = 100
    before: (
        Annotated[int, Meta(ge=0, description="Only lines with a lower number; for admins.")] | None
    ) = None
    tenant: TenantId | None = None


class AuditActor(View, frozen=True):
    kind: str
    id: Annotated[str, Meta(description="The label of an admin key or the id of a token.")]


class AuditLine(View, frozen=True):
    """What happened, who did it, and for admins the line's place in the chain."""

    ts: datetime
    actor: AuditActor
    tenant: str | None
    action: str
    target: str
    result: str
    ip: str
    request_id: str
    details: Mapping[str, Any]
    seq: int | UnsetType = UNSET
    prev: str | UnsetType = UNSET
    hash: str | UnsetType = UNSET

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        in_chain = bool(entry.hash)
        return cls(
            ts=entry.ts,
            actor=AuditActor(kind=entry.actor.kind, id=entry.actor.id),
            tenant=entry.tenant,
            action=entry.action,
            target=entry.target,
            result=entry.result,
            ip=entry.ip,
            request_id=entry.request_id,
            details=entry.details,
            seq=entry.seq if in_chain else UNSET,
            prev=entry.prev if in_chain else UNSET,
            hash=entry.hash if in_chain else UNSET,
        )


class AuditPage(View, frozen=True):
    entries: Annotated[Sequence[AuditLine], Meta(description="Newest first.")]
    next_before: Annotated[int | None, Meta(description="For the next page.")] = None
