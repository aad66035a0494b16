"""What is asked of a model, and what a call needs of the tenant it is for."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from appliance.config.schema import GatewayConfig
from appliance.model.calls import Dialect, ModelCall
from appliance.providers.base import Provider, Reply
from appliance.services.meter import Meter


class AwakeTenant(Protocol):
    """What a model call needs of a running tenant."""

    @property
    def id(self) -> str: ...
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def meter(self) -> Meter: ...
    def provider_key(self, provider: str) -> str | None:
        """The tenant's own key for ``provider``, None to use the gateway's."""

    def own_provider(self, provider: str) -> Provider | None:
        """A provider that only this tenant has."""


# How a provider is asked, with which key (None: its own).
Opens = Callable[[Provider, ModelCall, str | None], AbstractAsyncContextManager[Reply]]


def _converse(
    provider: Provider, call: ModelCall, api_key: str | None
) -> AbstractAsyncContextManager[Reply]:
    return provider.open(call, api_key=api_key)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What is asked of a model, and under which name it is accounted."""

    model: str  # as the caller named it: an alias or provider/model
    body: Mapping[str, bytes]
    stream: bool
    prompt_bytes: int
    output_limit: int | None  # tokens of one choice
    choices: int = 1
    kind: str = "chat"
    session: str | None = None
    agent: str | None = None
    dialect: Dialect = Dialect.OPENAI  # whose form the body has
    headers: Mapping[str, str] = field(default_factory=dict)  # for a provider of that dialect
    opens: Opens = _converse  # embeddings are asked for in another way
