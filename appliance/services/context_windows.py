"""How much a model reads at once, and how much of that a conversation may fill.

The operator's word comes first (``providers.<name>.context_tokens``), then the
public list that prices come from too, then a size that nearly every hosted
model has today. Whoever knows better says so in the config.
"""

from functools import lru_cache

from appliance.config.schema import GatewayConfig, ProviderConfig
from appliance.services import price_list
from appliance.services.rate_card import Seller, listed_as

USUAL = 128_000  # tokens


def context_window(config: GatewayConfig, model: str) -> int:
    """Tokens that ``model`` reads: ``provider/model``, an alias or a chain.

    Of a chain it is what the smallest of its models reads, since any of them
    may have to answer.
    """
    models = config.models
    first = models.aliases.get(model, model)
    chain = models.failover.get(model) or models.failover.get(first) or []
    if model in models.balance:
        chain = [*(each.model for each in models.balance[model]), *chain]
    names = {*chain, first} if "/" in first else set(chain)
    return min((_window(config, name) for name in names), default=USUAL)


def history_budget(config: GatewayConfig, model: str) -> int:
    """Tokens of the conversation so far that are sent along with what is said now.

    What the config says, else all that the model reads without what is kept
    free for the question and its answer.
    """
    session = config.defaults.session
    if session.history_tokens is not None:
        return session.history_tokens
    window = context_window(config, model)
    # A small model must have room for a conversation at all.
    return window - min(session.compaction.reserve_tokens, window // 2)


def _window(config: GatewayConfig, name: str) -> int:
    provider, _, model = name.partition("/")
    found = config.providers.get(provider)
    if found is None:
        return USUAL  # one that a tenant brought; we know its address at most
    return _provider_window(found) or _listed(found.dialect, found.base_url, model) or USUAL


def _provider_window(provider: ProviderConfig) -> int | None:
    return provider.embedded_context if provider.dialect == "embedded" else provider.context_tokens


# Looking a name up walks the list, for a millisecond; callers name models, so
# what is remembered of them has an end.
@lru_cache(maxsize=4096)
def _listed(dialect: str, base_url: str | None, model: str) -> int | None:
    seller = listed_as(Seller(dialect, base_url))
    return None if seller is None else price_list.context_window(seller, model)
