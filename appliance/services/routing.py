"""Which provider answers for a model's name, and in what order others are tried.

A name is an alias, a failover chain, or ``provider/model``. A provider that
failed is tried last for a while: one second, doubled with each failure in a
row, or what it asked for, at most five minutes. It is still tried when nobody
else is left; for a tenant's only provider that is better than an answer of ours.

What a tenant's own key meets says nothing about the others, so cool-downs are
kept for each owner of a key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import trio

from appliance.config.schema import GatewayConfig, ModelsConfig
from appliance.model.errors import Kind, ModelUnknown, ProviderFailure
from appliance.model.spelling import nearest
from appliance.providers.base import Provider

LONGEST_COOLDOWN = timedelta(minutes=5)
_FIRST_COOLDOWN = timedelta(seconds=1)
_MOST_DOUBLINGS = 9  # 512 s: past the longest
_MOST_RECORDS = 10_000
_LIST_PATIENCE = 3.0  # seconds for all providers to tell their models
_QUOTED = 80

GATEWAY = ""  # the owner of the keys in the gateway's config


@dataclass(frozen=True, slots=True)
class Target:
    """One model of one provider."""

    provider: str
    model: str

    @classmethod
    def parse(cls, text: str) -> "Target | None":
        """Read ``provider/model``; the model may hold slashes itself."""
        provider, _, model = text.partition("/")
        return cls(provider, model) if provider and model else None

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Route:
    """The targets for a name, the preferred one first; never empty."""

    name: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A name that may be asked for, and the provider behind it."""

    id: str
    owned_by: str


@dataclass(frozen=True, slots=True)
class _Cooldown:
    failures: int
    until: datetime


class Router:
    def __init__(
        self,
        providers: Callable[[], Mapping[str, Provider]],
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._providers = providers
        self._clock = clock
        self._cooldowns: dict[tuple[str, str], _Cooldown] = {}

    def resolve(self, name: str, config: GatewayConfig) -> Route:
        """Return where ``name`` leads; raise :exc:`ModelUnknown` if nowhere."""
        models = config.models
        first = models.aliases.get(name, name)
        chain = models.failover.get(name) or models.failover.get(first) or []
        # A name that is no alias leads nowhere itself; the chain stands alone then.
        names = chain if first in chain else [first, *chain]
        parsed = (Target.parse(each) for each in names)
        targets = tuple(
            dict.fromkeys(t for t in parsed if t is not None and t.provider in config.providers)
        )
        if not targets:
            raise ModelUnknown(_unknown(name, config))
        return Route(name, targets)

    def order(
        self, route: Route, *, owner: Callable[[Target], str] = lambda _: GATEWAY
    ) -> Sequence[Target]:
        """The targets in the order to try them: those that cool down come last.

        ``owner`` says whose key a target would be asked with.
        """
        if not self._cooldowns or len(route.targets) == 1:
            return route.targets
        return sorted(
            route.targets, key=lambda t: self.cooling(t.provider, owner=owner(t)) is not None
        )

    def cooling(self, provider: str, *, owner: str = GATEWAY) -> float | None:
        """Seconds until ``provider`` is tried in its turn again; None if it is now."""
        cooldown = self._cooldowns.get((provider, owner))
        if cooldown is None:
            return None
        left = cooldown.until - self._clock()
        # More than any cool-down is long: the system's clock was set back.
        if left <= timedelta() or left > LONGEST_COOLDOWN:
            return None
        return left.total_seconds()

    def note_failure(
        self, target: Target, failure: ProviderFailure, *, owner: str = GATEWAY
    ) -> None:
        """Remember that ``target`` did not answer; ``owner`` is the tenant whose key was used.

        What is wrong with the request says nothing about the provider. Calls
        that fail while it cools down already count as one failure: they were
        all sent at the same time, or by somebody who asks for it.
        """
        if not failure.retryable or failure.kind is Kind.INVALID:
            return
        key = (target.provider, owner)
        already = self.cooling(target.provider, owner=owner) is not None
        known = self._cooldowns.pop(key, None)
        failures = 1 if known is None else known.failures + (not already)
        if failure.retry_after is None:
            wait = _FIRST_COOLDOWN * 2 ** min(failures - 1, _MOST_DOUBLINGS)
        else:
            wait = timedelta(seconds=failure.retry_after)
        if len(self._cooldowns) >= _MOST_RECORDS:
            del self._cooldowns[next(iter(self._cooldowns))]  # the one least recently failed
        until = self._clock() + min(wait, LONGEST_COOLDOWN)
        if already and known is not None:
            until = max(until, known.until)
        self._cooldowns[key] = _Cooldown(failures, until)

    def note_success(self, target: Target, *, owner: str = GATEWAY) -> None:
        if self._cooldowns:
            self._cooldowns.pop((target.provider, owner), None)

    async def catalogue(self, config: GatewayConfig) -> Sequence[CatalogueEntry]:
        """The names a caller may use, aliases first, without what a slow provider offers."""
        listed: dict[str, Sequence[str]] = {}

        async def ask(name: str, provider: Provider) -> None:
            listed[name] = await provider.models()

        with trio.move_on_after(_LIST_PATIENCE):
            async with trio.open_nursery() as nursery:
                for name, provider in self._providers().items():
                    if name in config.providers:
                        nursery.start_soon(ask, name, provider)
        owners = {name: self._owner(name, config) for name in _shortcuts(config.models)}
        for owner in sorted(listed):
            owners |= {f"{owner}/{model}": owner for model in listed[owner]}
        return [CatalogueEntry(id, owner) for id, owner in owners.items() if owner is not None]  # noqa: A001 - its name on the wire

    def _owner(self, name: str, config: GatewayConfig) -> str | None:
        try:
            return self.resolve(name, config).targets[0].provider
        except ModelUnknown:
            return None  # an alias of a provider that is not configured


def _shortcuts(models: ModelsConfig) -> Sequence[str]:
    return sorted({*models.aliases, *models.failover})


def _unknown(name: str, config: GatewayConfig) -> str:
    known = [
        *_shortcuts(config.models),
        *(f"{name}/{model}" for name, each in config.providers.items() for model in each.models),
    ]
    shown = name[:_QUOTED]
    target = Target.parse(name)
    if target is not None and target.provider not in config.providers:
        providers = sorted(config.providers)
        near = nearest(target.provider, providers)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(providers) or 'none'}"
        return f"there is no provider {target.provider[:_QUOTED]!r} for {shown!r}; {hint}"
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else "write provider/model, or see GET /v1/models"
    return f"there is no model {shown!r}; {hint}"
