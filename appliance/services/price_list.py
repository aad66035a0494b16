"""What public providers charge, and how much their models read: a list that ships with the gateway.

``price_list.json`` is made from genai-prices by ``build/price_list.py``; its
rules for finding a model by a name are those of that package. Nothing is
fetched at run time: prices change with a release, or in ``models.rate_card``.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import msgspec

from appliance.model.money import Price, PriceStep

_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    """Nano-dollars per million tokens or thousand searches; what the list does not know is None."""

    above: int = 0
    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None
    web_search: int | None = None

    def price(self, steps: tuple[PriceStep, ...] = ()) -> Price | None:
        if self.input is None:
            return None  # charged by the hour, the page or the character
        output = self.output or 0  # embeddings have none
        return Price(
            input=self.input,
            output=output,
            cache_read=_or(self.cache_read, self.input),
            cache_write=_or(self.cache_write, self.input),
            reasoning=_or(self.reasoning, output),
            input_audio=self.input_audio,
            output_audio=self.output_audio,
            web_search=self.web_search,
            steps=steps,
        )


class _Terms(_Step, frozen=True, kw_only=True):
    """A price, and since which day or between which minutes of a day it holds."""

    since: date | None = None
    between: tuple[int, int] | None = None
    steps: tuple[_Step, ...] = ()

    def hold(self, now: datetime) -> bool:
        if self.since is not None:
            return now.date() >= self.since
        if self.between is None:
            return True
        start, end = self.between
        minute = now.hour * 60 + now.minute
        return start <= minute < end if start <= end else not end <= minute < start

    def full_price(self) -> Price | None:
        steps = [(step.above, step.price()) for step in self.steps]
        return self.price(tuple(PriceStep(above, p) for above, p in steps if p is not None))


class _Model(msgspec.Struct, frozen=True):
    id: str
    match: dict[str, Any]
    prices: tuple[_Terms, ...]
    context: int | None = None  # tokens


class _Provider(msgspec.Struct, frozen=True):
    id: str
    url: str
    fallback: tuple[str, ...]
    models: msgspec.Raw  # decoded when asked for: few providers of many are in use


class _List(msgspec.Struct, frozen=True):
    currency: str
    providers: tuple[_Provider, ...]


class Offer:
    """What one model costs, at different times."""

    def __init__(self, terms: Sequence[_Terms]) -> None:
        self._terms = terms

    @property
    def changes(self) -> bool:
        """Whether the price depends on the moment."""
        return len(self._terms) > 1

    def price(self, now: datetime) -> Price | None:
        """The price at ``now`` (aware, UTC); None if it is not charged by the token."""
        held = [terms for terms in self._terms if terms.hold(now)]
        chosen = held[-1] if held else next(iter(self._terms), None)
        return None if chosen is None else chosen.full_price()


def provider_at(url: str) -> str | None:
    """The id of the provider whose API is at ``url``."""
    return next((p.id for p in _load().providers if re.match(p.url, url)), None)


def offer(provider: str, model: str) -> Offer | None:
    """What ``provider`` charges for ``model``, by whichever of its names."""
    entry = _find(provider, model)
    return None if entry is None else Offer(entry.prices)


def context_window(provider: str, model: str) -> int | None:
    """How many tokens ``model`` of ``provider`` reads at once, if the list knows."""
    entry = _find(provider, model)
    return None if entry is None else entry.context


def currency() -> str:
    return _load().currency


@cache
def _load() -> _List:
    data = files(__package__).joinpath("price_list.json").read_bytes()
    return msgspec.json.decode(data, type=_List)


@lru_cache(maxsize=4)
def _models(provider: str) -> tuple[_Model, ...]:
    (listed,) = (p for p in _load().providers if p.id == provider)
    return msgspec.json.decode(listed.models, type=tuple[_Model, ...])


def _find(provider: str, model: str) -> _Model | None:
    model = model.lower()
    dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", model)
    for name in (model,) if dashed == model else (model, dashed):
        for listed in _sellers(provider):
            for entry in _models(listed.id):
                if _matches(entry.match, name):
                    return entry
    return None


def _sellers(provider: str) -> list[_Provider]:
    """The provider, then those whose models it resells."""
    listed = {p.id: p for p in _load().providers}
    first = listed.get(provider)
    if first is None:
        return []
    return [first, *(listed[name] for name in first.fallback if name in listed)]


def _matches(clause: dict[str, Any], name: str) -> bool:
    ((kind, wanted),) = clause.items()
    match kind:
        case "or":
            return any(_matches(part, name) for part in wanted)
        case "and":
            return all(_matches(part, name) for part in wanted)
        case "equals":
            return bool(name == wanted)
        case "contains":
            return wanted in name
        case "starts_with":
            return name.startswith(wanted)
        case "ends_with":
            return name.endswith(wanted)
        case "regex":
            return re.search(wanted, name) is not None
    raise ValueError(f"a clause of an unknown kind: {kind}")


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
