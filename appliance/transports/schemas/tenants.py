"""Tenants on the wire."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from msgspec import UNSET, Meta, UnsetType, field

from appliance.model.ids import TENANT_ID
from appliance.model.quotas import render_limit
from appliance.model.tenants import LONGEST_NAME, TenantRecord
from appliance.transports.schemas.base import Body, Cursor, JsonObject, PageSize, Query, View

TenantId = Annotated[
    str,
    Meta(
        pattern=f"^{TENANT_ID.pattern}$",
        max_length=32,
        description="a-z, 0-9, '_' and '-', starting with a letter or digit.",
        examples=["acme"],
    ),
]
Name = Annotated[str, Meta(max_length=LONGEST_NAME, description="For people; any text.")]


class TenantCreate(Body, frozen=True):
    """A new tenant. Without an id, one is made up."""

    id: TenantId | None = None
    name: Name | None = None
    quotas: JsonObject = field(default_factory=dict)
    config: JsonObject = field(default_factory=dict)
    template: Annotated[str, Meta(max_length=200)] | None = None


class TenantUpdate(Body, frozen=True):
    """What is not named stays as it is."""

    name: Name | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    disabled_reason: Annotated[str, Meta(max_length=LONGEST_NAME)] = ""


class TenantListQuery(Query, frozen=True):
    limit: PageSize = 100
    cursor: Cursor | None = None
    q: (
        Annotated[str, Meta(max_length=LONGEST_NAME, description="A part of the id or name.")]
        | None
    ) = None


class TenantDeleteQuery(Query, frozen=True):
    delete_data: bool = False


class TenantView(View, frozen=True):
    id: str
    name: str
    created_at: datetime
    disabled: bool
    disabled_reason: str
    quotas: Annotated[
        dict[str, str | int | None],
        Meta(description="Only what is set for this tenant; …/quotas has what is in force."),
    ]
    tokens: Annotated[int, Meta(description="How many tokens there are.")]
    version: Annotated[int, Meta(description="Grows by one with each change.")]

    @classmethod
    def of(cls, record: TenantRecord) -> Self:
        return cls(
            id=record.id,
            name=record.name,
            created_at=record.created_at,
            disabled=record.disabled,
            disabled_reason=record.disabled_reason,
            quotas={key: render_limit(key, value) for key, value in record.quotas.items()},
            tokens=len(record.tokens),
            version=record.version,
        )


class TenantCreated(View, frozen=True):
    tenant: TenantView
    token: Annotated[str, Meta(description="Shown this once; only its digest is kept.")]


class BrokenTenant(View, frozen=True):
    id: str
    reason: str


class TenantPage(View, frozen=True):
    tenants: Sequence[TenantView]
    next_cursor: str | None = None
    broken: Annotated[
        Sequence[BrokenTenant], Meta(description="Those whose record cannot be read; not paged.")
    ] = ()
