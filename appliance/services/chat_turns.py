"""One run from its first to its last event: wait for its turn, answer, end exactly once."""

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

import msgspec
import trio

from appliance.model.calls import Delta, Finished, FinishReason, ReasoningDelta, TextDelta
from appliance.model.errors import ApplianceError
from appliance.model.message_queue import batch_text
from appliance.services.chat_notes import note_exchange
from appliance.services.chat_outcomes import footer, outcome_of, shown, unanswered
from appliance.services.chat_tasks import ChattingTenant, RunTask, turn_request, user_message
from appliance.services.compaction import Compactor, is_full
from appliance.services.model_calls import OpenCall
from appliance.services.runs import ActiveRun
from appliance.services.turns.requests import (
    Steering,
    ToolActivity,
    TurnRecord,
    TurnRequest,
    model_of,
)
from appliance.services.turns.turns import Turns
from appliance.storage.session_rows import Session

log = logging.getLogger(__name__)

_LONGEST_KEPT = 200_000  # characters of an answer kept for replays of its request
_BYTES_A_TOKEN = 4
_EVERYTHING = 100_000_000  # tokens


class ChatTurns:
    def __init__(
        self, turns: Turns, compactor: Compactor, *, clock: Callable[[], datetime]
    ) -> None:
        self._turns = turns
        self._compactor = compactor
        self._clock = clock

    def accept(self, tenant: ChattingTenant, task: RunTask) -> TurnRecord:
        """Store what was said. Raises :exc:`ModelUnknown` before anything is stored."""
        said = user_message(task.prompt.text, task.prompt.parts)
        return self._accept(tenant, task, turn_request(task, task.store.find(task.run.key), said))

    def _accept_waiting(
        self,
        tenant: ChattingTenant,
        task: RunTask,
        followers: Sequence[ActiveRun],
        lost: Sequence[str],
    ) -> TurnRecord:
        """The same for what waited in the inbox, along with what ``followers`` said."""
        runs = [task.run, *followers]
        said = user_message(
            batch_text([run.subject.text for run in runs], lost),
            [part for run in runs for part in run.subject.parts],
        )
        session = task.store.find(task.run.key)
        answers = [run.id for run in runs]
        return self._accept(tenant, task, turn_request(task, session, said, answers=answers))

    def _accept(self, tenant: ChattingTenant, task: RunTask, turn: TurnRequest) -> TurnRecord:
        key, store = task.run.key, task.store
        record = self._turns.accept(tenant, store, task.caller, turn)
        record.cancelled_by = task.why_cancelled
        task.turn, task.record = turn, record
        if record.run is not None:
            task.run.session_id = record.run.session_id
            for stored in store.messages(key, limit=1, after_seq=record.run.seq - 1):
                task.reporter.message_stored(stored)
        return record

    def refuse(self, task: RunTask, error: ApplianceError) -> None:
        """End what was accepted for a run that cannot begin."""
        task.failure = error
        if task.record is not None:
            with suppress(ApplianceError), self._turns.recorded(task.store, task.record):
                raise error

    async def perform(self, tenant: ChattingTenant, task: RunTask) -> None:
        """Go through with a run. However that ends, its clients are told once.

        A cancellation of the run itself ends in here; any other goes on.
        """
        cancelled = False
        try:
            with task.run.scope:
                await self._perform(tenant, task)
            cancelled = task.run.scope.cancelled_caught
        except ApplianceError as error:
            task.failure = error
        except trio.Cancelled:
            cancelled = True
            raise
        finally:
            self.end(tenant, task, cancelled=cancelled)

    async def _perform(self, tenant: ChattingTenant, task: RunTask) -> None:
        if task.record is None:
            await self._take_turn(tenant, task)
            return
        with self._turns.recorded(task.store, task.record):
            await self._take_turn(tenant, task)

    async def _take_turn(self, tenant: ChattingTenant, task: RunTask) -> None:
        run = task.run
        await run.ready.wait()
        if run.carrier is not None:
            await run.carrier.ended.wait()
            return
        line = tenant.runs.line(run.key)
        followers, lost = await line.gather(run, debounce=task.prompt.debounce)
        if run.place is not None:
            await run.place.reached()
        run.started_at = self._clock()
        task.reporter.started()
        with trio.move_on_after(_limit(tenant, task)) as task.limit:
            if task.prompt.compacts:
                await self._compact(tenant, task)
            elif task.record is not None:
                await self._answer(tenant, task, task.record)
            else:
                record = self._accept_waiting(tenant, task, followers, lost)
                with self._turns.recorded(task.store, record):
                    await self._answer(tenant, task, record)

    async def _answer(self, tenant: ChattingTenant, task: RunTask, record: TurnRecord) -> None:
        turn, store = task.turn, task.store
        if turn is None:
            return
        session = store.find(turn.key)
        model = model_of(tenant, turn.key.agent, turn.model)
        if is_full(
            tenant,
            session,
            context_tokens=lambda: store.context(turn.key, limit_tokens=_EVERYTHING).tokens,
            said_tokens=len(task.prompt.text.encode()) // _BYTES_A_TOKEN,
            model=model,
        ):
            await self._make_room(tenant, task, model)
        sink = _RunSink(task, shows_thoughts=_shows_thoughts(session))
        interlude = _RunInterlude(tenant, task, partial(self._make_room, tenant, task, model))
        await self._turns.answer(tenant, task.caller, turn, sink, record, interlude)
        task.text = "".join(record.told)
        task.footer = footer(session, record)
        stored = store.last_message(turn.key)
        if stored is not None and stored.role == "assistant" and stored.run == _run_id(record):
            task.reporter.message_stored(stored)

    async def _make_room(self, tenant: ChattingTenant, task: RunTask, model: str) -> bool:
        if not tenant.config.defaults.session.compaction.enabled:
            return False
        done = await self._compactor.compact(
            tenant, task.caller, task.run.key, model=model, progress=task.reporter, will_retry=True
        )
        return done.happened

    async def _compact(self, tenant: ChattingTenant, task: RunTask) -> None:
        done = await self._compactor.compact(
            tenant,
            task.caller,
            task.run.key,
            task.prompt.text or None,
            model=task.prompt.model,
            progress=task.reporter,
        )
        answer = (
            f"Compacted {done.replaced} messages: about {done.tokens_before} tokens before, "
            f"{done.tokens_after} now."
            if done.happened
            else "There is nothing to compact yet."
        )
        note_exchange(
            task.store, task.run.key, task.prompt.said, answer, run_id=task.run.id,
            now=self._clock(),
        )  # fmt: skip
        task.text = answer
        task.finished = Finished(FinishReason.STOP, None)

    def end(self, tenant: ChattingTenant, task: RunTask, *, cancelled: bool) -> None:
        """Keep how it ended, tell it, and let the next one go ahead.

        Synchronous, so that no cancellation can fall into it.
        """
        outcome = outcome_of(task, cancelled=cancelled, now=self._clock())
        try:
            kept = outcome
            if len(outcome.text) > _LONGEST_KEPT:
                kept = msgspec.structs.replace(outcome, text=outcome.text[:_LONGEST_KEPT])
            task.store.requests.finish(
                task.space, task.run.id, kept.encoded(), now=self._clock(),
                unanswered=unanswered(task, outcome),
            )  # fmt: skip
        except ApplianceError as error:
            # The disk is full or broken: its clients are told nevertheless.
            log.warning("the outcome of a run is not kept", extra={"reason": error.detail})
        finally:
            task.reporter.end(outcome, message=shown(task, outcome))
            tenant.runs.end(task.run, outcome)


