"""``POST /v1/chat/completions``: a straight completion, or a turn of an agent."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from appliance.model.tokens import Scope
from appliance.protocols.chat_request import ChatRequest
from appliance.protocols.openai_chat import ChatWriter
from appliance.services.completions import Completions
from appliance.services.model_calls import CallRequest
from appliance.services.turns.turns import Turns
from appliance.transports.bodies import off_the_loop
from appliance.transports.raw.agents import TurnAnswer, agent_of, turn_of
from appliance.transports.raw.exchange import Exchange


@dataclass(frozen=True, slots=True)
class ChatHandler:
    completions: Completions
    turns: Turns
    clock: Callable[[], datetime]

    async def __call__(self, exchange: Exchange) -> None:
        exchange.require_method("POST")
        caller = exchange.admit(Scope.CHAT)
        body = await exchange.read()
        limit = exchange.door.config.server.max_body_bytes
        request = await off_the_loop(body, partial(ChatRequest.parse, body, limit_bytes=limit))
        exchange.answer.streams = request.stream
        runtime = await exchange.wake()
        writer = ChatWriter(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(self.clock().timestamp()),
            include_usage=request.include_usage,
            of_functions="functions" in request.body,
        )
        agent = agent_of(request.model)
        if agent is None:
            asked = _straight(request)
            work = partial(
                self.completions.complete, runtime, caller, asked, writer, exchange.answer
            )
        else:
            turn = await off_the_loop(body, partial(turn_of, exchange, agent, request))
            sink = TurnAnswer(exchange.answer, writer, model=request.model, streams=request.stream)
            work = partial(self.turns.run, runtime, caller, turn, sink)
        await exchange.perform(work)


def _straight(request: ChatRequest) -> CallRequest:
    return CallRequest(
        model=request.model,
        body=request.body,
        stream=request.stream,
        prompt_bytes=request.prompt_bytes,
        output_limit=request.output_limit,
        choices=request.choices,
    )
