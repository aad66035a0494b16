"""From a model's name to the providers that are asked, in which order."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig, ModelsConfig, ProviderConfig
from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import ModelUnknown, ProviderFailure
from appliance.providers.base import Provider, Reply
from appliance.providers.errors import (
    ContextExceeded,
    Unreachable,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from appliance.services.routing import LONGEST_COOLDOWN, Route, Router, Target

NOW = datetime(2026, 11, 21, tzinfo=UTC)
A, B, C = Target("a", "one"), Target("b", "two"), Target("c", "three/x")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class FakeProvider:
    dialect = Dialect.OPENAI

    def __init__(self, name: str, *models: str, delay: float = 0) -> None:
        self.name = name
        self._models = models
        self._delay = delay

    def open(
        self, call: ModelCall, *, api_key: str | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        raise AssertionError("a router asks no model")

    async def models(self) -> Sequence[str]:
        await trio.sleep(self._delay)
        return self._models

    async def aclose(self) -> None:
        pass


def config(**models: Any) -> GatewayConfig:
    providers = {
        name: ProviderConfig(dialect="openai", models=["listed-model"] if name == "a" else [])
        for name in ("a", "b", "c")
    }
    return GatewayConfig(providers=providers, models=ModelsConfig(**models))


CONFIG = config(
    aliases={"fast": "a/one", "smart": "b/two", "lost": "gone/x"},
    failover={
        "smart": ["b/two", "c/three/x"],
        "fast": ["b/two", "c/three/x"],
        "any": ["c/three/x", "a/one"],
        "c/three/x": ["a/one", "gone/x"],
    },
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def router(clock: Clock) -> Router:
    return Router(dict, clock=clock)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("a/one", [A]),
        ("a/not-listed-anywhere", [Target("a", "not-listed-anywhere")]),
        ("a/org/model:tag", [Target("a", "org/model:tag")]),
        ("smart", [B, C]),
        ("fast", [A, B, C]),
        ("any", [C, A]),
        ("c/three/x", [C, A]),
    ],
)
def test_a_name_leads_to_its_targets(router: Router, name: str, targets: list[Target]) -> None:
    route = router.resolve(name, CONFIG)

    assert route == Route(name, tuple(targets))


def test_an_alias_of_a_model_with_a_chain_has_that_chain(router: Router) -> None:
    settings = config(aliases={"best": "a/one"}, failover={"a/one": ["b/two"]})

    assert router.resolve("best", settings).targets == (A, B)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("", "write provider/model"),
        ("nonsense", "write provider/model"),
        ("smrt", "did you mean 'smart'"),
        ("listed-model", "did you mean 'a/listed-model'"),
        ("d/one", "there are a, b, c"),
        ("/one", "write provider/model"),
        ("a/", "write provider/model|did you mean"),
        ("lost", "there is no model 'lost'"),
        ("x" * 1000, "x{80}'"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_the_way(router: Router, name: str, hint: str) -> None:
    with pytest.raises(ModelUnknown, match=hint) as caught:
        router.resolve(name, CONFIG)

    assert len(caught.value.detail) < 300


def test_a_provider_that_failed_is_tried_last_for_a_while(router: Router, clock: Clock) -> None:
    route = router.resolve("fast", CONFIG)
    assert list(router.order(route)) == [A, B, C]

    router.note_failure(A, UpstreamFailed("no"))

    assert list(router.order(route)) == [B, C, A]
    assert router.cooling(A) == 1
    clock.advance(1)
    assert list(router.order(route)) == [A, B, C]


def test_each_failure_in_a_row_doubles_the_wait_up_to_five_minutes(
    router: Router, clock: Clock
) -> None:
    waits = []
    for _ in range(12):
        router.note_failure(A, UpstreamTimeout("slow"))
        wait = router.cooling(A)
        assert wait is not None
        waits.append(wait)
        clock.advance(wait)

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_calls_that_fail_together_count_once(router: Router) -> None:
    for _ in range(64):
        router.note_failure(A, UpstreamFailed("no"))

    assert router.cooling(A) == 1


def test_an_answer_ends_the_wait_and_the_count(router: Router, clock: Clock) -> None:
    for _ in range(3):
        router.note_failure(A, UpstreamFailed("no"))
        clock.advance(10)
    router.note_success(A)
    router.note_success(B)

    router.note_failure(A, UpstreamFailed("no"))

    assert router.cooling(A) == 1


@pytest.mark.parametrize(("asked", "waits"), [(7.0, 7.0), (0.0, None), (9999.0, 300.0)])
def test_what_a_provider_asks_for_is_kept_within_bounds(
    router: Router, asked: float, waits: float | None
) -> None:
    router.note_failure(A, UpstreamRateLimited("slow down", retry_after=asked))

    assert router.cooling(A) == waits


def test_a_later_failure_does_not_cut_short_what_a_provider_asked_for(router: Router) -> None:
    router.note_failure(A, UpstreamRateLimited("slow down", retry_after=60))
    router.note_failure(A, UpstreamFailed("no"))

    assert router.cooling(A) == 60


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamRefused("bad", status=400),
        UpstreamRefused("no such model", status=404),
        ContextExceeded("too long"),
    ],
)
def test_a_bad_request_says_nothing_about_the_provider(
    router: Router, failure: ProviderFailure
) -> None:
    router.note_failure(A, failure)

    assert router.cooling(A) is None


def test_what_a_tenants_own_key_meets_is_the_tenants_own_affair(router: Router) -> None:
    route = router.resolve("fast", CONFIG)
    router.note_failure(A, UpstreamRateLimited("slow down", retry_after=60), owner="acme")

    assert list(router.order(route)) == [A, B, C]
    assert list(router.order(route, owner=lambda _: "other")) == [A, B, C]
    assert list(router.order(route, owner=lambda _: "acme")) == [B, C, A]
    router.note_success(A, owner="acme")
    assert list(router.order(route, owner=lambda _: "acme")) == [A, B, C]


@pytest.mark.parametrize("of_owner", ["", "acme"])
def test_a_model_cools_down_for_what_it_was_asked_for_and_no_other_with_it(
    router: Router, of_owner: str
) -> None:
    other = Target("a", "other")
    router.note_failure(A, UpstreamFailed("500"), owner=of_owner)

    assert router.cooling(A, owner=of_owner) == 1
    assert router.cooling(A, kind="embedding", owner=of_owner) is None
    assert router.cooling(other, owner=of_owner) is None


def test_a_provider_that_cannot_be_reached_cools_down_with_all_it_has(router: Router) -> None:
    other = Target("a", "other")
    router.note_failure(A, Unreachable("no connection"))

    assert router.cooling(other, kind="embedding") == 1
    assert router.cooling(B) is None
    assert router.cooling(other, owner="acme") is None
    router.note_success(other)
    assert router.cooling(A) is None


def test_when_all_cool_down_all_are_still_tried_in_their_order(router: Router) -> None:
    route = router.resolve("fast", CONFIG)
    for target in (C, A, B):
        router.note_failure(target, UpstreamUnavailable("down"))

    assert list(router.order(route)) == [A, B, C]


def test_a_clock_that_is_set_back_locks_nobody_out(router: Router, clock: Clock) -> None:
    router.note_failure(A, UpstreamFailed("no"))
    clock.advance(-LONGEST_COOLDOWN.total_seconds() * 2)

    assert router.cooling(A) is None


def test_the_book_of_failures_has_an_end(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.services.cooldowns._MOST_RECORDS", 10)
    for number in range(100):
        router.note_failure(A, UpstreamFailed("no"), owner=f"tenant-{number}")

    assert len(router._cooldowns) == 10
    assert router.cooling(A, owner="tenant-99") == 1


def test_balanced_targets_come_before_the_chain_of_their_name(router: Router) -> None:
    config = parse_config(
        """
        providers: {a: {dialect: openai}, b: {dialect: openai}, c: {dialect: openai}}
        models:
          balance: {mixed: [{model: a/m}, {model: b/m}]}
          failover: {mixed: [c/m, a/m]}
        """,
        name="config",
    )
    route = router.resolve("mixed", config)

    assert [str(target) for target in route.targets] == ["a/m", "b/m", "c/m"]
    assert [[str(t) for t in router.order(route)] for _ in range(2)] == [
        ["a/m", "b/m", "c/m"],
        ["b/m", "a/m", "c/m"],
    ]
    router.note_failure(Target("a", "m"), UpstreamUnavailable("down"))
    assert [str(t) for t in router.order(route)] == ["b/m", "c/m", "a/m"]


async def test_the_catalogue_lists_aliases_and_what_providers_offer(
    clock: Clock, autojump_clock: MockClock
) -> None:
    providers: Mapping[str, Provider] = {
        # The others could not be asked for.
        "a": FakeProvider("a", "one", "org/two", "", "x\ny", "x" * 300),
        "b": FakeProvider("b"),
        "c": FakeProvider("c", "late", delay=60),
        "unconfigured": FakeProvider("unconfigured", "x"),
    }
    router = Router(lambda: providers, clock=clock)

    entries = [(entry.id, entry.owned_by) for entry in await router.catalogue(CONFIG)]

    assert entries == [
        ("any", "c"),
        ("c/three/x", "c"),
        ("fast", "a"),
        ("smart", "b"),
        ("a/one", "a"),
        ("a/org/two", "a"),
    ]
    assert trio.current_time() < 10


def test_a_target_reads_as_it_is_written() -> None:
    assert str(Target.parse("a/b/c")) == "a/b/c"
    assert Target.parse("a/b/c") == Target("a", "b/c")
    assert Target.parse("abc") is None
