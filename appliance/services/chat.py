"""Messages to an agent: taken, answered by a run that outlives the connection, stopped.

A message is taken once, however often it is sent: its idempotency key is the
id of its run. It is on disk before it is acknowledged, while the model is at
work already.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

import trio

from appliance.model.callers import Caller
from appliance.model.calls import Finished, FinishReason
from appliance.model.chat_attachments import Part, image_parts
from appliance.model.chat_commands import Invocation, Thinking, is_stop, parse_command
from appliance.model.chat_text import clean_text
from appliance.model.errors import (
    ApplianceError,
    FieldError,
    Forbidden,
    InvalidRequest,
    RateLimited,
)
from appliance.model.message_queue import Drop, QueueMode, QueuePolicy
from appliance.model.session_keys import SessionKey
from appliance.services.chat_commands import ChatCommands, Follow, Reply
from appliance.services.chat_events import RunReporter
from appliance.services.chat_notes import ChatNotes, Delivered, note_exchange
from appliance.services.chat_tasks import ChattingTenant, Prompt, RunTask, waiting_message
from appliance.services.chat_turns import ChatTurns
from appliance.services.runs import ActiveRun, RunOutcome
from appliance.services.turns.requests import model_of
from appliance.storage.requests import Seen
from appliance.storage.session_rows import Session, StoredMessage
from appliance.storage.sessions import SessionStore

LONGEST_WAIT = 24 * 3600.0  # seconds, of agent.wait
_LARGE = 128 * 1024  # characters of attachments that are worth a thread
_WEBCHAT: Mapping[str, object] = {
    "chatType": "direct",
    "origin": {"provider": "webchat", "surface": "webchat", "chatType": "direct"},
    "deliveryContext": {"channel": "webchat"},
    "lastChannel": "webchat",
}


class Policy(Protocol):
    """What of :class:`~appliance.services.session_policy.SessionPolicy` a chat needs."""

    def canonical(self, tenant: ChattingTenant, key: SessionKey, /) -> SessionKey: ...
    def may_send(
        self, tenant: ChattingTenant, key: SessionKey, session: Session | None, /
    ) -> bool: ...
    async def resolve(
        self, tenant: ChattingTenant, key: SessionKey, /, *, now: datetime
    ) -> Session | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a client sends. ``fingerprint`` tells whether a replay is the same request."""

    key: SessionKey
    text: str
    idempotency_key: str
    fingerprint: bytes
    attachments: Sequence[object] = ()
    thinking: str | None = None
    timeout: float | None = None  # seconds, 0 for none
    queue_mode: str | None = None
    model: str | None = None
    system: str = ""
    has_commands: bool = True  # False: text that looks like a command is a message
    # The id that the session must have, by the names of the fields that say so.
    expected_sessions: Mapping[str, str] = field(default_factory=dict)
    stays_in_session: bool = False  # also where its time is over
    meta: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a message. ``stopped`` names the runs that a stop word ended."""

    run_id: str
    status: str  # started, in_flight, or how the run ended
    accepted_at: datetime
    outcome: RunOutcome | None = None
    stopped: tuple[str, ...] | None = None


class ChatService:
    def __init__(
        self,
        turns: ChatTurns,
        commands: ChatCommands,
        notes: ChatNotes,
        policy: Policy,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._turns = turns
        self._commands = commands
        self._notes = notes
        self.policy = policy
        self._clock = clock

    async def send(
        self,
        tenant: ChattingTenant,
        caller: Caller,
        message: Message,
        *,
        space: str = "chat",
        acknowledge: Callable[[Taken], None],
    ) -> Taken:
        """Take a message; its run goes on after this returns.

        ``acknowledge`` is told of a run that this begins, before its first event.

        Raises :exc:`InvalidRequest` for what cannot be sent, a key that was
        used for something else and a session that is not the expected one
        included; :exc:`Forbidden` where the session's policy forbids it;
        :exc:`ModelUnknown`; :exc:`RateLimited`. Cancelled, it leaves a run that
        was begun alone.
        """
        text = clean_text(message.text)
        parts = await _parts(message.attachments)
        if not text.strip() and not parts:
            raise _refused("message", "message or attachment required")
        thinking = _thinking(message.thinking)
        key = self.policy.canonical(tenant, message.key)
        store = await tenant.sessions()
        seen = store.requests.find(space, message.idempotency_key)
        if seen is not None:
            return await self._replay(tenant, store, message, seen)
        model_of(tenant, key.agent, message.model)
        if message.has_commands and not parts and is_stop(text):
            return self._stop(tenant, store, message, key, space=space)
        session = await self._session(tenant, store, key, message)
        if not self.policy.may_send(tenant, key, session):
            raise Forbidden("send blocked by session policy")
        # Nothing waits from here to the run's begin: what arrives twice at once is one.
        now = self._clock()
        run_id = message.idempotency_key
        seen = store.requests.begin(
            space, run_id, fingerprint=message.fingerprint, run_id=run_id, now=now
        )
        if seen is not None:
            return await self._replay(tenant, store, message, seen)
        defaults = tenant.config.defaults.session
        prompt = Prompt(
            text=text,
            parts=parts,
            thinking=thinking,
            system=message.system,
            model=message.model,
            limit=message.timeout,
            debounce=defaults.queue.debounce_ms / 1000,
            meta=message.meta,
        )
        run = ActiveRun(run_id, key, now, prompt)
        task = RunTask(
            run=run,
            prompt=prompt,
            caller=caller,
            store=store,
            reporter=RunReporter(tenant.events, run, clock=self._clock),
            space=space,
        )
        command = None
        if message.has_commands and not parts:
            command = parse_command(text, resets=defaults.reset_triggers)
        try:
            mode = _mode(tenant, session, message.queue_mode)
            if command is None:
                self._begin(tenant, task, mode)
            else:
                self._command(tenant, task, command)
        except BaseException:
            store.requests.forget(space, run_id)
            raise
        if session is None or session.facts.get("lastChannel") is None:
            store.note_facts(key, _WEBCHAT, now=now)
        taken = Taken(run_id=run_id, status="started", accepted_at=now)
        try:
            await store.durable()
            acknowledge(taken)
        except ApplianceError:
            run.cancel("storage")  # what cannot be kept is not answered
            raise
        finally:
            task.reporter.release()
        return taken

    async def abort(
        self,
        tenant: ChattingTenant,
        key: SessionKey | None,
        run_id: str | None = None,
        *,
        with_waiting: bool = True,
        reason: str = "rpc",
    ) -> list[str]:
        """Stop a session's runs, or one of them; return which. What they said is kept.

        Raises :exc:`InvalidRequest` if the run is another session's.
        """
        await trio.lowlevel.checkpoint()
        if key is not None:
            key = self.policy.canonical(tenant, key)
        if run_id is not None:
            run = tenant.runs.find(run_id)
            if run is None:
                return []
            if key is not None and run.key != key:
                raise _refused("runId", "runId does not match sessionKey")
            return [run.id] if run.cancel(reason) else []
        return [] if key is None else _cancel(tenant, key, reason, with_waiting=with_waiting)

    async def inject(
        self, tenant: ChattingTenant, key: SessionKey, text: str, *, label: str = ""
    ) -> StoredMessage:
        """Add a message in the agent's name, and show it to who is connected."""
        text = clean_text(text)
        if not text.strip():
            raise _refused("message", "message is required")
        return await self._notes.append(
            tenant, self.policy.canonical(tenant, key), text, label=label
        )

    async def deliver(
        self, tenant: ChattingTenant, message: Message, *, space: str = "send"
    ) -> Delivered:
        """The same for a client that may send it again: it is added once."""
        text = clean_text(message.text)
        if not text.strip():
            raise _refused("message", "message is required")
        key = self.policy.canonical(tenant, message.key)
        return await self._notes.deliver(
            tenant,
            key,
            text,
            space=space,
            request_key=message.idempotency_key,
            fingerprint=message.fingerprint,
        )

    async def wait(
        self,
        tenant: ChattingTenant,
        run_id: str,
        timeout: float,  # noqa: ASYNC109 - as the client said
    ) -> RunOutcome | None:
        """How a run ended, also one of before a restart; None if it has not within ``timeout``."""
        book = tenant.runs
        if book.find(run_id) is None and book.finished(run_id) is None:
            store = await tenant.sessions()
            seen = store.requests.find_run(run_id)
            if seen is not None and (known := _outcome(seen)) is not None:
                return known
        return await book.wait(run_id, min(timeout, LONGEST_WAIT))

    # How a message is taken

    async def _session(
        self, tenant: ChattingTenant, store: SessionStore, key: SessionKey, message: Message
    ) -> Session | None:
        """The session as the message finds it; it may have begun anew for this one."""
        session = store.find(key)
        for field_name, expected in message.expected_sessions.items():
            if session is None or session.id != expected:
                raise InvalidRequest.at(
                    field_name, f"is not the session of {key.short} now", "read that and send again"
                )
        if message.stays_in_session:
            return session
        return await self.policy.resolve(tenant, key, now=self._clock())

    async def _replay(
        self, tenant: ChattingTenant, store: SessionStore, message: Message, seen: Seen
    ) -> Taken:
        if seen.fingerprint != message.fingerprint:
            raise InvalidRequest.at(
                "idempotencyKey", "was used for another request", "send a new one"
            )
        await store.durable()  # what is in flight is acknowledged again
        outcome = _outcome(seen)
        status = "in_flight" if outcome is None else outcome.status
        return Taken(
            run_id=seen.run_id, status=status, accepted_at=seen.started_at, outcome=outcome
        )

    def _stop(
        self,
        tenant: ChattingTenant,
        store: SessionStore,
        message: Message,
        key: SessionKey,
        *,
        space: str,
    ) -> Taken:
        now = self._clock()
        run_id = message.idempotency_key
        store.requests.begin(space, run_id, fingerprint=message.fingerprint, run_id=run_id, now=now)
        stopped = _cancel(tenant, key, "stop", with_waiting=True)
        outcome = RunOutcome(run_id=run_id, status="ok", session_key=key.short, stop_reason="stop")
        store.requests.finish(space, run_id, outcome.encoded(), now=now)
        return Taken(
            run_id=run_id, status="ok", accepted_at=now, outcome=outcome, stopped=tuple(stopped)
        )

    def _begin(self, tenant: ChattingTenant, task: RunTask, mode: QueueMode) -> None:
        """Let the run go ahead or wait in its session's line."""
        run, queue = task.run, tenant.config.defaults.session.queue
        dropped: list[ActiveRun] = []
        policy = QueuePolicy(queue.debounce_ms / 1000, queue.cap, Drop(queue.drop))
        line = tenant.runs.line(run.key)
        limit = tenant.meter.limits.concurrent_sessions
        try:
            if line.active is not None and line.backlog.is_full(policy):
                raise RateLimited(
                    f"{queue.cap} messages wait in this session already; wait for an answer",
                    retry_after=1,
                )
            tenant.runs.start(run)
            dropped = line.offer(
                run,
                mode=mode,
                policy=policy,
                join=partial(tenant.turns.join, run.key, limit=limit),
            )
            at_once = run.place is not None and run.place.is_first
            if at_once and not task.prompt.compacts:
                self._turns.accept(tenant, task)
            else:
                task.store.inbox.put(waiting_message(task))
            tenant.start(partial(self._turns.perform, tenant, task), caller=task.caller)
        except ApplianceError as error:
            self._turns.refuse(task, error)
            tenant.runs.withdraw(run)
            raise
        finally:
            for gone in dropped:
                gone.cancel("dropped")

    def _command(self, tenant: ChattingTenant, task: RunTask, command: Invocation) -> None:
        run, store = task.run, task.store
        done = self._commands.carry_out(tenant, store, run.key, command)
        match done:
            case Follow(text, compacts):
                task.prompt = Prompt(
                    text=text,
                    thinking=task.prompt.thinking,
                    limit=task.prompt.limit,
                    compacts=compacts,
                    meta=task.prompt.meta,
                )
                run.subject = task.prompt
                self._begin(tenant, task, QueueMode.FOLLOWUP)
            case Reply(text):
                tenant.runs.start(run)
                said = task.prompt.text
                note_exchange(store, run.key, said, text, run_id=run.id, now=self._clock())
                task.text = text
                task.finished = Finished(FinishReason.STOP, None)
                self._turns.end(tenant, task, cancelled=False)


