"""What commands in a chat do: answered at once, without a model, or turned into a run."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from appliance.model.chat_commands import (
    CommandName,
    Invocation,
    Thinking,
    UsageFooter,
    help_text,
)
from appliance.model.errors import InvalidRequest, ModelUnknown
from appliance.model.message_queue import QueueMode
from appliance.model.session_keys import SessionKey
from appliance.services.chat_tasks import ChattingTenant
from appliance.services.context_windows import context_window
from appliance.services.routing import Router
from appliance.services.session_events import publish_changed
from appliance.services.turns.requests import model_of
from appliance.storage.session_rows import Session
from appliance.storage.sessions import SessionStore

GREETING = (
    "A new session has begun. Greet me in one to three short sentences, in your own manner, "
    "and ask what we are going to do."
)
_BACK = {"default", "reset", "clear"}


@dataclass(frozen=True, slots=True)
class Reply:
    """The command is done; this is its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Follow:
    """The command goes on as a run with this text."""

    text: str
    compacts: bool = False


@dataclass(frozen=True, slots=True)
class _Given:
    tenant: ChattingTenant
    store: SessionStore
    key: SessionKey
    rest: str

    @property
    def session(self) -> Session | None:
        return self.store.find(self.key)


class ChatCommands:
    def __init__(self, router: Router, *, clock: Callable[[], datetime]) -> None:
        self._router = router
        self._clock = clock

    def carry_out(
        self,
        tenant: ChattingTenant,
        store: SessionStore,
        key: SessionKey,
        invocation: Invocation,
    ) -> Reply | Follow:
        """Do it, in the loop and without waiting. What cannot be done is said in the reply."""
        given = _Given(tenant, store, key, invocation.rest)
        match invocation.command.name:
            case CommandName.NEW | CommandName.RESET:
                return self._new(given, invocation.command.name)
            case CommandName.COMPACT:
                return Follow(given.rest, compacts=True)
            case CommandName.STATUS:
                return Reply(_status(given))
            case CommandName.MODEL:
                return Reply(self._model(given))
            case CommandName.USAGE:
                return Reply(self._usage(given))
            case CommandName.THINK:
                return Reply(self._think(given))
            case CommandName.QUEUE:
                return Reply(self._queue(given))
            case CommandName.STOP | CommandName.HELP:
                return Reply(help_text())

    def _new(self, given: _Given, name: CommandName) -> Follow:
        tenant, store, key = given.tenant, given.store, given.key
        for run in tenant.runs.for_session(key.short):
            run.cancel("reset")
        word, _, after = given.rest.partition(" ")
        model = word if name is CommandName.NEW and self._is_model(tenant, word) else None
        session = store.reset(key, reason=name.value, now=self._clock())
        if model is not None:
            session = store.patch(key, settings={"model": model}, now=self._clock())
        publish_changed(tenant.events, key, reason=name, now=self._clock(), session=session)
        text = after.strip() if model is not None else given.rest
        return Follow(text or GREETING)

    def _model(self, given: _Given) -> str:
        name = given.rest
        if not name or name == "status":
            return f"Model: {_model_name(given)}"
        if name.lower() in _BACK:
            self._set(given, model=None)
            return f"This session uses its agent's model again: {_model_name(given)}"
        if not self._is_model(given.tenant, name):
            return f"There is no model {name!r}. Name one as provider/model or by its alias."
        self._set(given, model=name)
        return f"This session now uses {name}."

    def _usage(self, given: _Given) -> str:
        mode = given.rest.lower()
        session = given.session
        if not mode:
            used = (0, 0) if session is None else (session.input_tokens, session.output_tokens)
            return f"This session used {used[0]} tokens in and {used[1]} out."
        if mode not in set(UsageFooter):
            return "Say /usage off, /usage tokens or /usage full."
        self._set(given, responseUsage=None if mode == UsageFooter.OFF else mode)
        return f"Usage below each answer: {mode}."

    def _think(self, given: _Given) -> str:
        level = given.rest.lower()
        if not level:
            session = given.session
            now = None if session is None else session.settings.get("thinkingLevel")
            return f"Thinking: {now or Thinking.OFF.value}. Levels: {', '.join(Thinking)}."
        if level in _BACK:
            self._set(given, thinkingLevel=None)
            return "Thinking is as the model does it by itself again."
        if level not in set(Thinking):
            return f"There is no level {level[:40]!r}. Levels: {', '.join(Thinking)}."
        self._set(given, thinkingLevel=level)
        return f"Thinking: {level}."

    def _queue(self, given: _Given) -> str:
        mode = given.rest.lower().split(maxsplit=1)[0] if given.rest else ""
        if not mode:
            return f"Messages that come while I work: {_queue_mode(given)}."
        if mode in _BACK:
            self._set(given, queueMode=None)
            return f"Messages that come while I work: {_queue_mode(given)}, as configured."
        if mode not in set(QueueMode):
            return f"There is no mode {mode[:40]!r}. Modes: {', '.join(QueueMode)}, default."
        self._set(given, queueMode=mode)
        return f"Messages that come while I work: {mode}."

    def _set(self, given: _Given, **settings: object | None) -> None:
        now = self._clock()
        given.store.open_session(given.key, now=now)
        session = given.store.patch(given.key, settings=settings, now=now)
        publish_changed(given.tenant.events, given.key, reason="patch", now=now, session=session)

    def _is_model(self, tenant: ChattingTenant, name: str) -> bool:
        if not name:
            return False
        try:
            self._router.resolve(name, tenant.config)
        except (ModelUnknown, InvalidRequest):
            return False
        return True


def _model_name(given: _Given) -> str:
    session = given.session
    chosen = None if session is None else session.settings.get("model")
    if isinstance(chosen, str) and chosen:
        return chosen
    try:
        return model_of(given.tenant, given.key.agent)
    except ModelUnknown:
        return "none is configured"


def _queue_mode(given: _Given) -> str:
    session = given.session
    own = None if session is None else session.settings.get("queueMode")
    return str(own or given.tenant.config.defaults.session.queue.mode)


def _status(given: _Given) -> str:
    session, model = given.session, _model_name(given)
    window = context_window(given.tenant.config, model)
    lines = [f"Session: {given.key.short}", f"Model: {model}"]
    if session is None:
        lines.append(f"Context: 0 of {window} tokens")
    else:
        share = 100 * session.context_tokens // max(1, window)
        lines += [
            f"Context: {session.context_tokens} of {window} tokens ({share} %)",
            f"Used: {session.input_tokens} tokens in, {session.output_tokens} out",
            f"Compactions: {session.compactions}",
        ]
        thinking = session.settings.get("thinkingLevel")
        lines.append(f"Thinking: {thinking or Thinking.OFF.value}")
    lines.append(f"Queue: {_queue_mode(given)}")
    runs = given.tenant.runs.for_session(given.key.short)
    lines.append("Working: yes" if runs else "Working: no")
    return "\n".join(lines)
