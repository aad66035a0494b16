"""What clients are told of a run while it goes on, in the order they know.

``agent`` events say what the agent does, ``chat`` events what is shown. Text
is told at most every 150 ms, and what has not been told by then goes out
before the end. A run ends with exactly one ``final``, ``aborted`` or ``error``.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

import trio

from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.services.events import Audience, TenantEvents
from appliance.services.runs import ActiveRun, RunOutcome
from appliance.services.session_events import publish_changed
from appliance.services.turns.requests import ToolActivity
from appliance.storage.session_rows import Session, StoredMessage

THROTTLE = 0.15  # seconds between two deltas of a run
SILENT_REPLY = "NO_REPLY"  # what an agent answers that has nothing to say


def text_message(text: str, at_ms: int, **more: object) -> dict[str, object]:
    """What an agent said, as clients read it."""
    content = [{"type": "text", "text": text}]
    return {"role": "assistant", "content": content, "timestamp": at_ms} | more


class RunReporter:
    """Publishes what happens in one run. Nothing in here waits or fails.

    It holds everything back until :meth:`release`, so that the answer to the
    request, which names the run, comes before the run's events.
    """

    def __init__(
        self, events: TenantEvents, run: ActiveRun, *, clock: Callable[[], datetime]
    ) -> None:
        self._events = events
        self._run = run
        self._clock = clock
        self._agent_seq = 0
        self._chat_seq = 0
        self._held: list[Callable[[], object]] | None = []
        self._text = ""
        self._told_agent = 0  # characters of the text
        self._told_chat = 0
        self._thought = ""
        self._told_thought = 0
        self._next_at = 0.0
        self._is_over = False
        self._has_started = False

    @property
    def text(self) -> str:
        return self._text

    def release(self) -> None:
        """Publish what was held back, and from now on everything at once."""
        held, self._held = self._held, None
        for publish in held or ():
            publish()

    # What happens, in order

    def started(self) -> None:
        self._has_started = True
        self._agent("lifecycle", {"phase": "start", "startedAt": self._now()})
        self.session_changed("run-start")

    def model_chosen(self, provider: str, model: str) -> None:
        self._agent("lifecycle", {"phase": "model", "provider": provider, "model": model})

    def compaction(self, phase: str, *, will_retry: bool = False) -> None:
        data: dict[str, object] = {"phase": phase}
        if will_retry:
            data["willRetry"] = True
        self._agent("compaction", data)

    def message_stored(self, stored: StoredMessage) -> None:
        """A line was added to the transcript."""
        run = self._run
        payload = message_payload(run.key, run.session_id, stored, run_id=run.id)
        self._publish("session.message", payload, audience=Audience.SESSION)

    def add_text(self, text: str) -> None:
        self._text += text
        self._run.text = self._text
        now = trio.current_time()
        if now < self._next_at:
            return
        self._next_at = now + THROTTLE
        self._flush_agent()
        self._flush_chat()

    def add_thought(self, text: str) -> None:
        self._thought += text
        now = trio.current_time()
        if now >= self._next_at:
            self._next_at = now + THROTTLE
            self._flush_thought()

    def tool(self, activity: ToolActivity) -> None:
        """A tool began, told something, or ended: for those who asked to see that."""
        # What was said before the call is shown before it.
        self._flush_agent()
        self._flush_chat()
        data: dict[str, object] = {
            "phase": activity.phase,
            "name": activity.name,
            "toolCallId": activity.call_id,
        }
        match activity.phase:
            case "start":
                data["args"] = activity.arguments or {}
            case "update":
                data["partialResult"] = _tool_text(activity.text)
            case _:
                data["result"] = _tool_text(activity.text) | {"details": dict(activity.details)}
                data["isError"] = activity.is_error
        self._agent(
            "tool", data, droppable=activity.phase == "update", audience=Audience.TOOL_WATCHERS
        )

    def end(self, outcome: RunOutcome, *, message: Mapping[str, object] | None) -> None:
        """Tell how the run ended; the second time nothing."""
        if self._is_over:
            return
        self._is_over = True
        self._flush_thought()
        self._flush_agent()
        self._lifecycle_end(outcome)
        match outcome.status:
            case "ok":
                self._flush_chat()
                self._chat("final", _final(outcome, message))
            case "aborted":
                self._flush_chat()
                self._chat("aborted", {"stopReason": outcome.stop_reason} | _shown(message))
            case _:
                self._flush_chat()
                self._chat("error", _error(outcome) | _shown(message))
        self.session_changed("run-end")

    def session_changed(self, reason: str, session: Session | None = None) -> None:
        run = self._run

        def publish() -> None:
            publish_changed(
                self._events, run.key, reason=reason, now=self._clock(), session=session
            )

        self._hold(publish)

    # How it is told

    def _lifecycle_end(self, outcome: RunOutcome) -> None:
        if not self._has_started:
            return
        data: dict[str, object] = {"endedAt": outcome.ended_at}
        if outcome.status in {"error", "timeout"}:
            data |= {"phase": "error", "error": outcome.error}
        else:
            data["phase"] = "end"
            if outcome.status == "aborted":
                data["aborted"] = True
            if outcome.stop_reason:
                data["stopReason"] = outcome.stop_reason
        self._agent("lifecycle", data)

    def _flush_thought(self) -> None:
        if self._told_thought < len(self._thought):
            delta = self._thought[self._told_thought :]
            self._told_thought = len(self._thought)
            self._agent("thinking", {"text": self._thought, "delta": delta}, droppable=True)

    def _flush_agent(self) -> None:
        if self._told_agent < len(self._text):
            delta = self._text[self._told_agent :]
            self._told_agent = len(self._text)
            self._agent("assistant", {"text": self._text, "delta": delta}, droppable=True)

    def _flush_chat(self) -> None:
        if self._told_chat < len(self._text):
            delta = self._text[self._told_chat :]
            self._told_chat = len(self._text)
            message = text_message(self._text, self._now())
            self._chat("delta", {"message": message, "deltaText": delta}, droppable=True)

    def _agent(
        self,
        stream: str,
        data: dict[str, object],
        *,
        droppable: bool = False,
        audience: Audience = Audience.READERS,
    ) -> None:
        self._agent_seq += 1
        payload = self._named(self._agent_seq) | {
            "stream": stream,
            "ts": self._now(),
            "data": data,
        }
        if self._run.session_id:
            payload["sessionId"] = self._run.session_id
        self._publish("agent", payload, droppable=droppable, audience=audience)

    def _chat(self, state: str, more: dict[str, object], *, droppable: bool = False) -> None:
        self._chat_seq += 1
        payload = self._named(self._chat_seq) | {"state": state} | more
        self._publish("chat", payload, droppable=droppable)

    def _named(self, seq: int) -> dict[str, object]:
        run = self._run
        return {
            "runId": run.id,
            "sessionKey": run.key.short,
            "agentId": run.key.agent,
            "seq": seq,
        }

    def _publish(
        self,
        name: str,
        payload: Mapping[str, object],
        *,
        audience: Audience = Audience.READERS,
        droppable: bool = False,
    ) -> None:
        session = self._run.key.short

        def publish() -> None:
            self._events.publish(
                name, payload, audience=audience, droppable=droppable, session=session
            )

        self._hold(publish)

    def _hold(self, publish: Callable[[], None]) -> None:
        if self._held is None:
            publish()
        else:
            self._held.append(publish)

    def _now(self) -> int:
        return to_ms(self._clock())


def _tool_text(text: str) -> dict[str, object]:
    return {"content": [{"type": "text", "text": text}]}


def message_payload(
    key: SessionKey, session_id: str, stored: StoredMessage, *, run_id: str = ""
) -> dict[str, object]:
    """A new line of the transcript, for whoever follows the session's messages."""
    payload: dict[str, object] = {
        "sessionKey": key.short,
        "agentId": key.agent,
        "sessionId": session_id,
        "messageId": stored.id,
        "messageSeq": stored.seq,
        "message": dict(stored.message) | {"timestamp": to_ms(stored.created_at)},
    }
    if run_id:
        payload["runId"] = run_id
    return payload


def _final(outcome: RunOutcome, message: Mapping[str, object] | None) -> dict[str, object]:
    more = _shown(message)
    if outcome.usage is not None:
        more["usage"] = outcome.usage
    if outcome.stop_reason:
        more["stopReason"] = outcome.stop_reason
    return more


def _error(outcome: RunOutcome) -> dict[str, object]:
    return {"errorMessage": outcome.error, "errorKind": outcome.error_kind or "unknown"}


def _shown(message: Mapping[str, object] | None) -> dict[str, object]:
    return {} if message is None else {"message": message}