async def _parts(attachments: Sequence[object]) -> list[Part]:
    if not attachments:
        return []
    size = sum(len(str(a.get("content", ""))) for a in attachments if isinstance(a, Mapping))
    if size < _LARGE:
        return image_parts(attachments)
    return await trio.to_thread.run_sync(image_parts, attachments)


def _thinking(level: str | None) -> Thinking | None:
    if not level:
        return None
    try:
        return Thinking(level.strip().lower())
    except ValueError:
        known = ", ".join(Thinking)
        raise InvalidRequest.at(
            "thinking", f"{level[:40]!r} is not a known level", f"use one of {known}"
        ) from None


def _mode(tenant: ChattingTenant, session: Session | None, wanted: str | None) -> QueueMode:
    queue = tenant.config.defaults.session.queue
    own = None if session is None else session.settings.get("queueMode")
    for mode in (wanted, own, queue.by_channel.get("webchat"), queue.mode):
        if mode in set(QueueMode):
            return QueueMode(str(mode))
    return QueueMode.COLLECT


def _cancel(
    tenant: ChattingTenant, key: SessionKey, reason: str, *, with_waiting: bool
) -> list[str]:
    runs = tenant.runs.for_session(key.short)
    if not with_waiting:
        runs = runs[:1]
    return [run.id for run in runs if run.cancel(reason)]


def _outcome(seen: Seen) -> RunOutcome | None:
    if seen.outcome is not None:
        return RunOutcome.decoded(seen.outcome)
    if seen.interrupted:
        return RunOutcome(
            run_id=seen.run_id,
            status="error",
            error="the gateway was restarted before the run ended",
            stop_reason="restart",
            error_kind="unknown",
        )
    return None


def _refused(field_name: str, reason: str) -> InvalidRequest:
    """In the words that clients look for."""
    return InvalidRequest(reason, fields=[FieldError(field_name, reason)])