class _RunSink:
    """Satisfies ``turns.requests.TurnSink`` for a run."""

    def __init__(self, task: RunTask, *, shows_thoughts: bool) -> None:
        self._task = task
        self._shows_thoughts = shows_thoughts

    async def begin(self, call: OpenCall) -> None:
        self._task.reporter.model_chosen(call.target.provider, call.target.model)

    async def deltas(self, deltas: Sequence[Delta]) -> None:
        reporter = self._task.reporter
        for delta in deltas:
            match delta:
                case TextDelta(text):
                    reporter.add_text(text)
                case ReasoningDelta(text) if self._shows_thoughts:
                    reporter.add_thought(text)

    def tool(self, activity: ToolActivity) -> None:
        self._task.reporter.tool(activity)

    async def finish(self, call: OpenCall, finished: Finished) -> None:
        self._task.finished = finished


class _RunInterlude:
    """Satisfies ``turns.requests.Interlude`` for a run."""

    def __init__(
        self, tenant: ChattingTenant, task: RunTask, make_room: Callable[[], Awaitable[bool]]
    ) -> None:
        self._tenant = tenant
        self._task = task
        self._make_room = make_room

    def steered(self) -> Sequence[Steering]:
        run = self._task.run
        return [
            Steering(
                user_message(heard.subject.text, heard.subject.parts),
                answers=None if heard.carrier is None else heard.id,
            )
            for heard in self._tenant.runs.line(run.key).steer(run)
        ]

    async def make_room(self) -> bool:
        return await self._make_room()


def _limit(tenant: ChattingTenant, task: RunTask) -> float:
    limit = task.prompt.limit
    if limit is None:
        limit = tenant.config.defaults.session.agent_timeout
    return limit or math.inf


def _shows_thoughts(session: Session | None) -> bool:
    return session is not None and session.settings.get("reasoningLevel") in {"on", "stream"}


def _run_id(record: TurnRecord) -> str:
    return "" if record.run is None else record.run.id
