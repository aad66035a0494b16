"""A tenant's configuration on the wire."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from appliance.transports.schemas.base import View


class ConfigView(View, frozen=True):
    """The overlay is what GET, PUT and PATCH are about; the rest is its effect."""

    overlay: Annotated[Mapping[str, Any], Meta(description="What the tenant has set.")]
    effective: Annotated[
        Mapping[str, Any],
        Meta(description="What holds with the gateway's defaults below, without admin-only keys."),
    ]
    etag: Annotated[str, Meta(description="The overlay's version, for If-Match.")]
