"""Which provider answers for a model's name, and in what order others are tried.

A name is an alias, a failover chain, or ``provider/model``. A provider that
failed is tried last for a while (see ``cooldowns``). It is still tried when nobody
else is left; for a tenant's only provider that is better than an answer of ours.
Behind a balanced name several targets take turns; then comes its chain.

What a tenant's own key meets says nothing about the others, so cool-downs are
kept for each owner of a key. What one model meets says nothing about the others
of its provider either, nor embeddings about chat: who could make one fail on
purpose would take the rest from everybody else. Only where there is no
connection at all everything of that provider is tried last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import trio

from appliance.config.schema import GatewayConfig, ModelsConfig
from appliance.model.balancing import SmoothChoice
from appliance.model.errors import Kind, ModelUnknown, ProviderFailure
from appliance.model.spelling import nearest
from appliance.protocols.chat_request import LONGEST_MODEL
from appliance.providers.base import Provider
from appliance.providers.errors import Unreachable
from appliance.services.cooldowns import LONGEST_COOLDOWN as LONGEST_COOLDOWN
from appliance.services.cooldowns import Cooldowns

_MOST_TURNS = 2_000  # balanced routes whose turn is remembered
_LIST_PATIENCE = 3.0  # seconds for all providers to tell their models
_QUOTED = 80

GATEWAY = ""  # the owner of the keys in the gateway's config
CHAT, EMBEDDING = "chat", "embedding"  # kinds of calls that fail by themselves
_Key = tuple[str, str, str, str]  # provider, owner, model, kind; the latter "" for all of them


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
    """The targets for a name, the preferred one first; never empty.

    The first ``len(weights)`` of them take turns; none: they are tried as they stand.
    """

    name: str
    targets: tuple[Target, ...]
    weights: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A name that may be asked for, the provider behind it, and all the models it leads to."""

    id: str
    owned_by: str
    leads_to: tuple[str, ...] = ()


class Router:
    def __init__(
        self,
        providers: Callable[[], Mapping[str, Provider]],
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._providers = providers
        self._cooldowns: Cooldowns[_Key] = Cooldowns(clock)
        self._turns: dict[Route, SmoothChoice] = {}

    def resolve(self, name: str, config: GatewayConfig) -> Route:
        """Return where ``name`` leads; raise :exc:`ModelUnknown` if nowhere."""
        models = config.models
        if name in models.balance:
            return _balanced(name, config)
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
        self,
        route: Route,
        *,
        kind: str = CHAT,
        owner: Callable[[Target], str] = lambda _: GATEWAY,
    ) -> Sequence[Target]:
        """The targets in the order to try them: those that cool down come last.

        ``kind`` is what they are asked for, and ``owner`` says whose key a target
        would be asked with.
        """
        if len(route.targets) == 1:
            return route.targets
        targets = route.targets
        if route.weights:
            targets = self._turn(route, kind, owner)
        if not len(self._cooldowns):
            return targets
        return sorted(targets, key=lambda t: self.cooling(t, kind=kind, owner=owner(t)) is not None)

    def _turn(self, route: Route, kind: str, owner: Callable[[Target], str]) -> tuple[Target, ...]:
        """The targets with the balanced ones in the order of this turn."""
        turns = self._turns.get(route)
        if turns is None:
            if len(self._turns) >= _MOST_TURNS:
                del self._turns[next(iter(self._turns))]
            turns = self._turns[route] = SmoothChoice(route.weights)

        def ready(number: int) -> bool:
            target = route.targets[number]
            return self.cooling(target, kind=kind, owner=owner(target)) is None

        order = turns.order(ready) if len(self._cooldowns) else turns.order()
        return tuple(route.targets[n] for n in order) + route.targets[len(order) :]

    def cooling(self, target: Target, *, kind: str = CHAT, owner: str = GATEWAY) -> float | None:
        """Seconds until ``target`` is tried in its turn again; None if it is now."""
        if not len(self._cooldowns):
            return None
        waits = map(self._cooldowns.left, _keys(target, kind, owner))
        return max((wait for wait in waits if wait is not None), default=None)

    def note_failure(
        self,
        target: Target,
        failure: ProviderFailure,
        *,
        kind: str = CHAT,
        owner: str = GATEWAY,
    ) -> None:
        """Remember that ``target`` did not answer; ``owner`` is the tenant whose key was used.

        What is wrong with the request says nothing about the provider.
        """
        if not failure.retryable or failure.kind is Kind.INVALID:
            return
        of_target, of_provider = _keys(target, kind, owner)
        key = of_provider if isinstance(failure, Unreachable) else of_target
        self._cooldowns.note_failure(key, asked=failure.retry_after)

    def note_success(self, target: Target, *, kind: str = CHAT, owner: str = GATEWAY) -> None:
        if len(self._cooldowns):
            for key in _keys(target, kind, owner):
                self._cooldowns.note_success(key)

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
        entries: dict[str, CatalogueEntry] = {}
        for name in _shortcuts(config.models):
            if targets := self.targets(name, config):
                leads_to = tuple(map(str, targets))
                entries[name] = CatalogueEntry(name, targets[0].provider, leads_to)
        for owner in sorted(listed):
            for model in listed[owner]:
                name = f"{owner}/{model}"
                # Of a provider's own making: what no request may say is of no use to anybody.
                if model and name.isprintable() and len(name) <= LONGEST_MODEL:
                    entries[name] = CatalogueEntry(name, owner)
        return list(entries.values())

    def behind_agent(self, agent: str, config: GatewayConfig) -> tuple[str, ...]:
        """All the models that may answer for an agent."""
        settings = config.defaults.agents.get(agent)
        model = (settings and settings.model) or config.models.default
        return () if model is None else tuple(map(str, self.targets(model, config)))

    def targets(self, name: str, config: GatewayConfig) -> Sequence[Target]:
        """Where ``name`` leads; nowhere for one of a provider that is not configured."""
        try:
            return self.resolve(name, config).targets
        except ModelUnknown:
            return ()


def _keys(target: Target, kind: str, owner: str) -> tuple[_Key, _Key]:
    """What cools down when a target fails, and when its provider cannot be reached."""
    return (target.provider, owner, target.model, kind), (target.provider, owner, "", "")


def _shortcuts(models: ModelsConfig) -> Sequence[str]:
    return sorted({*models.aliases, *models.failover, *models.balance})


def _balanced(name: str, config: GatewayConfig) -> Route:
    """The route behind a balanced name: those who take turns, then the chain of that name."""
    weights: dict[Target, int] = {}
    for each in config.models.balance[name]:
        target = Target.parse(each.model)
        if target is not None and target.provider in config.providers:
            weights[target] = weights.get(target, 0) + each.weight
    chain = map(Target.parse, config.models.failover.get(name, ()))
    others = (t for t in chain if t is not None and t.provider in config.providers)
    targets = tuple(dict.fromkeys((*weights, *others)))
    if not targets:
        raise ModelUnknown(_unknown(name, config))
    return Route(name, targets, tuple(weights.values()))


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
