"""Several keys of one provider: they take turns by weight, and each fails by itself.

A key that is refused, or that has been used too much, is tried last for a
while; the provider's other keys are tried before another provider is. It cools
down for what it was asked for: a key may be for some models only, and whoever
names another one must not take it from the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from appliance.model.balancing import SmoothChoice
from appliance.model.errors import ProviderFailure
from appliance.providers.api_keys import ApiKey
from appliance.providers.errors import KEY_TROUBLE
from appliance.services.cooldowns import Cooldowns
from appliance.services.routing import Target


@dataclass(slots=True)
class _Ring:
    keys: Sequence[ApiKey]
    turns: SmoothChoice
    cooldowns: Cooldowns[tuple[int, str, str]]  # number of a key, model, kind of call


class KeyRings:
    """``keys`` returns the keys of a provider; where it has no more than one there is no ring."""

    def __init__(
        self, keys: Callable[[str], Sequence[ApiKey]], *, clock: Callable[[], datetime]
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._rings: dict[str, _Ring] = {}

    def order(self, target: Target, kind: str) -> Sequence[ApiKey]:
        """The keys to ask ``target`` with, in their order; none if there are not several."""
        keys = self._keys(target.provider)
        if len(keys) < 2:
            return ()
        ring = self._ring(target.provider, keys)
        return [keys[number] for number in ring.turns.order(_ready(ring, target.model, kind))]

    def note_failure(
        self, target: Target, kind: str, key: ApiKey, failure: ProviderFailure
    ) -> bool:
        """Whether ``failure`` is the key's own, which then cools down; the next one may do."""
        if not isinstance(failure, KEY_TROUBLE):
            return False
        ring = self._rings.get(target.provider)
        if ring is not None and key in ring.keys:
            cooling = ring.keys.index(key), target.model, kind
            ring.cooldowns.note_failure(cooling, asked=failure.retry_after)
        return True

    def note_success(self, target: Target, kind: str, key: ApiKey) -> None:
        ring = self._rings.get(target.provider)
        if ring is not None and len(ring.cooldowns) and key in ring.keys:
            ring.cooldowns.note_success((ring.keys.index(key), target.model, kind))

    def _ring(self, provider: str, keys: Sequence[ApiKey]) -> _Ring:
        ring = self._rings.get(provider)
        # A reload that changes a provider's keys makes a new ring of them.
        if ring is None or ring.keys != keys:
            turns = SmoothChoice([key.weight for key in keys])
            ring = self._rings[provider] = _Ring(keys, turns, Cooldowns(self._clock))
        return ring


def _ready(ring: _Ring, model: str, kind: str) -> Callable[[int], bool]:
    if not len(ring.cooldowns):
        return lambda _: True
    return lambda number: ring.cooldowns.left((number, model, kind)) is None
