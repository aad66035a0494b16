"""The keys of ``config.yaml`` about how calls are spread, timed, kept and guarded."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from msgspec import Meta

from appliance.config.fields import ModelName, Seconds, SecretReference
from appliance.config.section import Section
from appliance.model.calls import Timeouts

Weight = Annotated[int, Meta(ge=1, le=1000)]


class ApiKeyConfig(Section, frozen=True, kw_only=True):
    """One of several keys for a provider."""

    key: SecretReference
    weight: Weight = 1


class BalancedModel(Section, frozen=True, kw_only=True):
    model: ModelName
    weight: Weight = 1


BalancedModels = Annotated[list[BalancedModel], Meta(min_length=1, max_length=16)]


class ResponseCacheConfig(Section, frozen=True, kw_only=True):
    """Answers that are kept for whoever asks the very same again."""

    enabled: bool = False
    ttl: Seconds = 300.0
    max_bytes: Annotated[int, Meta(ge=1024, le=1024**4)] = 8 * 1024 * 1024


class ModelTimeouts(Section, frozen=True, kw_only=True):
    """Instead of the provider's own; what is not named stays as it is there."""

    request: Seconds | None = None
    first_token: Seconds | None = None
    idle: Seconds | None = None


def timeouts_of(sections: Sequence[ModelTimeouts]) -> Timeouts | None:
    """What holds for a call; the first section that names a time decides it."""
    if not sections:
        return None
    return Timeouts(
        request=_first(section.request for section in sections),
        first_token=_first(section.first_token for section in sections),
        idle=_first(section.idle for section in sections),
    )


def _first(times: Iterable[float | None]) -> float | None:
    return next((time for time in times if time is not None), None)
