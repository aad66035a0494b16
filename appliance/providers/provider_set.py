"""The providers of the gateway's config, rebuilt as it changes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

import trio

from appliance.config.schema import GatewayConfig, ProviderConfig
from appliance.providers.api_keys import ApiKey
from appliance.providers.base import Provider
from appliance.providers.building import build_http_provider
from appliance.providers.embedded import EmbeddedProvider

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]


class ResolveSecret(Protocol):
    def __call__(self, reference: str, *, key: str) -> str:
        """Raises :exc:`ConfigInvalid` if there is no such secret."""


class BuildEmbedded(Protocol):
    def __call__(self, name: str, config: ProviderConfig, /) -> EmbeddedProvider: ...


@dataclass(slots=True)
class _Built:
    config: ProviderConfig
    keys: tuple[ApiKey, ...]
    provider: Provider
    scope: trio.CancelScope | None = None  # of an embedded provider's own task


class ProviderSet:
    """Maps names to providers. One whose section did not change keeps its connections."""

    def __init__(
        self,
        config: GatewayConfig,
        *,
        resolve: ResolveSecret,
        build_embedded: BuildEmbedded,
        clock: Clock,
    ) -> None:
        """Raises :exc:`ConfigInvalid` for a provider that cannot be built."""
        self._resolve = resolve
        self._build_embedded = build_embedded
        self._clock = clock
        self._nursery: trio.Nursery | None = None
        self._built = self._build_all(config, {})
        self._providers = self._map()

    def current(self) -> Mapping[str, Provider]:
        return self._providers

    def keys(self, name: str) -> Sequence[ApiKey]:
        """The gateway's keys for a provider; empty for one that has none, or is none of ours."""
        built = self._built.get(name)
        return () if built is None else built.keys

    def check(self, config: GatewayConfig) -> None:
        """Raise :exc:`ConfigInvalid` if ``config`` names a provider that cannot be built."""
        self._build_all(config, self._built)

    def use(self, config: GatewayConfig) -> None:
        """Take the providers of ``config`` from now on; calls under way go on to their end."""
        before = self._built
        self._built = self._build_all(config, before)
        self._providers = self._map()
        kept = {id(built) for built in self._built.values()}
        for name, built in self._built.items():
            if before.get(name) is not built:
                self._start(built)
        for built in before.values():
            if id(built) not in kept:
                self._retire(built)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the processes and connections of the providers until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for built in self._built.values():
                    self._start(built)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            with trio.move_on_after(5, shield=True):
                for built in self._built.values():
                    await built.provider.aclose()

    def _map(self) -> dict[str, Provider]:
        return {name: built.provider for name, built in self._built.items()}

    def _build_all(self, config: GatewayConfig, before: Mapping[str, _Built]) -> dict[str, _Built]:
        return {
            name: self._build(name, section, before.get(name))
            for name, section in config.providers.items()
        }

    def _build(self, name: str, section: ProviderConfig, before: _Built | None) -> _Built:
        keys = self._resolved(name, section)
        if before is not None and before.config == section and before.keys == keys:
            return before
        secret = keys[0].secret if keys else None
        provider: Provider
        if section.dialect == "embedded":
            provider = self._build_embedded(name, section)
        else:
            provider = build_http_provider(name, section, api_key=secret, clock=self._clock)
        return _Built(section, keys, provider)

    def _resolved(self, name: str, section: ProviderConfig) -> tuple[ApiKey, ...]:
        path = f"providers.{name}"
        keys = []
        if section.api_key is not None:
            keys.append(ApiKey(self._resolve(section.api_key, key=f"{path}.api_key")))
        for index, each in enumerate(section.api_keys):
            secret = self._resolve(each.key, key=f"{path}.api_keys[{index}].key")
            keys.append(ApiKey(secret, each.weight))
        return tuple(keys)

    def _start(self, built: _Built) -> None:
        if self._nursery is not None and isinstance(built.provider, EmbeddedProvider):
            built.scope = trio.CancelScope()
            self._nursery.start_soon(self._hold, built.provider, built.scope)

    async def _hold(self, provider: EmbeddedProvider, scope: trio.CancelScope) -> None:
        with scope:
            await provider.run()

    def _retire(self, built: _Built) -> None:
        if built.scope is not None:
            built.scope.cancel()
        if self._nursery is not None:
            self._nursery.start_soon(partial(built.provider.aclose))
