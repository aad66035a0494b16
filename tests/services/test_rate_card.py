"""Prices: the operator's first, then the public list, else nobody knows."""

import runpy
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from appliance.config.schema import GatewayConfig, ModelsConfig, ProviderConfig, RateConfig
from appliance.model.money import FREE, NANO, Price
from appliance.services import price_list
from appliance.services.rate_card import RateCard, Seller
from tests.books import NOON, HandClock

OWN = Price(1, 2, 3, 4, 5)
SELLERS = {
    "openai": Seller("openai"),
    "responses": Seller("openai-responses"),
    "claude": Seller("anthropic"),
    "deep": Seller("openai", "https://api.deepseek.com/v1"),
    "router": Seller("openai", "https://openrouter.ai/api/v1"),
    "elsewhere": Seller("openai", "https://models.example.com/v1"),
    "beside": Seller("openai", "http://localhost:8000/v1"),
    "next-door": Seller("openai", "http://10.0.0.5:8000/v1"),
    "ollama": Seller("ollama", "http://127.0.0.1:11434"),
    "local": Seller("embedded"),
}


def card(
    overrides: dict[str, Price] | None = None,
    *,
    currency: str = "USD",
    clock: HandClock | None = None,
) -> RateCard:
    return RateCard(
        overrides=overrides or {},
        sellers=SELLERS,
        currency=currency,
        clock=clock or HandClock(),
    )


def dollars(amount: float) -> int:
    return round(amount * NANO)


class TestOverrides:
    def test_the_operators_price_comes_first(self) -> None:
        assert card({"openai/gpt-4o": OWN}).price("openai", "gpt-4o") == OWN

    def test_a_free_model_may_be_given_a_price(self) -> None:
        prices = card({"local/smollm2": OWN})
        assert prices.price("local", "smollm2") == OWN
        assert prices.price("local", "other") == FREE

    def test_a_model_may_have_slashes(self) -> None:
        assert card({"router/meta/llama": OWN}).price("router", "meta/llama") == OWN

    def test_classes_that_the_operator_leaves_out_cost_what_their_kind_costs(self) -> None:
        config = GatewayConfig(
            providers={"stub": ProviderConfig(dialect="openai", base_url="http://127.0.0.1:1/v1")},
            models=ModelsConfig(rate_card={"stub/mock": RateConfig(input="1.00", output="2.00")}),
        )
        prices = RateCard.from_config(config, clock=HandClock())
        assert prices.price("stub", "mock") == Price(
            input=NANO, output=2 * NANO, cache_read=NANO, cache_write=NANO, reasoning=2 * NANO
        )
        assert prices.price("stub", "other") == FREE

    def test_sound_and_searches_have_the_price_that_the_operator_names(self) -> None:
        rate = RateConfig(
            input="1", output="2", input_audio="32", output_audio="64.5", web_search="10"
        )

        price = rate.price()
        assert (price.input_audio, price.output_audio) == (32 * NANO, dollars(64.5))
        assert price.web_search == 10 * NANO
        assert rate.surcharges() == {"input_audio", "output_audio", "web_search"}
        assert RateConfig(input="1", output="2").surcharges() == frozenset()
        assert RateConfig(input="1", output="2", web_search="0").surcharges() == {"web_search"}


class TestMoreThanTokens:
    @pytest.mark.parametrize(
        ("provider", "model"),
        [
            ("openai", "gpt-4o-search-preview-2025-03-11"),
            ("openai", "gpt-5-search-api"),
            ("openai", "o3-deep-research"),
            ("router", "perplexity/sonar-pro"),
            ("router", "openai/gpt-4o:online"),
            ("router", "google/gemini-2.5-flash-image"),
        ],
    )
    def test_the_operator_says_what_is_not_charged_by_the_token_only(
        self, provider: str, model: str
    ) -> None:
        assert card().price(provider, model) is None
        assert card({f"{provider}/{model}": OWN}).price(provider, model) == OWN

    @pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-audio-preview"])
    def test_what_else_is_listed_has_its_price(self, model: str) -> None:
        assert card().price("openai", model) is not None


