"""``POST /v1/chat/completions``: a straight completion, or a turn of an agent."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.calls import Delta, Finished
from appliance.model.errors import InvalidRequest, MethodNotAllowed
from appliance.model.ids import parse_agent_id
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.tokens import Scope
from appliance.protocols.chat_request import ChatRequest
from appliance.protocols.openai_chat import AnswerBuilder, ChunkEncoder
from appliance.services.completions import Completions
from appliance.services.model_calls import OpenCall
from appliance.services.turns.requests import ToolActivity, TurnRequest
from appliance.services.turns.turns import Turns
from appliance.tenants.jobs import ClientLeft
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.bodies import ClientGone, read_body
from appliance.transports.callers import ACCEPTED_AT, Presented, read_headers
from appliance.transports.openai_api.answers import Answer
from appliance.transports.openai_api.failures import Failure, Header
from appliance.transports.openai_api.limits import limit_headers

SESSION_HEADER = b"x-openclaw-session-key"
AGENT_HEADER = b"x-openclaw-agent-id"
_AGENT_MODEL = "openclaw"


class Tenants(Protocol):
    async def runtime(self, tenant_id: str) -> TenantRuntime: ...


class Door(Protocol):
    """Authentication and bookkeeping that the raw routes share (see ``door.py``)."""

    @property
    def config(self) -> GatewayConfig: ...
    def admit(self, scope: dict[str, Any], presented: Presented) -> Caller: ...
    def refuse(self, error: Exception, *, request_id: str) -> Failure: ...
    def note(self, scope: dict[str, Any], caller: Caller | None, answer: Answer) -> None: ...


@dataclass(frozen=True, slots=True)
class ChatRoute:
    """The endpoint; all it needs is handed in."""

    door: Door
    tenants: Tenants
    completions: Completions
    turns: Turns
    clock: Callable[[], datetime]

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        presented = read_headers(scope["headers"])
        server = self.door.config.server
        runtime: TenantRuntime | None = None

        def limits() -> Sequence[Header]:
            return () if runtime is None else limit_headers(runtime.meter)

        answer = Answer(
            send,
            receive,
            request_id=presented.request_id,
            received_at=scope[ACCEPTED_AT],
            streams=False,
            keep_alive=server.sse_keepalive,
            send_timeout=server.body_timeout,
            limits=limits,
        )
        caller: Caller | None = None
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed("/v1/chat/completions answers POST", allow="POST")
            caller = self.door.admit(scope, presented)
            caller.require(Scope.CHAT)
            tenant = caller.require_tenant()
            body = await read_body(
                receive,
                scope["headers"],
                limit=server.max_body_bytes,
                patience=server.body_timeout,
            )
            request = await _parse(body, limit=server.max_body_bytes)
            answer.streams = request.stream
            runtime = await self.tenants.runtime(tenant)
            work = self._work(runtime, caller, request, scope["headers"], answer)
            await runtime.perform(work, caller=caller, left=answer.wait_left)
        except (ClientGone, ClientLeft):
            pass  # nobody reads the answer; what was used is settled
        except Exception as error:  # noqa: BLE001 - the edge: refuse logs what nobody foresaw
            await answer.fail(self.door.refuse(error, request_id=presented.request_id))
        finally:
            self.door.note(scope, caller, answer)

    def _work(
        self,
        runtime: TenantRuntime,
        caller: Caller,
        request: ChatRequest,
        headers: Iterable[tuple[bytes, bytes]],
        answer: Answer,
    ) -> Callable[[], Any]:
        agent = _agent_of(request.model)
        if agent is None:
            return partial(self.completions.complete, runtime, caller, request, answer)
        turn = _turn(runtime.id, agent, request, headers)
        sink = _TurnAnswer(answer, request, created=int(self.clock().timestamp()))
        return partial(self.turns.run, runtime, caller, turn, sink)


# Checking a large body holds the loop for milliseconds, a thread only for the
# length of its GIL slices.
_LARGE = 128 * 1024


async def _parse(body: bytes, *, limit: int) -> ChatRequest:
    if len(body) < _LARGE:
        return ChatRequest.parse(body, limit_bytes=limit)
    return await trio.to_thread.run_sync(partial(ChatRequest.parse, body, limit_bytes=limit))


def _agent_of(model: str) -> str | None:
    """The agent that ``model`` names, None for a model of a provider.

    ``openclaw`` is the default agent; ``openclaw:<agent>`` and
    ``openclaw/<agent>`` name one.
    """
    if model == _AGENT_MODEL:
        return DEFAULT_AGENT
    if not model.startswith((f"{_AGENT_MODEL}:", f"{_AGENT_MODEL}/")):
        return None
    name = model[len(_AGENT_MODEL) + 1 :]
    return DEFAULT_AGENT if name == "default" else name


def _turn(
    tenant: str, agent: str, request: ChatRequest, headers: Iterable[tuple[bytes, bytes]]
) -> TurnRequest:
    given = {name: value for name, value in headers if name in {SESSION_HEADER, AGENT_HEADER}}
    if AGENT_HEADER in given and agent == DEFAULT_AGENT:
        agent = given[AGENT_HEADER].decode("latin-1").strip().lower()
    try:
        agent = parse_agent_id(agent)
    except ValueError as exc:
        raise InvalidRequest.at("model", str(exc)) from exc
    text = given.get(SESSION_HEADER)
    if text is not None:
        named = _utf8(text)
        key = SessionKey.parse(named, tenant=tenant, agent=agent)
        keeps = True
    elif request.user:
        key = SessionKey.parse(
            f"openai-user:{request.user}", tenant=tenant, agent=agent, field="user"
        )
        keeps = True
    else:
        # Front ends ask for titles and the like beside the conversation;
        # without a name for it, nothing is remembered for the next request.
        key = SessionKey(tenant, agent, f"openai:{secrets.token_hex(12)}")
        keeps = False
    return TurnRequest(key, request, request.messages(), keeps_history=keeps)


def _utf8(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest.at("x-openclaw-session-key", "is not UTF-8") from None


class _TurnAnswer:
    """An agent's answer as a chat completion; satisfies ``turns.requests.TurnSink``."""

    def __init__(self, answer: Answer, request: ChatRequest, *, created: int) -> None:
        self._answer = answer
        self._request = request
        self._whole = AnswerBuilder()
        self._encoder = ChunkEncoder(
            id=f"chatcmpl-{secrets.token_hex(12)}", created=created, model=request.model
        )

    async def begin(self, call: OpenCall) -> None:
        if self._request.stream:
            await self._answer.begin(call)
            await self._answer.send(self._encoder.start())

    async def deltas(self, deltas: Sequence[Delta]) -> None:
        if self._request.stream:
            await self._answer.send(b"".join(map(self._encoder.delta, deltas)))
        else:
            self._whole.add(deltas)

    def tool(self, activity: ToolActivity) -> None:
        """A chat completion has no place for what the agent's own tools do."""

    async def finish(self, call: OpenCall, finished: Finished) -> None:
        if not self._request.stream:
            self._whole.add([finished])
            await self._answer.finish(call, self._whole.encode(self._encoder))
            return
        tail = self._encoder.delta(finished)
        if self._request.include_usage and finished.usage is not None:
            tail += self._encoder.usage(finished.usage)
        await self._answer.send(tail)
        await self._answer.finish(call, b"")
