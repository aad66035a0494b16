"""A turn of an agent: the session's history and what was said now → an answer that is kept.

One session takes one turn at a time, in the order they arrived; a tenant's
sessions run side by side up to its quota.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec
import trio

from appliance.config.schema import AgentConfig
from appliance.model.callers import Caller
from appliance.model.calls import Delta, Finished, FinishReason, TextDelta
from appliance.model.errors import InvalidRequest, ModelUnknown, RateLimited, UpstreamFailed
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.usage import TokenUsage
from appliance.protocols.chat_request import ChatRequest, prompt_size
from appliance.services.model_calls import AwakeTenant, CallRequest, ModelCalls, OpenCall
from appliance.storage.sessions import Run, RunStatus, SessionStore

# More than this waiting for one session means that somebody loops.
WAITING_TURNS = 16

# Passed on to the model as the caller sent them.
_SAMPLING = (
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "top_p",
)
# They would change the answer, so an agent that cannot honour them refuses.
_REFUSED = ("functions", "logprobs", "modalities", "tools", "top_logprobs", "web_search_options")

Message = dict[str, object]


class TenantWithSessions(AwakeTenant, Protocol):
    @property
    def turns(self) -> "TurnQueue": ...
    async def sessions(self) -> SessionStore:
        """The tenant's session store, opened on first use."""


