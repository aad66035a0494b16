"""A turn of an agent: the session's history and what was said now → an answer that is kept.

One session takes one turn at a time, in the order they arrived; a tenant's
sessions run side by side up to its quota.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec
import trio

from appliance.config.schema import AgentConfig
from appliance.model.callers import Caller
from appliance.model.calls import Delta, Finished, FinishReason, TextDelta
from appliance.model.errors import (
    ApplianceError,
    InvalidRequest,
    ModelUnknown,
    UpstreamFailed,
)
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.usage import TokenUsage
from appliance.protocols.chat_request import ChatRequest, prompt_size
from appliance.services.context_windows import history_budget
from appliance.services.model_calls import AwakeTenant, CallRequest, ModelCalls, OpenCall
from appliance.services.turn_queue import TurnQueue as TurnQueue
from appliance.storage.session_rows import Run, RunStatus
from appliance.storage.sessions import SessionStore

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
    def turns(self) -> TurnQueue: ...
    async def sessions(self) -> SessionStore:
        """The tenant's session store, opened on first use."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    key: SessionKey
    chat: ChatRequest
    messages: Sequence[Message]
    keeps_history: bool  # False: the caller sent the whole conversation, nothing is remembered
    model: str | None = None  # instead of the agent's own
    source: str = "http"
    run_id: str | None = None
    meta: Mapping[str, object] | None = None  # kept with what the user said
    answers: Sequence[str] = ()  # runs whose messages waited in the inbox and are said here


class TurnSink(Protocol):
    async def begin(self, call: OpenCall) -> None: ...
    async def deltas(self, deltas: Sequence[Delta]) -> None: ...
    async def finish(self, call: OpenCall, finished: Finished) -> None:
        """All is on disk. ``finished.usage`` is what the books hold."""


@dataclass(slots=True)
class TurnRecord:
    """How far a turn has come, for whoever writes it down."""

    run: Run | None = None
    text: list[str] = field(default_factory=list)
    call: OpenCall | None = None
    reason: FinishReason | None = None
    status: RunStatus = RunStatus.FAILED
    error: str = ""
    cancelled_by: Callable[[], str] = lambda: ""  # who or what, once it is cancelled
    kept: bool = False


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
        model_of(tenant, turn.key.agent, turn.model)
        _new_messages(turn)
        async with tenant.turns.turn(turn.key, limit=tenant.meter.limits.concurrent_sessions):
            await self.answer(tenant, caller, turn, sink, TurnRecord())

    def accept(
        self, tenant: TenantWithSessions, store: SessionStore, caller: Caller, turn: TurnRequest
    ) -> TurnRecord:
        """Keep what was said before any model is asked.

        Whoever accepts a turn owns its record: :meth:`recorded` ends it.
        """
        model = model_of(tenant, turn.key.agent, turn.model)
        return TurnRecord(self._begin(store, caller, turn, model))

    async def answer(
        self,
        tenant: TenantWithSessions,
        caller: Caller,
        turn: TurnRequest,
        sink: TurnSink,
        record: TurnRecord,
    ) -> None:
        """Take the turn of a session whose line the caller has reached; raises like :meth:`run`."""
        model = model_of(tenant, turn.key.agent, turn.model)
        agent = agent_of(tenant, turn.key.agent)
        said = _new_messages(turn)
        store = await tenant.sessions()
        asked = _call(turn, agent, model, [*_history(tenant, store, turn, model), *said])
        async with self._calls.open(tenant, caller, asked) as call:
            record.call = call
            if record.run is None:
                # From here on the provider works for us, so what was said is kept.
                record.run = self._begin(store, caller, turn, model)
            with self.recorded(store, record):
                await sink.begin(call)
                record.reason = await _relay(call, sink, record.text)
                record.status = RunStatus.DONE
        await tenant.meter.durable()
        await store.durable()
        usage = None if call.settlement is None else call.settlement.usage
        await sink.finish(call, Finished(record.reason, usage))

    def _begin(self, store: SessionStore, caller: Caller, turn: TurnRequest, model: str) -> Run:
        return store.begin_run(
            turn.key,
            _new_messages(turn),
            request_id=caller.request_id,
            model=model,
            now=self._clock(),
            run_id=turn.run_id,
            meta=turn.meta,
            source=turn.source,
            answers=turn.answers,
        )

    @contextmanager
    def recorded(self, store: SessionStore, record: TurnRecord) -> Iterator[None]:
        """Write down on the way out how far the answer came and how it ended, once."""
        try:
            yield
        except trio.Cancelled:
            if not record.kept:
                record.status = RunStatus.CANCELLED
            raise
        except ApplianceError as error:
            record.error = error.detail
            raise
        finally:
            if record.run is not None and not record.kept:
                record.kept = True
                self._keep(store, record.run, record)

    def _keep(self, store: SessionStore, run: Run, record: TurnRecord) -> None:
        usage = None if record.call is None else record.call.reply.usage
        store.finish_run(
            run,
            text="".join(record.text),
            usage=usage or TokenUsage(),
            status=record.status,
            now=self._clock(),
            meta=_meta(record, usage),
            error=record.error,
            context_tokens=None if usage is None else usage.prompt + usage.completion,
        )


def _meta(record: TurnRecord, usage: TokenUsage | None) -> dict[str, object]:
    """What is kept beside the answer."""
    meta: dict[str, object] = {}
    if record.call is not None:
        meta["provider"] = record.call.target.provider
        meta["model"] = record.call.target.model
    if usage is not None:
        meta["usage"] = usage_of(usage)
    if record.reason is not None:
        meta["stopReason"] = record.reason.value
    if record.status is RunStatus.CANCELLED:
        meta["stopReason"] = "aborted"
        meta["aborted"] = record.cancelled_by() or "cancelled"
    if record.error:
        meta["errorMessage"] = record.error
    return meta


def usage_of(usage: TokenUsage) -> dict[str, int]:
    """As OpenClaw's clients read it; what was thought counts as output."""
    return {
        "input": usage.input,
        "output": usage.completion,
        "cacheRead": usage.cache_read,
        "cacheWrite": usage.cache_write,
        "totalTokens": usage.prompt + usage.completion,
    }


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
    tenant: TenantWithSessions, store: SessionStore, turn: TurnRequest, model: str
) -> Sequence[Mapping[str, object]]:
    if not turn.keeps_history:
        return ()
    return store.history(turn.key, limit_tokens=history_budget(tenant.config, model))


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


def model_of(tenant: AwakeTenant, agent: str, wanted: str | None = None) -> str:
    """The model that answers for ``agent``: ``wanted``, its own, or the tenant's default.

    Raises :exc:`ModelUnknown` for an agent that is not configured or has no model.
    """
    model = wanted or agent_of(tenant, agent).model or tenant.config.models.default
    if model is None:
        raise ModelUnknown("no model is configured; the operator sets models.default")
    return model


def agent_of(tenant: AwakeTenant, name: str) -> AgentConfig:
    """How ``name`` is configured. Raises :exc:`ModelUnknown` for one that is not."""
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
