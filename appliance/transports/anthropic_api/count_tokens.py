"""``POST /v1/messages/count_tokens``: the tokens of a prompt. It costs nothing but a request."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec

from appliance.protocols.messages_request import MessagesRequest
from appliance.services.token_counts import ProviderCount, TokenCounts
from appliance.transports.anthropic_api.entrance import enter
from appliance.transports.anthropic_api.messages import call_of
from appliance.transports.bodies import off_the_loop
from appliance.transports.raw.agents import agent_of
from appliance.transports.raw.call_headers import ESTIMATED
from appliance.transports.raw.exchange import Exchange

PATH = "/v1/messages/count_tokens"


@dataclass(frozen=True, slots=True)
class CountHandler:
    counts: TokenCounts
    clock: Callable[[], datetime]

    async def __call__(self, exchange: Exchange) -> None:
        entered = enter(exchange, clock=self.clock)
        body = await exchange.read()
        limit = exchange.door.config.server.max_body_bytes
        parse = partial(
            MessagesRequest.parse_prompt, body, limit_bytes=limit, version=entered.version
        )
        request = await off_the_loop(body, parse)
        runtime = await exchange.wake()
        runtime.meter.count_request()
        counted = ProviderCount(None)
        # What an agent adds to a prompt is known when it takes its turn.
        if agent_of(request.model) is None:
            work = partial(self.counts.count, runtime, entered.caller, call_of(request, entered))
            counted = await exchange.perform(work)
        is_estimated = counted.tokens is None
        tokens = request.estimated_tokens if counted.tokens is None else counted.tokens
        await exchange.answer.whole(
            msgspec.json.encode({"input_tokens": tokens}),
            headers=(ESTIMATED,) if is_estimated else (),
            waited=counted.waited,
        )
