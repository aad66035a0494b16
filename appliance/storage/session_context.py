"""What the model sees of a session: a summary of what was before, and the turns since."""

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
    StoredMessage,
    encode,
    estimated_tokens,
    live_row,
    whole,
)

HISTORY = """
SELECT m.seq, m.run, m.tokens, m.message FROM messages AS m LEFT JOIN runs AS r ON r.id = m.run
WHERE m.session = ? AND m.seq >= ? AND m.kind = 'message' AND (m.run IS NULL OR r.answered)
ORDER BY m.seq DESC
"""
_COMPACT = """
UPDATE sessions SET summary = ?, kept_from = max(kept_from, ?), compactions = compactions + 1,
                    updated_ns = ?
WHERE id = ?
"""


class _Row(msgspec.Struct, array_like=True):
    seq: int
    run: str | None
    tokens: int
    message: str


def context(tx: Connection, key: SessionKey, *, limit_tokens: int) -> Context:
    session = live_row(tx, key.short)
    if session is None:
        return Context(None, (), 0)
    spent = 0 if session.summary is None else estimated_tokens(session.summary)
    taken = _latest(tx, session.number, session.kept_from, limit_tokens - spent)
    return Context(
        session.summary,
        tuple(
            ContextLine(row.seq, row.run, row.tokens, msgspec.json.decode(row.message))
            for row in reversed(taken)
        ),
        spent + sum(row.tokens for row in taken),
    )


def conversation(context: Context) -> list[Message]:
    """The messages that are sent to the model."""
    said = [line.message for line in context.lines]
    if context.summary is None:
        return said
    text = f"Summary of the conversation so far: {context.summary}"
    return [{"role": "user", "content": text}, *said]


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


def _latest(tx: Connection, session: int, kept_from: int, limit_tokens: int) -> list[_Row]:
    """The rows of the latest whole turns within the limit, newest first."""
    taken: list[_Row] = []
    left = limit_tokens
    # Closed, because an unread row would keep the transaction open.
    with closing(tx.execute(HISTORY, (session, kept_from))) as cursor:
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
