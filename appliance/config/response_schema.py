"""The keys of ``config.yaml`` about responses and conversations that are kept."""

from typing import Annotated

from msgspec import Meta

from appliance.config.fields import Seconds
from appliance.config.section import Section

MIB = 1024 * 1024


class ResponsesDefaults(Section, frozen=True, kw_only=True):
    ttl_days: Annotated[int, Meta(ge=1, le=3650)] = 30  # after the last use
    max_stored: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    max_bytes: Annotated[int, Meta(ge=MIB, le=1024 * 1024 * MIB)] = 1024 * MIB
    max_background: Annotated[int, Meta(ge=0, le=1000)] = 16  # under way at once
    background_timeout: Seconds = 3600.0  # for one of them, from its start to its end
