"""Several keys of one provider."""

from collections import Counter

import pytest

from appliance.model.errors import UpstreamFailed
from appliance.providers.api_keys import ApiKey
from appliance.providers.errors import AccountSpent, KeyRefused, UpstreamRateLimited
from appliance.services.key_rings import KeyRings
from appliance.services.routing import Target
from tests.books import HandClock

MOCK = Target("stub", "mock")
MUCH, LITTLE = ApiKey("sk-much", 3), ApiKey("sk-little", 1)


class Config:
    def __init__(self, *keys: ApiKey) -> None:
        self.keys = keys

    def __call__(self, provider: str) -> tuple[ApiKey, ...]:
        return self.keys if provider == "stub" else ()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_one_key_makes_no_ring(clock: HandClock) -> None:
    assert KeyRings(Config(MUCH), clock=clock).order(MOCK, "chat") == ()
    assert KeyRings(Config(), clock=clock).order(MOCK, "chat") == ()


def test_keys_take_turns_by_weight(clock: HandClock) -> None:
    rings = KeyRings(Config(MUCH, LITTLE), clock=clock)

    first = Counter(rings.order(MOCK, "chat")[0].secret for _ in range(8))

    assert first == {"sk-much": 6, "sk-little": 2}


@pytest.mark.parametrize(
    "failure", [KeyRefused("no"), AccountSpent("no"), UpstreamRateLimited("no", retry_after=7)]
)
def test_a_key_that_fails_is_tried_last_until_it_has_cooled_down(
    clock: HandClock, failure: UpstreamFailed
) -> None:
    rings = KeyRings(Config(MUCH, LITTLE), clock=clock)
    rings.order(MOCK, "chat")

    assert rings.note_failure(MOCK, "chat", MUCH, failure)

    assert [rings.order(MOCK, "chat")[0] for _ in range(4)] == [LITTLE] * 4
    clock.advance(failure.retry_after or 1)
    assert MUCH in [rings.order(MOCK, "chat")[0] for _ in range(2)]


def test_what_is_not_the_keys_fault_is_left_to_the_provider(clock: HandClock) -> None:
    rings = KeyRings(Config(MUCH, LITTLE), clock=clock)

    assert not rings.note_failure(MOCK, "chat", rings.order(MOCK, "chat")[0], UpstreamFailed("500"))


def test_a_success_ends_a_keys_cool_down(clock: HandClock) -> None:
    rings = KeyRings(Config(MUCH, LITTLE), clock=clock)
    rings.order(MOCK, "chat")
    rings.note_failure(MOCK, "chat", MUCH, KeyRefused("no"))
    rings.note_success(MOCK, "chat", MUCH)

    assert MUCH in [rings.order(MOCK, "chat")[0] for _ in range(4)]


@pytest.mark.parametrize(
    ("target", "kind"), [(Target("stub", "other"), "chat"), (MOCK, "embedding")]
)
def test_a_key_that_may_not_do_one_thing_is_not_taken_from_another(
    clock: HandClock, target: Target, kind: str
) -> None:
    rings = KeyRings(Config(MUCH, LITTLE), clock=clock)
    rings.order(target, kind)

    rings.note_failure(target, kind, MUCH, KeyRefused("403"))

    assert MUCH in [rings.order(MOCK, "chat")[0] for _ in range(4)]
    assert [rings.order(target, kind)[0] for _ in range(4)] == [LITTLE] * 4


def test_a_reload_with_other_keys_begins_anew(clock: HandClock) -> None:
    config = Config(MUCH, LITTLE)
    rings = KeyRings(config, clock=clock)
    rings.order(MOCK, "chat")
    rings.note_failure(MOCK, "chat", MUCH, KeyRefused("no"))
    config.keys = (MUCH, ApiKey("sk-new"))

    assert rings.order(MOCK, "chat")[0] == MUCH


def test_a_key_that_is_printed_says_nothing() -> None:
    assert "sk-much" not in repr(MUCH)
