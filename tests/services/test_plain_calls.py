"""What costs more than its tokens needs a key of one's own, or the operator's word."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.providers.base import Provider
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.plain_calls import require_plain
from appliance.services.routing import Route, Target
from tests.fakes.tenants import CALLER

CONFIG = """
providers:
  claude: {dialect: anthropic}
  generous: {dialect: anthropic, extras: true}
  listed: {dialect: anthropic, models: ["sonnet:online"]}
models:
  default: claude/mock
  rate_card:
    claude/priced: {input: "1", output: "2", web_search: "10"}
    claude/free: {input: "1", output: "2", web_search: "0"}
    claude/unpriced: {input: "1", output: "2"}
"""
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
SOME = replace(CALLER, models=("claude/mock",))
WEB = {**SEARCH, "max_uses": 3}


@dataclass
class Tenant:
    key: str | None = None
    id: str = "acme"
    config: GatewayConfig = field(default_factory=lambda: parse_config(CONFIG, name="config"))

    def provider_key(self, provider: str) -> str | None:
        return self.key

    def own_provider(self, provider: str) -> Provider | None:
        return None


async def asks(
    target: str = "claude/mock",
    *others: str,
    tenant: Tenant | None = None,
    caller: Any = CALLER,
    **members: Any,
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], **members}
    request = CallRequest(
        model=target,
        body={name: json.dumps(value).encode() for name, value in body.items()},
        stream=False,
        prompt_bytes=40,
        output_limit=None,
        dialect=Dialect.ANTHROPIC,
    )
    targets = [Target.parse(name) for name in (target, *others)]
    found = tuple(each for each in targets if each is not None)
    awake = cast("AwakeTenant", tenant or Tenant())
    await require_plain(awake, caller, request, Route(target, found))


async def test_a_plain_call_may_go_out_with_any_key() -> None:
    await asks()
    await asks(caller=SOME)


@pytest.mark.parametrize("padding", [0, 200_000], ids=["small", "in a thread"])
async def test_a_search_is_not_for_the_gateways_key(padding: int) -> None:
    with pytest.raises(InvalidRequest, match="tools"):
        await asks(tools=[SEARCH], system="x" * padding)


async def test_it_is_for_ones_own_key_and_where_the_operator_says_so() -> None:
    await asks(tools=[SEARCH], tenant=Tenant(key="sk-own"))
    await asks("generous/mock", tools=[SEARCH])


async def test_a_token_for_some_models_leads_to_no_others_whoever_pays() -> None:
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": "other"}

    with pytest.raises(InvalidRequest, match="tools"):
        await asks(tools=[advisor], tenant=Tenant(key="sk-own"), caller=SOME)


async def test_a_name_that_asks_for_more_is_the_operators_to_offer() -> None:
    with pytest.raises(InvalidRequest, match="model: may cost"):
        await asks("claude/sonnet:online")
    await asks("listed/sonnet:online")
    await asks("claude/sonnet:online", tenant=Tenant(key="sk-own"))


@pytest.mark.parametrize("padding", [0, 200_000], ids=["small", "in a thread"])
async def test_a_search_that_the_operator_gave_a_price_is_for_the_gateways_key(
    padding: int,
) -> None:
    for model in ("claude/priced", "claude/free"):
        await asks(model, tools=[WEB], system="x" * padding)


@pytest.mark.parametrize("model", ["claude/unpriced", "claude/mock", "claude/claude-sonnet-4-5"])
async def test_without_the_operators_price_the_refusal_names_its_key(model: str) -> None:
    with pytest.raises(InvalidRequest, match=r"tools\[0\].type") as refused:
        await asks(model, tools=[WEB])

    assert "models.rate_card.*.web_search" in refused.value.fields[0].remedy


async def test_all_models_of_a_chain_need_the_price() -> None:
    await asks("claude/priced", "claude/free", tools=[WEB])
    await asks("claude/priced", "generous/mock", tools=[WEB])
    with pytest.raises(InvalidRequest, match="tools"):
        await asks("claude/priced", "claude/unpriced", tools=[WEB])


async def test_a_price_opens_no_door_for_a_token_with_a_key_of_its_own() -> None:
    with pytest.raises(InvalidRequest, match="other models") as refused:
        await asks("claude/priced", tools=[WEB], tenant=Tenant(key="sk-own"), caller=SOME)

    assert "rate_card" not in refused.value.fields[0].remedy
