"""How a run ended, for its clients and for whoever asks again."""

from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from appliance.model.calls import Finished, FinishReason
from appliance.model.chat_commands import UsageFooter
from appliance.model.errors import (
    ApplianceError,
    ContextTooLong,
    QuotaExceeded,
    RateLimited,
    UpstreamTimeout,
)
from appliance.model.money import format_amount
from appliance.model.periods import to_ms
from appliance.services.chat_events import SILENT_REPLY, text_message
from appliance.services.chat_tasks import RunTask
from appliance.services.runs import RunOutcome
from appliance.services.turns.requests import TurnRecord
from appliance.services.turns.turns import usage_of
from appliance.storage.inbox import Unanswered
from appliance.storage.session_rows import RunStatus, Session


def outcome_of(task: RunTask, *, cancelled: bool, now: datetime) -> RunOutcome:
    """How the run ended, from what is known of it."""
    run = task.run
    outcome = RunOutcome(
        run_id=run.id,
        status="ok",
        session_key=run.key.short,
        session_id=run.session_id,
        started_at=to_ms(run.started_at or run.accepted_at),
        ended_at=to_ms(now),
        text=task.text or task.reporter.text,
        **_model_facts(task.record),
    )
    replaced = partial(msgspec.structs.replace, outcome)
    if task.finished is not None:
        return _finished(outcome, task.finished)
    if task.failure is not None:
        return replaced(status="error", error=task.failure.detail, error_kind=_kind(task.failure))
    if task.timed_out:
        seconds = to_ms(now) - outcome.started_at
        return replaced(
            status="timeout",
            error=f"the run was ended after {seconds / 1000:.0f} s, its time limit",
            error_kind="timeout",
            stop_reason="timeout",
        )
    carrier = None if run.carrier is None else run.carrier.outcome
    if carrier is not None and not cancelled:
        return msgspec.structs.replace(
            carrier, run_id=run.id, merged_into=carrier.merged_into or carrier.run_id
        )
    if cancelled:
        return replaced(status="aborted", stop_reason=task.why_cancelled())
    return replaced(status="error", error="the run failed; the log knows more")


def unanswered(task: RunTask, outcome: RunOutcome) -> Unanswered | None:
    """How to mark a message that waited until its run ended; None to let it go.

    It goes only where somebody asked for that: a person who stopped the run, or
    the queue's cap. It was acknowledged, so neither a failure nor a gateway that
    shuts down makes it unsaid.
    """
    if outcome.status == "ok" or task.run.stop_reason:
        return None
    if outcome.status == "aborted":
        return Unanswered(RunStatus.CANCELLED, outcome.stop_reason)
    return Unanswered(RunStatus.FAILED, outcome.stop_reason or "error", outcome.error)


def _model_facts(record: TurnRecord | None) -> dict[str, Any]:
    if record is None or record.call is None:
        return {}
    facts: dict[str, Any] = {
        "provider": record.call.target.provider,
        "model": record.call.target.model,
    }
    if record.usage is not None:
        facts["usage"] = usage_of(record.usage)
    return facts


def _finished(outcome: RunOutcome, finished: Finished) -> RunOutcome:
    if finished.reason is FinishReason.CONTENT_FILTER and not outcome.text:
        return msgspec.structs.replace(
            outcome, status="error", error="the model refused to answer", error_kind="refusal"
        )
    return msgspec.structs.replace(outcome, stop_reason=finished.reason.value)


def _kind(failure: ApplianceError) -> str:
    match failure:
        case RateLimited() | QuotaExceeded():
            return "rate_limit"
        case ContextTooLong():
            return "context_length"
        case UpstreamTimeout():
            return "timeout"
        case _:
            return "unknown"


def footer(session: Session | None, record: TurnRecord) -> str:
    """The line below an answer that the session asked for with ``/usage``."""
    mode = None if session is None else session.settings.get("responseUsage")
    used = record.usage
    if used is None or mode not in {UsageFooter.TOKENS, UsageFooter.FULL}:
        return ""
    line = f"Usage: {used.prompt} in / {used.completion} out"
    if mode == UsageFooter.FULL and record.is_priced:
        line += f" / cost {format_amount(record.cost_nano)}"
    return line


def shown(task: RunTask, outcome: RunOutcome) -> dict[str, object] | None:
    """The message of the last ``chat`` event; None where there is nothing to show."""
    text = outcome.text
    if not text or text.strip() == SILENT_REPLY or outcome.merged_into:
        return None
    if task.footer:
        text = f"{text}\n\n{task.footer}"
    more: dict[str, object] = {}
    if outcome.provider:
        more |= {"provider": outcome.provider, "model": outcome.model}
    if outcome.usage is not None:
        more["usage"] = outcome.usage
    if outcome.stop_reason:
        more["stopReason"] = outcome.stop_reason
    return text_message(text, outcome.ended_at, **more)
