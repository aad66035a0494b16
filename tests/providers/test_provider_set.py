"""The providers of a config, with their keys."""

from datetime import UTC, datetime
from typing import Any

import pytest

from appliance.config.loading import parse_config
from appliance.model.errors import ConfigInvalid
from appliance.providers.api_keys import ApiKey
from appliance.providers.provider_set import ProviderSet

SECRETS = {"env:A": "sk-a", "env:B": "sk-b"}
ONE = 'providers: {stub: {dialect: openai, api_key: "env:A"}, bare: {dialect: openai}}'
TWO = (
    'providers: {stub: {dialect: openai, api_key: "env:A", api_keys: [{key: "env:B", weight: 3}]}}'
)
GONE = 'providers: {stub: {dialect: openai, api_keys: [{key: "env:C"}]}}'


def resolve(reference: str, *, key: str) -> str:
    if reference not in SECRETS:
        raise ConfigInvalid.at(key, "there is no such secret")
    return SECRETS[reference]


def built(text: str) -> ProviderSet:
    no_embedded: Any = None
    return ProviderSet(
        parse_config(text, name="config"),
        resolve=resolve,
        build_embedded=no_embedded,
        clock=lambda: datetime(2026, 11, 22, tzinfo=UTC),
    )


def test_a_provider_has_the_keys_it_was_given() -> None:
    assert list(built(ONE).keys("stub")) == [ApiKey("sk-a")]
    assert list(built(TWO).keys("stub")) == [ApiKey("sk-a"), ApiKey("sk-b", 3)]
    assert list(built(ONE).keys("bare")) == list(built(ONE).keys("nobody")) == []


def test_a_secret_that_is_missing_is_named_by_its_place() -> None:
    with pytest.raises(ConfigInvalid, match=r"providers\.stub\.api_keys\[0\]\.key"):
        built(GONE)


async def test_a_provider_whose_keys_change_is_built_anew_and_others_stay() -> None:
    providers = built(ONE)
    before = dict(providers.current())
    text = ONE.replace('api_key: "env:A"', 'api_keys: [{key: "env:A"}, {key: "env:B"}]')

    providers.use(parse_config(text, name="config"))

    assert providers.current()["bare"] is before["bare"]
    assert providers.current()["stub"] is not before["stub"]
    assert [key.secret for key in providers.keys("stub")] == ["sk-a", "sk-b"]


def test_a_config_that_cannot_be_used_changes_nothing() -> None:
    providers = built(ONE)
    with pytest.raises(ConfigInvalid):
        providers.check(parse_config(GONE, name="config"))

    assert list(providers.keys("stub")) == [ApiKey("sk-a")]
