"""A tenant's own provider keys on the wire. A key goes in and never comes out."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from appliance.transports.schemas.base import Body, View


class ProviderKeyPut(Body, frozen=True):
    api_key: Annotated[str, Meta(min_length=1, max_length=4096, description="Sealed at rest.")]
    dialect: Annotated[str, Meta(max_length=32)] | None = None
    base_url: Annotated[str, Meta(max_length=2000)] | None = None


class ProviderKeyView(View, frozen=True):
    provider: str
    dialect: str | None
    base_url: str | None


class ProviderKeyList(View, frozen=True):
    credentials: Sequence[ProviderKeyView]
