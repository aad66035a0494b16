"""Agents that work for another agent: a session of their own, and a word when they are done."""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from appliance.model import session_scopes
from appliance.model.callers import Caller
from appliance.model.errors import ApplianceError, RateLimited
from appliance.model.session_keys import SessionKey
from appliance.services.chat import LONGEST_WAIT, Message, Taken
from appliance.services.chat_tasks import ChattingTenant
from appliance.services.runs import RunOutcome
from appliance.services.tools.toolbox import OnBehalf
from appliance.services.turns.requests import agent_of
from appliance.storage.session_rows import Session

log = logging.getLogger(__name__)

_LONGEST_REPORT = 20_000  # characters
_INHERITED = ("permissionMode", "execSecurity", "execAsk")


class Chat(Protocol):
    async def send(
        self,
        tenant: ChattingTenant,
        caller: Caller,
        message: Message,
        *,
        space: str = "chat",
        acknowledge: Callable[[Taken], None],
    ) -> Taken: ...
    async def wait(
        self,
        tenant: ChattingTenant,
        run_id: str,
        timeout: float,  # noqa: ASYNC109 - as the caller said
        /,
    ) -> RunOutcome | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What a sub-agent is to do; ``keeps_session`` False removes its session afterwards."""

    task: str
    agent: str
    label: str | None = None
    model: str | None = None
    thinking: str | None = None
    timeout: float | None = None  # seconds
    keeps_session: bool = True


@dataclass(frozen=True, slots=True)
class Spawned:
    key: SessionKey
    run_id: str


class Subagents:
    def __init__(self, chat: Chat, *, clock: Callable[[], datetime]) -> None:
        self._chat = chat
        self._clock = clock

    async def spawn(
        self,
        tenant: ChattingTenant,
        caller: Caller,
        parent: SessionKey,
        errand: Errand,
        *,
        depth: int,
        is_tainted: bool,
        channel: str = "",
    ) -> Spawned:
        """Begin an errand; its end is told in the parent's session.

        It may use what its agent may, as far as its parent may, too.

        Raises :exc:`RateLimited` where too many run already, :exc:`ModelUnknown`
        for an agent or a model that there is not.
        """
        agent_of(tenant, errand.agent)
        limits = tenant.config.defaults.tools.subagents
        running = sum(session_scopes.is_subagent(run.key) for run in tenant.runs)
        if running >= limits.max_running:
            raise RateLimited(
                f"{running} sub-agents run already, as many as may; wait for one", retry_after=1
            )
        key = SessionKey(tenant.id, errand.agent, f"subagent:{uuid.uuid4()}")
        store = await tenant.sessions()
        now = self._clock()
        session = store.open_session(key, now=now)
        settings: dict[str, object | None] = {"spawnedBy": parent.short, "spawnDepth": depth + 1}
        if errand.model is not None:
            settings["model"] = errand.model
        # What its parent may do only so, nobody does for it otherwise.
        before = store.find(parent)
        if before is not None:
            settings |= {n: before.settings[n] for n in _INHERITED if n in before.settings}
        store.patch(key, label=errand.label, settings=settings, now=now)
        behalf = OnBehalf.of(before).and_for(parent.agent, channel)
        store.note_facts(key, behalf.facts, now=now)
        if is_tainted:
            store.note_facts(key, {"untrusted": session.id}, now=now)
        run_id = f"spawn-{uuid.uuid4()}"
        limit = errand.timeout or limits.timeout
        message = Message(
            key=key,
            text=errand.task,
            idempotency_key=run_id,
            fingerprint=run_id.encode(),
            thinking=errand.thinking,
            timeout=limit,
            model=errand.model,
            has_commands=False,
            system=_BRIEFING,
            stays_in_session=True,
            meta={"channel": "subagent"},
        )
        await self._chat.send(tenant, caller, message, space="agent", acknowledge=_nothing)

        async def report() -> None:
            await self._report(tenant, caller, parent, Spawned(key, run_id), errand)

        tenant.start(report, caller=caller)
        return Spawned(key, run_id)

    async def _report(
        self,
        tenant: ChattingTenant,
        caller: Caller,
        parent: SessionKey,
        spawned: Spawned,
        errand: Errand,
    ) -> None:
        """Wait for the end of an errand and tell the session that wanted it."""
        outcome: RunOutcome | None = None
        while outcome is None:
            outcome = await self._chat.wait(tenant, spawned.run_id, LONGEST_WAIT)
        name = errand.label or spawned.key.short
        said = outcome.text.strip() or outcome.error or "(it said nothing)"
        text = f"[The sub-agent {name} ended: {outcome.status}]\n\n{said[:_LONGEST_REPORT]}"
        store = await tenant.sessions()
        child = store.find(spawned.key)
        if child is not None and is_tainted(child):
            before = store.find(parent)
            if before is not None:
                store.note_facts(parent, {"untrusted": before.id}, now=self._clock())
        if not errand.keeps_session:
            store.delete(spawned.key)
        run_id = f"report-{spawned.run_id}"
        message = Message(
            key=parent,
            text=text,
            idempotency_key=run_id,
            fingerprint=run_id.encode(),
            has_commands=False,
            queue_mode="steer",
            stays_in_session=True,
            meta={"subagent": spawned.key.short},
        )
        try:
            await self._chat.send(tenant, caller, message, acknowledge=_nothing)
        except ApplianceError as error:
            log.warning("a sub-agent's report is not delivered", extra={"reason": error.detail})


def is_tainted(session: Session) -> bool:
    """Whether the session, as it is now, holds what strangers wrote."""
    return session.facts.get("untrusted") == session.id


def _nothing(taken: Taken) -> None:
    del taken


_BRIEFING = (
    "You were started by another agent for one task. Do it without asking back; your last "
    "answer is all that is reported, so put everything into it that is needed."
)