class TestOwnMetal:
    @pytest.mark.parametrize("provider", ["ollama", "local", "next-door", "beside"])
    def test_models_of_ones_own_are_free(self, provider: str) -> None:
        assert card().price(provider, "gpt-4o") == FREE


class TestPublicList:
    def test_every_class_has_its_price(self) -> None:
        price = card().price("claude", "claude-sonnet-4-5")
        assert price is not None
        assert (price.input, price.output) == (3 * NANO, 15 * NANO)
        assert (price.cache_read, price.cache_write) == (dollars(0.3), dollars(3.75))
        assert price.reasoning == price.output
        assert price.at(200_000) is price
        long = price.at(200_001)
        assert (long.input, long.output) == (6 * NANO, dollars(22.5))

    def test_a_class_that_the_list_does_not_know_costs_what_its_kind_costs(self) -> None:
        price = card().price("openai", "gpt-4o")
        assert price is not None
        assert price.cache_write == price.input
        assert price.reasoning == price.output

    def test_sound_and_searches_have_a_price_where_the_list_knows_one(self) -> None:
        claude = card().price("claude", "claude-sonnet-4-5")
        audio = card().price("openai", "gpt-audio")
        assert claude is not None
        assert audio is not None
        assert claude.web_search == claude.at(200_001).web_search == 10 * NANO
        assert (claude.input_audio, claude.output_audio) == (None, None)
        assert (audio.input_audio, audio.output_audio) == (32 * NANO, 64 * NANO)
        assert audio.web_search is None

    def test_an_embedding_has_no_output(self) -> None:
        price = card().price("openai", "text-embedding-3-small")
        assert price is not None
        assert (price.input, price.output, price.reasoning) == (dollars(0.02), 0, 0)

    @pytest.mark.parametrize(
        ("provider", "model"),
        [
            ("openai", "gpt-4o-2024-11-20"),
            ("responses", "GPT-4o"),
            ("deep", "deepseek-chat"),
            ("router", "anthropic/claude-sonnet-4.5"),
        ],
    )
    def test_models_are_found_by_their_other_names(self, provider: str, model: str) -> None:
        assert card().price(provider, model) is not None

    @pytest.mark.parametrize(
        ("provider", "model"),
        [
            ("elsewhere", "gpt-4o"),  # not OpenAI's, whatever it is called
            ("openai", "my-own-model"),
            ("openai", "whisper-1"),  # charged by the minute
            ("nobody", "gpt-4o"),
            ("openai", ""),
        ],
    )
    def test_what_nobody_knows_is_none_and_not_nothing(self, provider: str, model: str) -> None:
        assert card().price(provider, model) is None

    def test_dollars_are_not_taken_for_another_currency(self) -> None:
        prices = card({"openai/o3": OWN}, currency="EUR")
        assert prices.price("openai", "gpt-4o") is None
        assert prices.price("openai", "o3") == OWN
        assert prices.price("local", "smollm2") == FREE


class TestTime:
    def test_a_price_of_the_night_ends_with_it(self) -> None:
        clock = HandClock(datetime(2026, 11, 21, 0, 29, 59, tzinfo=UTC))
        prices = card(clock=clock)
        seen = []
        for _ in range(3):
            price = prices.price("deep", "deepseek-chat")
            assert price is not None
            seen.append(price.input)
            clock.advance(1)
        clock.now = datetime(2026, 11, 21, 16, 30, tzinfo=UTC)
        price = prices.price("deep", "deepseek-chat")
        assert price is not None
        seen.append(price.input)
        assert seen == [dollars(0.135), dollars(0.27), dollars(0.27), dollars(0.135)]

    def test_a_price_holds_from_its_day_on(self) -> None:
        clock = HandClock(datetime(2025, 6, 9, 23, 59, 59, tzinfo=UTC))
        prices = card(clock=clock)
        before = prices.price("openai", "o3")
        clock.advance(1)
        after = prices.price("openai", "o3")
        assert before is not None
        assert after is not None
        assert (before.input, after.input) == (10 * NANO, 2 * NANO)


