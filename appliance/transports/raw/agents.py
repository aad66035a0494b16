"""Agents behind the routes for models: ``model: openclaw``, and a turn's answer as a model's."""

import secrets
from collections.abc import Sequence

from appliance.model.agent_names import AGENT_MODEL as AGENT_MODEL
from appliance.model.agent_names import agent_of as agent_of
from appliance.model.calls import Delta, Finished
from appliance.model.errors import InvalidRequest
from appliance.model.ids import parse_agent_id
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.session_scopes import user_key
from appliance.protocols.answers import AnswerWriter
from appliance.protocols.chat_request import ChatRequest
from appliance.services.model_calls import OpenCall
from appliance.services.turns.requests import ToolActivity, TurnRequest
from appliance.transports.raw.answers import Answer
from appliance.transports.raw.exchange import Exchange

SESSION_HEADER = b"x-openclaw-session-key"
AGENT_HEADER = b"x-openclaw-agent-id"
MOST_MESSAGES = 10_000  # of one request; a turn looks at each


def turn_of(exchange: Exchange, agent: str, request: ChatRequest) -> TurnRequest:
    """The turn that a request asks of ``agent``.

    Its session is the one that a header names, or the caller's ``user``; without
    either nothing is remembered. Raises :exc:`InvalidRequest`.
    """
    if exchange.runtime is None:
        raise RuntimeError("the tenant was not woken")
    tenant = exchange.runtime.id
    named = exchange.header(AGENT_HEADER)
    if named is not None and agent == DEFAULT_AGENT:
        agent = named.decode("latin-1").strip().lower()
    try:
        agent = parse_agent_id(agent)
    except ValueError as exc:
        raise InvalidRequest.at("model", str(exc)) from exc
    session = exchange.header(SESSION_HEADER)
    keeps = True
    if session is not None:
        key = SessionKey.parse(_utf8(session), tenant=tenant, agent=agent)
    elif request.user:
        key = user_key(tenant, agent, request.user)
    else:
        # Front ends ask for titles and the like beside the conversation;
        # without a name for it, nothing is remembered for the next request.
        key = SessionKey(tenant, agent, f"openai:{secrets.token_hex(12)}")
        keeps = False
    messages = request.messages()
    if len(messages) > MOST_MESSAGES:
        raise InvalidRequest.at(
            "messages", f"are {len(messages)}, at most {MOST_MESSAGES}", "compact the conversation"
        )
    return TurnRequest(key, request, messages, keeps_history=keeps)


def _utf8(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest.at("x-openclaw-session-key", "is not UTF-8") from None


class TurnAnswer:
    """An agent's answer in a caller's dialect; satisfies ``turns.requests.TurnSink``."""

    def __init__(self, answer: Answer, writer: AnswerWriter, *, model: str, streams: bool) -> None:
        self._answer = answer
        self._writer = writer
        self._model = model
        self._streams = streams

    async def begin(self, call: OpenCall) -> None:
        if self._streams:
            await self._answer.begin(call)
            await self._answer.send(self._writer.start(self._model))

    async def deltas(self, deltas: Sequence[Delta]) -> None:
        if not self._streams:
            self._writer.collect(deltas)
        elif events := self._writer.deltas(deltas):
            await self._answer.send(events)

    def tool(self, activity: ToolActivity) -> None:
        """What the agent's own tools do has no place in these answers."""

    async def finish(self, call: OpenCall, finished: Finished) -> None:
        writer = self._writer
        if not self._streams:
            writer.collect([finished])
            await self._answer.finish(call, writer.whole(self._model, finished.usage))
            return
        await self._answer.send(writer.deltas([finished]) + writer.end(finished.usage))
        await self._answer.finish(call, writer.tail())
