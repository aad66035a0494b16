"""What a call costs: the operator's prices first, then the public list, else nobody knows.

A price of the list is taken only where the list speaks of the same seller: a
provider is recognised by its address, and one at an address of its own sells
at prices of its own, whatever its models are called. Models on the operator's
own machines cost nothing until the operator says otherwise. Models that search
or draw by themselves are charged by the search or the picture as well, of which
the list does not tell: their price is for the operator to say.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

from appliance.config.schema import GatewayConfig
from appliance.model.money import FREE, Price
from appliance.model.periods import MINUTE, to_ns
from appliance.services import price_list

# Callers name models, so what is remembered of them has an end.
_REMEMBERED = 4_096
_ALWAYS = 2**63  # ns

# Where a dialect's provider is if no base_url says otherwise.
_HOME = {"openai": "openai", "openai-responses": "openai", "anthropic": "anthropic"}
_OWN_METAL = frozenset({"embedded", "ollama"})
# Perplexity's and OpenAI's that search, OpenRouter's with a search, those that draw.
_BY_MORE_THAN_TOKENS = re.compile(
    r"\bsonar\b|-search-(?:api|preview)|-search$|deep-research|[:-]online$|-image\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Seller:
    """A configured provider, as far as it tells what its models cost."""

    dialect: str
    base_url: str | None = None


class RateCard:
    """Prices of one gateway configuration; make a new one when that changes."""

    def __init__(
        self,
        *,
        overrides: Mapping[str, Price],
        sellers: Mapping[str, Seller],
        currency: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._overrides = overrides  # by provider/model
        self._sellers = sellers
        self._currency = currency
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[Price | None, int]] = OrderedDict()

    @classmethod
    def from_config(cls, config: GatewayConfig, *, clock: Callable[[], datetime]) -> "RateCard":
        return cls(
            overrides={name: rate.price() for name, rate in config.models.rate_card.items()},
            sellers={
                name: Seller(provider.dialect, provider.base_url)
                for name, provider in config.providers.items()
            },
            currency=config.billing.currency,
            clock=clock,
        )

    def price(self, provider: str, model: str) -> Price | None:
        """The price now, None if it is not known. Remembered, so cheap from the second time on."""
        key = (provider, model)
        known = self._known.get(key)
        if known is not None and (known[1] == _ALWAYS or to_ns(self._clock()) < known[1]):
            return known[0]
        price, until = self._look_up(provider, model)
        if len(self._known) >= _REMEMBERED:
            self._known.popitem(last=False)
        self._known[key] = (price, until)
        return price

    def _look_up(self, provider: str, model: str) -> tuple[Price | None, int]:
        """The price, and until when (ns) it need not be looked up again."""
        override = self._overrides.get(f"{provider}/{model}")
        if override is not None:
            return override, _ALWAYS
        seller = self._sellers.get(provider)
        if seller is None:
            return None, _ALWAYS
        if _is_own_metal(seller):
            return FREE, _ALWAYS
        # The list is in one currency; an exchange rate is the operator's to know.
        if self._currency != price_list.currency() or _BY_MORE_THAN_TOKENS.search(model):
            return None, _ALWAYS
        listed = listed_as(seller)
        offer = None if listed is None else price_list.offer(listed, model)
        if offer is None:
            return None, _ALWAYS
        now = self._clock()
        until = (to_ns(now) // MINUTE + 1) * MINUTE if offer.changes else _ALWAYS
        return offer.price(now), until


def _is_own_metal(seller: Seller) -> bool:
    """Whether the operator runs the models: nobody sends a bill for a machine next door."""
    if seller.dialect in _OWN_METAL:
        return True
    host = urlsplit(seller.base_url or "").hostname or ""
    if host == "localhost":
        return True
    try:
        return not ip_address(host).is_global
    except ValueError:
        return False


def listed_as(seller: Seller) -> str | None:
    """What the public list calls ``seller``; None for one at an address of its own."""
    if seller.base_url is None:
        return _HOME.get(seller.dialect)
    return price_list.provider_at(seller.base_url)
