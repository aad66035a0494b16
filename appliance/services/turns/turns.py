"""A turn of an agent: the session's history and what was said now → an answer that is kept.

One session takes one turn at a time, in the order they arrived; a tenant's
sessions run side by side up to its quota.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import trio

from appliance.model.callers import Caller
from appliance.model.errors import ApplianceError
from appliance.model.usage import TokenUsage
from appliance.protocols.caller_tools import CallerTools
from appliance.services.context_windows import history_budget
from appliance.services.model_calls import ModelCalls
from appliance.services.tools.base import ToolTenant
from appliance.services.tools.runner import Gate
from appliance.services.tools.toolbox import Offer, Toolbox, occasion_of
from appliance.services.turns.messages import (
    check_results,
    new_messages,
    refuse_unsupported,
    system_texts,
)
from appliance.services.turns.pauses import Pauses
from appliance.services.turns.prompts import Prompts
from appliance.services.turns.requests import (
    Interlude,
    Steering,
    TenantWithSessions,
    TurnRecord,
    TurnRequest,
    TurnSink,
    agent_of,
    model_of,
)
from appliance.services.turns.rounds import TAINT, Assignment, Rounds, added, waiting
from appliance.storage.paused_calls import Resumption
from appliance.storage.session_context import conversation, with_answered_calls
from appliance.storage.session_rows import Run, RunStatus
from appliance.storage.sessions import SessionStore


class _NoInterlude:
    def steered(self) -> Sequence[Steering]:
        return ()

    async def make_room(self) -> bool:
        await trio.lowlevel.checkpoint()
        return False


class Turns:
    def __init__(
        self,
        calls: ModelCalls,
        *,
        clock: Callable[[], datetime],
        toolbox: Toolbox | None = None,
        prompts: Prompts | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._calls = calls
        self._clock = clock
        self._toolbox = toolbox or Toolbox(())
        self._prompts = prompts or Prompts(clock=clock)
        self._gate = gate

    async def run(
        self, tenant: ToolTenant, caller: Caller, turn: TurnRequest, sink: TurnSink
    ) -> None:
        """Answer in a session; what was said and answered is on disk before ``finish``.

        Raises :exc:`InvalidRequest` for what an agent cannot do,
        :exc:`ModelUnknown` for an agent that is not configured, and whatever
        the model call raises. A turn that fails or is cancelled keeps what the
        user said, marked as such.
        """
        refuse_unsupported(turn.chat)
        CallerTools.read(turn.chat.body)
        model_of(tenant, turn.key.agent, turn.model)
        new_messages(turn)
        line = turn.key
        if not turn.keeps_history:
            line = Pauses(await tenant.sessions(), caller).line(turn)
        async with tenant.turns.turn(line, limit=tenant.meter.limits.concurrent_sessions):
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
        tenant: ToolTenant,
        caller: Caller,
        turn: TurnRequest,
        sink: TurnSink,
        record: TurnRecord,
        interlude: Interlude | None = None,
    ) -> None:
        """Take the turn of a session whose line the caller has reached; raises like :meth:`run`."""
        store = await tenant.sessions()
        pauses = Pauses(store, caller)
        resumption: Resumption | None = None
        if record.run is None:
            turn, resumption = pauses.standing(turn)
        work = await self._assign(tenant, caller, turn, store, record, pauses, resumption)

        def begin() -> None:
            record.run = self._begin(store, caller, turn, work.model, resumption)

        rounds = Rounds(
            work,
            sink,
            record,
            interlude or _NoInterlude(),
            calls=self._calls,
            gate=self._gate,
            begin=begin,
            clock=self._clock,
        )
        with self.recorded(store, record):
            finished = await rounds.run()
            record.status = RunStatus.DONE
            if record.handed_over and record.run is not None:
                pauses.pause(turn, record.run, record.handed_over, now=self._clock())
        await tenant.meter.durable()
        await store.durable()
        if record.call is not None:
            await sink.finish(record.call, finished)

    async def _assign(
        self,
        tenant: ToolTenant,
        caller: Caller,
        turn: TurnRequest,
        store: SessionStore,
        record: TurnRecord,
        pauses: Pauses,
        resumption: Resumption | None,
    ) -> Assignment:
        """Settle what the turn works with. Raises :exc:`InvalidRequest` and :exc:`ModelUnknown`."""
        model = model_of(tenant, turn.key.agent, turn.model)
        agent = agent_of(tenant, turn.key.agent)
        session = store.find(turn.key)
        occasion = occasion_of(turn.key, session, channel=turn.channel)
        callers = CallerTools.read(turn.chat.body)
        offer = Offer()
        if _takes_tools(tenant, model):
            with waiting(record):  # for tools of servers that have to be started
                offer = (await self._toolbox.offer(tenant, occasion)).without_names(callers.names)
        system = await self._prompts.system(
            tenant,
            turn.key,
            agent,
            offer=offer,
            depth=occasion.depth,
            given=system_texts(turn.chat, field=turn.field),
        )
        but_run = None if resumption is None else resumption.supersedes
        if record.run is not None:
            but_run = record.run.id
        read = partial(_conversation, tenant, store, turn, model, pauses, but_run=but_run)
        return Assignment(
            tenant=tenant,
            caller=caller,
            turn=turn,
            agent=agent,
            model=model,
            store=store,
            offer=offer,
            callers=callers,
            conversation=read,
            system=system,
            depth=occasion.depth,
            channel=turn.channel,
            tainted=session is not None and session.facts.get(TAINT) == session.id,
            redone=() if resumption is None else resumption.rounds,
        )

    def _begin(
        self,
        store: SessionStore,
        caller: Caller,
        turn: TurnRequest,
        model: str,
        resumption: Resumption | None = None,
    ) -> Run:
        return store.begin_run(
            turn.key,
            new_messages(turn),
            request_id=caller.request_id,
            model=model,
            now=self._clock(),
            run_id=turn.run_id,
            meta=turn.meta,
            source=turn.source,
            answers=turn.answers,
            resumption=resumption,
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
        latest = None if record.call is None else record.call.reply.usage
        store.finish_run(
            run,
            text="".join(record.text),
            usage=_whole_usage(record) or TokenUsage(),
            status=record.status,
            now=self._clock(),
            meta=_meta(record),
            error=record.error,
            context_tokens=None if latest is None else latest.prompt + latest.completion,
        )


def _whole_usage(record: TurnRecord) -> TokenUsage | None:
    """Of all rounds, the one that was broken off included."""
    latest = None if record.call is None else record.call.reply.usage
    if not record.is_open or latest is None:
        return record.usage
    return added(record.usage, latest)


def _meta(record: TurnRecord) -> dict[str, object]:
    """What is kept beside the answer."""
    meta: dict[str, object] = {}
    usage = _whole_usage(record)
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


def _takes_tools(tenant: TenantWithSessions, model: str) -> bool:
    """Whether to offer tools: the small models that run beside us only get lost in them."""
    models = tenant.config.models
    first = models.aliases.get(model, model)
    provider = tenant.config.providers.get(first.partition("/")[0])
    return provider is None or provider.dialect != "embedded"


def _conversation(
    tenant: TenantWithSessions,
    store: SessionStore,
    turn: TurnRequest,
    model: str,
    pauses: Pauses,
    *,
    but_run: str | None,
) -> Sequence[Mapping[str, object]]:
    """What was said before, and what is said now, as the model is to read it."""
    said = new_messages(turn)
    if not turn.keeps_history:
        check_results((), said, field=turn.field)
        return with_answered_calls(pauses.with_own_rounds(said))
    budget = history_budget(tenant.config, model)
    before = store.context(turn.key, limit_tokens=budget, but_run=but_run)
    check_results([line.message for line in before.lines], said, field=turn.field)
    return conversation(before, said)
