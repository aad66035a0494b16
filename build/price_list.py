"""Write ``appliance/services/price_list.json`` from the installed genai-prices.

The package itself stays out of the running gateway: importing it costs 60 MB
and most of a second (it brings pydantic and an HTTP client), and all we need
of it is what tokens and searches cost. A new list is a diff that somebody can read.

    python build/price_list.py
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, time
from decimal import ROUND_HALF_UP, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers

TARGET = Path(__file__).parent.parent / "appliance" / "services" / "price_list.json"

# Theirs → ours. What is charged by neither tokens nor searches has no place in a price of ours.
_CLASSES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "input_audio",
    "output_audio_mtok": "output_audio",
    "web_searches_kcount": "web_search",
}
_NANO = 10**9


def render() -> str:
    """The list as JSON, one model a line."""
    head = {"source": "genai-prices", "version": version("genai-prices"), "currency": "USD"}
    lines = [",\n".join(_provider(provider)) for provider in providers]
    start = json.dumps(head)[:-1]
    return f'{start}, "providers": [\n' + ",\n".join(lines) + "\n]}\n"


def _provider(provider: types.Provider) -> Iterator[str]:
    head = {
        "id": provider.id,
        "url": provider.api_pattern,
        "fallback": provider.fallback_model_providers or [],
    }
    re.compile(provider.api_pattern)
    models = [json.dumps(_model(model), ensure_ascii=False) for model in provider.models]
    yield json.dumps(head)[:-1] + ', "models": [\n' + ",\n".join(models) + "\n]}"


def _model(model: types.ModelInfo) -> dict[str, Any]:
    prices = model.prices
    if isinstance(prices, types.ModelPrice):
        prices = [types.ConditionalPrice(prices=prices)]
    context = {"context": model.context_window} if model.context_window else {}
    return {
        "id": model.id,
        "match": _clause(model.match),
        **context,
        "prices": [_conditions(price.constraint) | _price(price.prices) for price in prices],
    }


def _clause(clause: Any) -> dict[str, Any]:
    match clause:
        case types.ClauseOr():
            return {"or": [_clause(part) for part in clause.or_]}
        case types.ClauseAnd():
            return {"and": [_clause(part) for part in clause.and_]}
        case types.ClauseRegex():
            re.compile(clause.regex)
            return {"regex": clause.regex}
        case types.ClauseEquals():
            return {"equals": clause.equals.lower()}
        case types.ClauseContains():
            return {"contains": clause.contains.lower()}
        case types.ClauseStartsWith():
            return {"starts_with": clause.starts_with.lower()}
        case types.ClauseEndsWith():
            return {"ends_with": clause.ends_with.lower()}
    raise TypeError(f"a clause of a new kind: {clause!r}")


def _conditions(constraint: Any) -> dict[str, Any]:
    match constraint:
        case None:
            return {}
        case types.StartDateConstraint():
            return {"since": constraint.start_date.isoformat()}
        case types.TimeOfDateConstraint():
            return {"between": [_minute(constraint.start_time), _minute(constraint.end_time)]}
    raise TypeError(f"a constraint of a new kind: {constraint!r}")


def _minute(moment: time) -> int:
    """Minutes since midnight UTC."""
    if moment.tzinfo not in {None, UTC} or moment.second or moment.microsecond:
        raise ValueError(f"{moment!r} is no full minute in UTC")
    return moment.hour * 60 + moment.minute


def _price(price: types.ModelPrice) -> dict[str, Any]:
    """Nano-dollars by class, per million tokens or thousand searches; the steps of long prompts."""
    found = {
        ours: value
        for theirs, ours in _CLASSES.items()
        if (value := getattr(price, theirs)) is not None
    }
    base = {name: _nano(value) for name, value in found.items()}
    starts = sorted(
        {t.start for v in found.values() if isinstance(v, types.TieredPrices) for t in v.tiers}
    )
    steps = [
        {"above": start} | {name: _nano(value, start) for name, value in found.items()}
        for start in starts
    ]
    return base | ({"steps": steps} if steps else {})


def _nano(value: Decimal | types.TieredPrices, above: int = -1) -> int:
    """The price that holds for prompts of more than ``above`` tokens."""
    if isinstance(value, types.TieredPrices):
        reached = [tier.price for tier in value.tiers if tier.start <= above]
        value = reached[-1] if reached else value.base
    return int((value * _NANO).quantize(Decimal(1), rounding=ROUND_HALF_UP))


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(f"{TARGET.name}: genai-prices {version('genai-prices')}, {TARGET.stat().st_size} bytes")
