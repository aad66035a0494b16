"""What a run is to answer, and what it takes to go through with it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import trio

from appliance.model.callers import Caller
from appliance.model.calls import Finished
from appliance.model.chat_attachments import Part
from appliance.model.chat_commands import Thinking
from appliance.model.errors import ApplianceError
from appliance.protocols.chat_request import ChatRequest
from appliance.services.chat_events import RunReporter
from appliance.services.clients import ConnectedClients
from appliance.services.compaction import TenantToCompact
from appliance.services.runs import ActiveRun, RunBook
from appliance.services.tenant_state import TenantState
from appliance.services.turns.requests import Message, TurnRecord, TurnRequest
from appliance.storage.inbox import WaitingMessage
from appliance.storage.paths import TenantRoot
from appliance.storage.session_rows import MessageKind, Session
from appliance.storage.sessions import SessionStore


class StartedWork(Protocol):
    def cancel(self) -> None: ...


class ChattingTenant(TenantToCompact, Protocol):
    """A running tenant whose runs outlive the connections that ask for them."""

    @property
    def runs(self) -> RunBook: ...
    @property
    def root(self) -> TenantRoot: ...
    @property
    def state(self) -> TenantState: ...
    @property
    def clients(self) -> ConnectedClients: ...
    def start(self, work: Callable[[], Awaitable[None]], *, caller: Caller) -> StartedWork: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a run is to answer."""

    text: str
    parts: Sequence[Part] = ()  # pictures
    thinking: Thinking | None = None  # for this answer only
    system: str = ""  # for this answer only
    model: str | None = None  # for this answer only
    limit: float | None = None  # seconds; None: the agent's, 0: none
    debounce: float = 0.0
    compacts: bool = False  # the text tells what a summary must keep; nothing is answered
    meta: dict[str, object] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """What the person wrote."""
        return f"/compact {self.text}".strip() if self.compacts else self.text


@dataclass(slots=True, kw_only=True)
class RunTask:
    """A run with what it takes to go through with it."""

    run: ActiveRun
    prompt: Prompt
    caller: Caller
    store: SessionStore
    reporter: RunReporter
    space: str  # of the requests: "chat" or "agent"
    turn: TurnRequest | None = None  # once what was said is stored
    record: TurnRecord | None = None
    limit: trio.CancelScope | None = None
    failure: ApplianceError | None = None
    finished: Finished | None = None
    text: str = ""  # the whole answer
    footer: str = ""

    @property
    def timed_out(self) -> bool:
        return self.limit is not None and self.limit.cancelled_caught

    def why_cancelled(self) -> str:
        if self.run.stop_reason:
            return self.run.stop_reason
        late = self.limit is not None and self.limit.cancel_called
        return "timeout" if late else "cancelled"


def user_message(text: str, parts: Sequence[Part]) -> dict[str, object]:
    if not parts:
        return {"role": "user", "content": text}
    words: list[Part] = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [*words, *parts]}


def waiting_message(task: RunTask) -> WaitingMessage:
    """What a run is to answer, to be kept until its turn has come."""
    run, prompt = task.run, task.prompt
    return WaitingMessage(
        run_id=run.id,
        space=task.space,
        key=run.key,
        message=user_message(prompt.said, prompt.parts),
        kind=MessageKind.NOTE if prompt.compacts else MessageKind.MESSAGE,
        meta=_meta(task),
        credential=task.caller.credential,
        request_id=task.caller.request_id,
        received_at=run.accepted_at,
    )


def turn_request(
    task: RunTask,
    session: Session | None,
    said: Message,
    *,
    answers: Sequence[str] = (),
) -> TurnRequest:
    settings = {} if session is None else session.settings
    level = task.prompt.thinking or settings.get("thinkingLevel")
    system = [{"role": "system", "content": task.prompt.system}] if task.prompt.system else []
    body = {"messages": msgspec.json.encode(system)}
    effort = Thinking(str(level)).effort if level in set(Thinking) else None
    if effort is not None:
        body["reasoning_effort"] = msgspec.json.encode(effort)
    chosen = task.prompt.model or settings.get("model")
    return TurnRequest(
        key=task.run.key,
        chat=ChatRequest(
            model="openclaw",
            stream=True,
            include_usage=True,
            output_limit=None,
            user=None,
            choices=1,
            prompt_bytes=0,
            body=body,
        ),
        messages=[said],
        keeps_history=True,
        model=chosen if isinstance(chosen, str) and chosen else None,
        source=task.space,
        meta=_meta(task),
        answers=answers,
        channel=str(task.prompt.meta.get("channel") or "webchat"),
    )


def _meta(task: RunTask) -> dict[str, object]:
    return {"idempotencyKey": task.run.id} | task.prompt.meta