class TestMemory:
    def test_a_price_is_looked_up_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        real = price_list.offer

        def offer(provider: str, model: str) -> price_list.Offer | None:
            asked.append(model)
            return real(provider, model)

        monkeypatch.setattr(price_list, "offer", offer)
        prices = card()
        for _ in range(3):
            prices.price("openai", "gpt-4o")
            prices.price("openai", "unknown")
        assert asked == ["gpt-4o", "unknown"]

    def test_made_up_names_do_not_fill_the_memory(self) -> None:
        prices = card()
        for number in range(5_000):
            prices.price("nobody", str(number))
        assert len(prices._known) == 4_096


def test_the_library_the_list_comes_from_is_not_imported() -> None:
    script = """
import sys
from appliance.services.rate_card import RateCard, Seller
from tests.books import HandClock
card = RateCard(overrides={}, sellers={"o": Seller("openai")}, currency="USD", clock=HandClock())
assert card.price("o", "gpt-4o") is not None
heavy = {"genai_prices", "pydantic", "httpx2", "asyncio"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)


PROMPTS = (0, 200_001, 10**8)
GENERATOR = Path(__file__).parents[2] / "build" / "price_list.py"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(GENERATOR))


@pytest.fixture(scope="module")
def snapshot() -> Any:
    return import_module("genai_prices.data_snapshot").get_snapshot()


class TestTheList:
    def test_it_is_what_the_pinned_library_says(self, generator: dict[str, Any]) -> None:
        """If not: python build/price_list.py, and read the diff."""
        assert generator["TARGET"].read_text(encoding="utf-8") == generator["render"]()

    def test_it_finds_and_prices_what_the_library_finds(self, snapshot: Any) -> None:
        names = [(p, name) for p in snapshot.providers for m in p.models for name in _names(m.id)]
        differ = [
            (provider.id, name)
            for provider, name in names
            if _asked_of_us(provider.id, name) != _asked_of_them(snapshot, provider, name)
        ]
        assert len(names) > 2_000
        assert differ == []


def _names(model: str) -> tuple[str, ...]:
    return model, model.upper(), f"{model}-20251211"


def _asked_of_us(provider: str, name: str) -> list[tuple[int, ...] | None] | None:
    offer = price_list.offer(provider, name)
    return None if offer is None else [_ours(offer.price(NOON), prompt) for prompt in PROMPTS]


def _asked_of_them(snapshot: Any, provider: Any, name: str) -> list[tuple[int, ...] | None] | None:
    model = provider.find_model(name, all_providers=snapshot.providers)
    return None if model is None else [_theirs(model.get_prices(NOON), p) for p in PROMPTS]


def _ours(price: Price | None, prompt: int) -> tuple[int, ...] | None:
    if price is None:
        return None
    held = price.at(prompt)
    return (held.input, held.output, held.cache_read, held.cache_write, held.reasoning)


def _theirs(prices: Any, prompt: int) -> tuple[int, ...] | None:
    """What the library says, with what it leaves out as the manual describes."""

    def nano(key: str) -> int | None:
        value = getattr(prices, key)
        if hasattr(value, "tiers"):
            reached = [tier.price for tier in value.tiers if prompt > tier.start]
            value = reached[-1] if reached else value.base
        return None if value is None else int(value * NANO + Decimal("0.5"))

    given, answered = nano("input_mtok"), nano("output_mtok") or 0
    if given is None:
        return None
    read, written = nano("cache_read_mtok"), nano("cache_write_mtok")
    reasoned = nano("output_reasoning_mtok")
    return (
        given,
        answered,
        given if read is None else read,
        given if written is None else written,
        answered if reasoned is None else reasoned,
    )
