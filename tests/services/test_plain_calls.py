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
models: {default: claude/mock}
"""
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
SOME = replace(CALLER, models=("claude/mock",))


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
    *,
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
    found = Target.parse(target)
    assert found is not None
    awake = cast("AwakeTenant", tenant or Tenant())
    await require_plain(awake, caller, request, Route(target, (found,)))


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