class TurnQueue:
    """Who may speak in which session now: one tenant's turns."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Line] = {}

    def __len__(self) -> int:
        """How many sessions have a turn running or waiting."""
        return len(self._sessions)

    @asynccontextmanager
    async def turn(self, key: SessionKey, *, limit: int | None) -> AsyncIterator[None]:
        """Wait for this session's earlier turns.

        Raises :exc:`RateLimited` when ``limit`` other sessions are active, or
        when too many turns wait for this one.
        """
        line = self._sessions.get(key.text)
        if line is None:
            if limit is not None and len(self._sessions) >= limit:
                raise RateLimited(
                    f"concurrent_sessions is limited to {limit}; wait for a session to finish",
                    retry_after=1 if limit else None,  # waiting for none at all never helps
                )
            line = self._sessions[key.text] = _Line()
        if line.members > WAITING_TURNS:  # one of them is not waiting
            raise RateLimited(
                f"{WAITING_TURNS} turns of this session are waiting already", retry_after=1
            )
        line.members += 1
        try:
            async with line.lock:
                yield
        finally:
            line.members -= 1
            if line.members == 0:
                del self._sessions[key.text]


@dataclass(slots=True)
class _Line:
    members: int = 0
    lock: trio.Lock = field(default_factory=trio.Lock)


@dataclass(frozen=True, slots=True)
class TurnRequest:
    key: SessionKey
    chat: ChatRequest
    messages: Sequence[Message]
    keeps_history: bool  # False: the caller sent the whole conversation, nothing is remembered


class TurnSink(Protocol):
    async def begin(self, call: OpenCall) -> None: ...
    async def deltas(self, deltas: Sequence[Delta]) -> None: ...
    async def finish(self, call: OpenCall, finished: Finished) -> None:
        """All is on disk. ``finished.usage`` is what the books hold."""


class Turns:
    def __init__(self, calls: ModelCalls, *, clock: Callable[[], datetime]) -> None:
        self._calls = calls
        self._clock = clock

    async def run(
        self, tenant: TenantWithSessions, caller: Caller, turn: TurnRequest, sink: TurnSink
    ) -> None:
        """Answer in a session; what was said and answered is on disk before ``finish``.

        Raises :exc:`InvalidRequest` for what an agent cannot do,
        :exc:`ModelUnknown` for an agent that is not configured, and whatever
        the model call raises. A turn that fails or is cancelled keeps what the
        user said, marked as such.
        """
        _refuse_unsupported(turn.chat)
        agent = _agent(tenant, turn.key.agent)
        model = agent.model or tenant.config.models.default
        if model is None:
            raise ModelUnknown("no model is configured; the operator sets models.default")
        said = _new_messages(turn)
        async with tenant.turns.turn(turn.key, limit=tenant.meter.limits.concurrent_sessions):
            store = await tenant.sessions()
            asked = _call(turn, agent, model, [*_history(tenant, store, turn), *said])
            async with self._calls.open(tenant, caller, asked) as call:
                # From here on the provider works for us, so what was said is kept.
                run = store.begin_run(
                    turn.key, said, request_id=caller.request_id, model=model, now=self._clock()
                )
                with self._recorded(store, run, call) as text:
                    await sink.begin(call)
                    reason = await _relay(call, sink, text)
            await tenant.meter.durable()
            await store.durable()
            usage = None if call.settlement is None else call.settlement.usage
            await sink.finish(call, Finished(reason, usage))

    @contextmanager
    def _recorded(self, store: SessionStore, run: Run, call: OpenCall) -> Iterator[list[str]]:
        """Collect the answer; write down on the way out how far it came and how it ended."""
        text: list[str] = []
        status = RunStatus.FAILED
        try:
            yield text
            status = RunStatus.DONE
        except trio.Cancelled:
            status = RunStatus.CANCELLED
            raise
        finally:
            store.finish_run(
                run,
                text="".join(text),
                usage=call.reply.usage or TokenUsage(),
                status=status,
                now=self._clock(),
            )


async def _relay(call: OpenCall, sink: TurnSink, text: list[str]) -> FinishReason:
    """Pass the answer on as it comes, collecting its text; return how it ended."""
    reason: FinishReason | None = None
    async with aclosing(call.reply.deltas()) as answer:
        async for deltas in answer:
            shown: list[Delta] = []
            for delta in deltas:
                match delta:
                    case Finished():
                        reason = delta.reason
                    case TextDelta(piece):
                        text.append(piece)
                        shown.append(delta)
                    case _:
                        shown.append(delta)
            if shown:
                await sink.deltas(shown)
    if reason is None:
        raise UpstreamFailed("the model's answer broke off")
    return reason


def _history(
    tenant: TenantWithSessions, store: SessionStore, turn: TurnRequest
) -> Sequence[Mapping[str, object]]:
    if not turn.keeps_history:
        return ()
    return store.history(turn.key, limit_tokens=tenant.config.defaults.session.history_tokens)


def _call(
    turn: TurnRequest,
    agent: AgentConfig,
    model: str,
    conversation: Sequence[Mapping[str, object]],
) -> CallRequest:
    body = _body(turn.chat, agent, conversation)
    return CallRequest(
        model=model,
        body=body,
        # Always streamed from the provider, so that a cancelled turn stops there too.
        stream=True,
        prompt_bytes=prompt_size(body),
        output_limit=turn.chat.output_limit or agent.max_output_tokens,
        session=turn.key.text,
        agent=turn.key.agent,
    )


def _agent(tenant: AwakeTenant, name: str) -> AgentConfig:
    agent = tenant.config.defaults.agents.get(name)
    if agent is not None:
        return agent
    if name == DEFAULT_AGENT:
        return AgentConfig()
    raise ModelUnknown(f"there is no agent {name!r}; GET /v1/models lists those there are")


def _refuse_unsupported(chat: ChatRequest) -> None:
    for name in _REFUSED:
        if chat.body.get(name, b"null") not in (b"null", b"false", b"[]"):
            raise InvalidRequest.at(
                name, "an agent does not take this", "name a model as provider/model instead"
            )
    if chat.choices != 1:
        raise InvalidRequest.at("n", "an agent gives one answer", "send n=1")


def _new_messages(turn: TurnRequest) -> list[Message]:
    """What the session does not hold yet.

    OpenAI clients send the whole conversation each time; a session that keeps
    its own history takes what follows the last answer.
    """
    messages = [m for m in turn.messages if m.get("role") not in {"system", "developer"}]
    if turn.keeps_history:
        for position in range(len(messages) - 1, -1, -1):
            if messages[position].get("role") == "assistant":
                messages = messages[position + 1 :]
                break
    if not any(m.get("role") == "user" for m in messages):
        raise InvalidRequest.at(
            "messages", "nothing new was said", "end the list with a message of the role user"
        )
    return messages


def _body(
    chat: ChatRequest, agent: AgentConfig, conversation: Sequence[Mapping[str, object]]
) -> dict[str, bytes]:
    system = [agent.instructions] if agent.instructions else []
    system += [
        text
        for message in chat.messages()
        if message.get("role") in {"system", "developer"}
        and isinstance(text := message.get("content"), str)
    ]
    messages: list[Mapping[str, object]] = list(conversation)
    if system:
        messages.insert(0, {"role": "system", "content": "\n\n".join(system)})
    body = {name: chat.body[name] for name in _SAMPLING if name in chat.body}
    body["messages"] = msgspec.json.encode(messages)
    body["stream"] = b"true"
    return body
