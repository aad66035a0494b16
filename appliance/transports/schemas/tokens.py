"""Tokens and tickets on the wire. The text of a token goes out once, when it is made."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from msgspec import Meta

from appliance.model.tokens import Scope, TokenRecord
from appliance.transports.schemas.base import Body, Duration, Query, View

Models = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
    Meta(max_length=50, description="Models it is for: provider/model, an alias, or with *."),
]
Label = Annotated[str, Meta(max_length=100, description="For people, to tell tokens apart.")]


class TokenCreate(Body, frozen=True):
    label: Label = ""
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=len(Scope))] = (Scope.FULL,)
    expires_in: Duration | None = None
    models: Models = ()


class TokenRotate(Body, frozen=True):
    """Replaces every token of the tenant by one new token."""

    grace: (
        Annotated[
            str, Meta(max_length=32, description="How long the old tokens still work; 0s: not.")
        ]
        | None
    ) = None


class TokenView(View, frozen=True):
    id: str
    label: str
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    models: Annotated[Sequence[str], Meta(description="Empty: any model.")] = ()

    @classmethod
    def of(cls, record: TokenRecord) -> Self:
        return cls(
            id=record.id,
            label=record.label,
            scopes=sorted(record.scopes),
            created_at=record.created_at,
            expires_at=record.expires_at,
            last_used_at=record.last_used_at,
            models=record.models,
        )


class TokenList(View, frozen=True):
    tokens: Sequence[TokenView]


class TokenCreated(View, frozen=True):
    token: Annotated[str, Meta(description="Shown this once; only its digest is kept.")]
    id: str
    label: str
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None
    models: Annotated[Sequence[str], Meta(description="Empty: any model.")] = ()

    @classmethod
    def of(cls, record: TokenRecord, text: str) -> Self:
        return cls(
            token=text,
            id=record.id,
            label=record.label,
            scopes=sorted(record.scopes),
            created_at=record.created_at,
            expires_at=record.expires_at,
            models=record.models,
        )


class TicketCreate(Body, frozen=True):
    """A ticket opens one browser session, once."""

    ttl: Annotated[Duration | None, Meta(description="At most 15m.")] = None
    next: (
        Annotated[
            str,
            Meta(max_length=1000, description="Where /login goes on to: a path of this gateway."),
        ]
        | None
    ) = None


class TicketCreated(View, frozen=True):
    ticket: str
    url: Annotated[str, Meta(description="The path to open in the browser, without the host.")]
    expires_at: datetime


class LoginQuery(Query, frozen=True):
    ticket: Annotated[str, Meta(max_length=512)]
    next: Annotated[str, Meta(max_length=1000)] | None = None
