"""``POST /v1/messages``: a straight completion, or a turn of an agent."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec

from appliance.model.calls import Dialect
from appliance.protocols.anthropic_writer import MessagesWriter
from appliance.protocols.chat_request import ChatRequest
from appliance.protocols.messages_request import MessagesRequest
from appliance.protocols.translation import read_prompt, write_body
from appliance.services.call_requests import CallRequest
from appliance.services.completions import Completions
from appliance.services.turns.turns import Turns
from appliance.transports.anthropic_api.entrance import Entered, enter
from appliance.transports.bodies import off_the_loop
from appliance.transports.raw.agents import TurnAnswer, agent_of, turn_of
from appliance.transports.raw.exchange import Exchange

PATH = "/v1/messages"


@dataclass(frozen=True, slots=True)
class MessagesHandler:
    completions: Completions
    turns: Turns
    clock: Callable[[], datetime]

    async def __call__(self, exchange: Exchange) -> None:
        entered = enter(exchange, clock=self.clock)
        body = await exchange.read()
        limit = exchange.door.config.server.max_body_bytes
        parse = partial(MessagesRequest.parse, body, limit_bytes=limit, version=entered.version)
        request = await off_the_loop(body, parse)
        exchange.answer.streams = request.stream
        agent = agent_of(request.model)
        runtime = await exchange.wake()
        writer = MessagesWriter(
            id=f"msg_{secrets.token_hex(12)}", prompt_tokens=request.estimated_tokens
        )
        if agent is None:
            asked = call_of(request, entered)
            work = partial(
                self.completions.complete, runtime, entered.caller, asked, writer, exchange.answer
            )
        else:
            chat = await off_the_loop(body, partial(_as_chat, request))
            turn = await off_the_loop(body, partial(turn_of, exchange, agent, chat))
            sink = TurnAnswer(exchange.answer, writer, model=request.model, streams=request.stream)
            work = partial(self.turns.run, runtime, entered.caller, turn, sink)
        await exchange.perform(work)


def call_of(request: MessagesRequest, entered: Entered) -> CallRequest:
    return CallRequest(
        model=request.model,
        body=request.body,
        stream=request.stream,
        prompt_bytes=request.prompt_bytes,
        output_limit=request.output_limit,
        dialect=Dialect.ANTHROPIC,
        headers=entered.headers,
    )


def _as_chat(request: MessagesRequest) -> ChatRequest:
    """The request as agents read them. Raises :exc:`InvalidRequest` for what they have no word for.

    Their sessions are named by ``user``, which is the ``metadata.user_id`` of this API.
    """
    prompt = read_prompt(Dialect.ANTHROPIC, request.body)
    members = dict(write_body(Dialect.OPENAI, prompt))
    members["model"] = msgspec.json.encode(request.model)
    members["stream"] = msgspec.json.encode(request.stream)
    members["max_completion_tokens"] = b"%d" % (request.output_limit or 0)
    return ChatRequest.of(members)
