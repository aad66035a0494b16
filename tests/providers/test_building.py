"""From a section of the config to a provider."""

import json
from typing import Any

import pytest
from trio.testing import MockClock

from appliance.config.schema import ProviderConfig
from appliance.model.errors import ConfigInvalid
from appliance.providers.building import build_http_provider
from appliance.providers.errors import UpstreamUnavailable
from tests.protocols.calls import call
from tests.providers.conftest import Bench, clock


@pytest.mark.parametrize(
    ("dialect", "host", "path"),
    [
        ("openai", "api.openai.com", "/v1/chat/completions"),
        ("openai-responses", "api.openai.com", "/v1/responses"),
        ("anthropic", "api.anthropic.com", "/v1/messages"),
        ("ollama", "127.0.0.1:11434", "/api/chat"),
    ],
)
async def test_each_dialect_has_its_vendors_address_unless_told_otherwise(
    bench: Bench, dialect: str, host: str, path: str
) -> None:
    async with bench.provider(dialect, base_url=None).open(call(model="mock")):
        pass

    request = bench.stub.requests[0]
    assert (request.headers["host"], request.path) == (host, path)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"base_url": None}, "max_completion_tokens"),
        ({"base_url": "https://api.openai.com/v1/"}, "max_completion_tokens"),
        ({"base_url": "https://EU.api.openai.com/v1"}, "max_completion_tokens"),
        ({"base_url": None, "max_tokens_field": "max_tokens"}, "max_tokens"),
        ({"base_url": "https://notapi.openai.com.example/v1"}, "max_tokens"),
        ({"base_url": "http://vllm.example/v1"}, "max_tokens"),
        (
            {"base_url": "http://vllm.example/v1", "max_tokens_field": "max_completion_tokens"},
            "max_completion_tokens",
        ),
    ],
)
@pytest.mark.parametrize("given", [{}, {"max_tokens": 9}], ids=["a budget's", "the caller's"])
async def test_openai_is_told_a_limit_by_the_only_name_all_its_models_know(
    bench: Bench, settings: dict[str, Any], field: str, given: dict[str, Any]
) -> None:
    limit = None if given else 9
    asked = call(model="mock", output_limit=limit, **given)
    async with bench.provider("openai", **settings).open(asked):
        pass

    body = json.loads(bench.stub.requests[0].body)
    limits = {name: value for name, value in body.items() if name.startswith("max_")}
    assert limits == {field: 9}


@pytest.mark.parametrize(
    ("dialect", "base_url"),
    [
        ("anthropic", "https://proxy.example/anthropic"),
        ("anthropic", "https://proxy.example/anthropic/v1/"),
        ("ollama", "http://box.example:11434/api"),
        ("ollama", "http://box.example:11434/v1"),
        ("ollama", "http://box.example:11434/"),
    ],
)
async def test_the_version_in_a_base_url_may_be_written_or_not(
    bench: Bench, dialect: str, base_url: str
) -> None:
    async with bench.provider(dialect, base_url=base_url).open(call(model="mock")):
        pass

    expected = "/anthropic/v1/messages" if dialect == "anthropic" else "/api/chat"
    assert bench.stub.requests[0].path == expected


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"dialect": "embedded"}, "providers.acme.dialect", "process of ours"),
        ({"dialect": "openai", "base_url": "ftp://x"}, "providers.acme.base_url", "is no URL"),
        ({"dialect": "openai", "base_url": "nonsense"}, "providers.acme.base_url", "is no URL"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_built(
    settings: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(ConfigInvalid, match=said) as caught:
        build_http_provider("acme", ProviderConfig(**settings), api_key=None, clock=clock)

    assert caught.value.fields[0].field == field
    assert caught.value.fields[0].remedy


async def test_the_limits_of_the_config_are_kept(bench: Bench, autojump_clock: MockClock) -> None:
    provider = bench.provider(max_connections=1, connect_timeout=4)
    async with provider.open(call(model="fault-hang")):
        with pytest.raises(UpstreamUnavailable, match="max_connections"):
            async with provider.open(call(model="mock")):
                pass


async def test_a_tenants_provider_reaches_public_addresses_only() -> None:
    config = ProviderConfig(dialect="openai", base_url="http://127.0.0.1:9/v1")
    provider = build_http_provider("acme", config, api_key="sk-x", clock=clock, public_only=True)
    with pytest.raises(UpstreamUnavailable, match="not a public one"):
        async with provider.open(call()):
            pass
