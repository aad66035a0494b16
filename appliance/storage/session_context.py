"""What the model sees of a session: a summary of what was before, and the turns since."""

from collections.abc import Sequence
from contextlib import closing

import msgspec

from appliance.model.session_keys import SessionKey
from appliance.storage import transcripts
from appliance.storage.connection import Connection
from appliance.storage.session_changes import require
from appliance.storage.session_rows import (
    Context,
    ContextLine,
    Message,
    MessageKind,
    SessionRow,
    StoredMessage,
    encode,
    estimated_tokens,
    live_row,
    whole,
)

HISTORY = """
SELECT m.seq, m.run, m.tokens, m.message FROM messages AS m LEFT JOIN runs AS r ON r.id = m.run
WHERE m.session = ? AND m.seq >= ? AND m.kind = 'message'
      AND (m.run IS NULL OR r.answered AND m.run IS NOT ?)
ORDER BY m.seq DESC
"""
_COMPACT = """
UPDATE sessions SET summary = ?, kept_from = max(kept_from, ?), compactions = compactions + 1,
                    updated_ns = ?
WHERE id = ?
"""

_LAST_RUN = HISTORY + "LIMIT 1"

LOST = "[interrupted: nobody knows whether this was done]"  # a call without a result


class _Row(msgspec.Struct, array_like=True):
    seq: int
    run: str | None
    tokens: int
    message: str


def context(
    tx: Connection, key: SessionKey, *, limit_tokens: int, but_run: str | None = None
) -> Context:
    session = live_row(tx, key.short)
    if session is None:
        return Context(None, (), 0)
    spent = 0 if session.summary is None else estimated_tokens(session.summary)
    taken = _latest(tx, session, limit_tokens - spent, but_run)
    return Context(
        session.summary,
        tuple(
            ContextLine(row.seq, row.run, row.tokens, msgspec.json.decode(row.message))
            for row in reversed(taken)
        ),
        spent + sum(row.tokens for row in taken),
    )


def last_run(tx: Connection, key: SessionKey, *, but_run: str | None = None) -> str | None:
    """The run of the latest message that the model sees; None where that came outside a run."""
    session = live_row(tx, key.short)
    if session is None:
        return None
    for values in tx.execute(_LAST_RUN, (session.number, 0, but_run)).fetchall():
        return msgspec.convert(values, _Row).run
    return None


def conversation(context: Context, said_now: Sequence[Message] = ()) -> list[Message]:
    """The messages that are sent to the model."""
    said = with_answered_calls([*(line.message for line in context.lines), *said_now])
    if context.summary is None:
        return said
    text = f"Summary of the conversation so far: {context.summary}"
    return [{"role": "user", "content": text}, *said]


def with_answered_calls(messages: Sequence[Message]) -> list[Message]:
    """The same, so that every tool call has its one result behind it, as models demand.

    A crash leaves calls without results, a cut results without calls.
    """
    found: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.get("role") == "tool":
            call = str(message.get("tool_call_id"))
            if call in waiting:
                waiting.remove(call)
                found.append(message)
            continue
        found += map(_lost, waiting)
        waiting = call_ids(message)
        found.append(message)
    found += map(_lost, waiting)
    return found


def _lost(call: str) -> Message:
    return {"role": "tool", "tool_call_id": call, "content": LOST}


def call_ids(message: Message) -> list[str]:
    """The tool calls that a message of the assistant makes."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [str(call["id"]) for call in calls if isinstance(call, dict) and "id" in call]


def compact(
    tx: Connection,
    key: SessionKey,
    *,
    summary: str,
    kept_from: int,
    tokens_before: int,
    now_ns: int,
) -> StoredMessage:
    session = require(tx, key)
    summary = whole(summary)
    kept_from = min(max(kept_from, session.kept_from), session.last_seq + 1)
    tx.execute(_COMPACT, (summary, kept_from, now_ns, session.number))
    return transcripts.append_line(
        tx,
        key,
        None,
        # The release before shows the line to the model, to whom it says as much.
        role="system",
        message=encode({"role": "system", "content": summary}),
        kind=MessageKind.COMPACTION,
        meta={"keptFrom": kept_from, "tokensBefore": tokens_before},
        now_ns=now_ns,
    )


def _latest(
    tx: Connection, session: SessionRow, limit_tokens: int, but_run: str | None
) -> list[_Row]:
    """The rows of the latest whole turns within the limit, newest first."""
    taken: list[_Row] = []
    left = limit_tokens
    # Closed, because an unread row would keep the transaction open.
    with closing(tx.execute(HISTORY, (session.number, session.kept_from, but_run))) as cursor:
        for values in cursor:
            row = msgspec.convert(values, _Row)
            left -= row.tokens
            if left < 0:
                # The rest of the turn that this message belongs to goes with it.
                while row.run is not None and taken and taken[-1].run == row.run:
                    taken.pop()
                break
            taken.append(row)
    return taken
