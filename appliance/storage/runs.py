"""Turns: what was said, and how it was answered. All within the caller's transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from appliance.model.ids import new_id
from appliance.model.periods import from_ns
from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.storage import transcripts
from appliance.storage.connection import Connection
from appliance.storage.session_changes import open_session
from appliance.storage.session_rows import Run, RunRecord, RunStatus, encode, whole

LONGEST_TITLE = 80  # characters
MOST_RUNS = 1_000

HEARTBEAT = "heartbeat"  # a source whose turns do not count as use of the session
_UNATTENDED = frozenset({HEARTBEAT, "cron"})  # sources where no person spoke

_OPEN_SESSION = """
INSERT INTO sessions (public_id, key, agent, title, model, created_ns, updated_ns, interaction_ns)
VALUES (:id, :key, :agent, :title, :model, :now, :now, :interaction)
ON CONFLICT (key) DO UPDATE SET
    title = CASE WHEN title = '' THEN excluded.title ELSE title END,
    model = excluded.model,
    updated_ns = CASE WHEN :is_use THEN excluded.updated_ns ELSE updated_ns END,
    interaction_ns = coalesce(excluded.interaction_ns, interaction_ns)
RETURNING id, public_id, messages
"""
_BEGIN = """
INSERT INTO runs (id, session, request_id, model, status, started_ns, source, own_seq)
VALUES (?, ?, ?, ?, 'running', ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
# "Answered" says that it is part of the conversation.
_LEAVE = """
INSERT INTO runs (id, session, request_id, model, status, answered, started_ns, ended_ns, source,
                  error)
VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?)
"""
_SPOKEN = """
UPDATE sessions SET title = CASE WHEN title = '' THEN :title ELSE title END,
                    updated_ns = max(updated_ns, :now),
                    interaction_ns = max(coalesce(interaction_ns, 0), :now)
WHERE id = :session
"""
_FINISH = """
UPDATE runs SET status = ?, answered = max(answered, ?), ended_ns = ?, input_tokens = ?,
                output_tokens = ?, cache_read_tokens = ?, cache_write_tokens = ?, error = ?
WHERE id = ? RETURNING source
"""
_ANSWERED = "UPDATE runs SET answered = 1 WHERE id = ?"
_COUNT = """
UPDATE sessions SET updated_ns = CASE WHEN :is_use THEN :now ELSE updated_ns END,
                    input_tokens = input_tokens + :input,
                    output_tokens = output_tokens + :output,
                    cache_read_tokens = cache_read_tokens + :cache_read,
                    cache_write_tokens = cache_write_tokens + :cache_write,
                    context_tokens = coalesce(:context, context_tokens), aborted = :aborted
WHERE id = :session
"""
_COLUMNS = """
SELECT id, request_id, model, status, source, error, started_ns, ended_ns, input_tokens,
       output_tokens, cache_read_tokens, cache_write_tokens
FROM runs
"""
RUNS = _COLUMNS + "WHERE session = ? ORDER BY started_ns DESC LIMIT ?"
CRASH = "UPDATE runs SET status = 'crashed', ended_ns = ? WHERE status = 'running'"


@dataclass(frozen=True, slots=True)
class Beginning:
    """What begins a run, ready for the database."""

    said: tuple[tuple[str, str], ...]  # role and JSON of each message
    title: str
    meta: str | None

    @classmethod
    def of(
        cls, messages: Sequence[Mapping[str, object]], meta: Mapping[str, object] | None
    ) -> "Beginning":
        """Raises :exc:`InvalidRequest` for text that is not Unicode."""
        said = tuple((str(message.get("role", "")), encode(message)) for message in messages)
        return cls(said, _title(messages), None if meta is None else encode(meta, field="meta"))


def begin(
    tx: Connection,
    key: SessionKey,
    beginning: Beginning,
    *,
    run_id: str | None,
    request_id: str,
    model: str,
    source: str,
    now_ns: int,
) -> Run:
    values = {
        "id": new_id("ses"),
        "key": key.short,
        "agent": key.agent,
        "title": beginning.title,
        "model": model,
        "now": now_ns,
        "interaction": None if source in _UNATTENDED else now_ns,
        "is_use": source != HEARTBEAT,
    }
    ((number, public_id, seq),) = tx.execute(_OPEN_SESSION, values).fetchall()
    session = msgspec.convert(number, int)
    run_id = run_id or new_id("run")
    own_seq = msgspec.convert(seq, int) + 1 + len(beginning.said)
    more = (session, request_id, model, now_ns, source, own_seq)
    tx.execute(_BEGIN, (run_id, *more))
    if not tx.changes():
        # A client's own id, of a turn long ago or in another space of such ids.
        run_id = new_id("run")
        tx.execute(_BEGIN, (run_id, *more))
    for role, text in beginning.said:
        meta = beginning.meta if role == "user" else None
        transcripts.append(
            tx, session, role=role, message=text, now_ns=now_ns, run=run_id, meta=meta
        )
    return Run(run_id, session, str(public_id), msgspec.convert(seq, int) + 1)


def leave(
    tx: Connection,
    key: SessionKey,
    beginning: Beginning,
    *,
    request_id: str,
    source: str,
    status: RunStatus,
    error: str,
    said_ns: int,
    now_ns: int,
) -> None:
    """Keep what was said and is not answered; the next turn sees it all the same."""
    session = open_session(tx, key, model="", facts={}, now_ns=said_ns)
    tx.execute(_SPOKEN, {"title": beginning.title, "now": said_ns, "session": session.number})
    run_id = new_id("run")
    # fmt: off
    tx.execute(_LEAVE, (
        run_id, session.number, request_id, session.model, status.value, said_ns, now_ns, source,
        whole(error),
    ))
    # fmt: on
    for role, text in beginning.said:
        transcripts.append(
            tx, session.number, role=role, message=text, now_ns=said_ns, run=run_id,
            meta=beginning.meta,
        )  # fmt: skip


def add_round(
    tx: Connection,
    run: Run,
    lines: Sequence[tuple[str, str, str | None]],
    *,
    now_ns: int,
) -> list[str]:
    """Keep what was said and done so far, so that later turns know; return the lines' ids."""
    tx.execute(_ANSWERED, (run.id,))
    if not tx.changes():
        return []  # the session was deleted meanwhile
    return [
        transcripts.append(
            tx, run.session, role=role, message=message, now_ns=now_ns, run=run.id, meta=meta
        )
        for role, message, meta in lines
    ]


def finish(
    tx: Connection,
    run: Run,
    *,
    text: str,
    usage: TokenUsage,
    status: RunStatus,
    meta: Mapping[str, object] | None,
    error: str,
    context_tokens: int | None,
    now_ns: int,
) -> bool:
    # fmt: off
    found = tx.execute(_FINISH, (
        status.value, bool(text), now_ns, usage.prompt, usage.completion,
        usage.cache_read, usage.cache_write, whole(error), run.id,
    )).fetchall()
    # fmt: on
    if not found:
        return False
    if text:
        answer = encode({"role": "assistant", "content": whole(text)})
        transcripts.append(
            tx, run.session, role="assistant", message=answer, now_ns=now_ns, run=run.id,
            meta=_answer_meta(meta),
        )  # fmt: skip
    ((source,),) = found
    tx.execute(
        _COUNT,
        {
            "is_use": source != HEARTBEAT,
            "now": now_ns,
            "input": usage.prompt,
            "output": usage.completion,
            "cache_read": usage.cache_read,
            "cache_write": usage.cache_write,
            # One call, unless we are told otherwise; none leaves what is known.
            "context": context_tokens or (usage.prompt + usage.completion) or None,
            "aborted": status is RunStatus.CANCELLED,
            "session": run.session,
        },
    )
    return True


def latest(tx: Connection, session: SessionKey | str, *, limit: int) -> list[RunRecord]:
    row = transcripts.row_of(tx, session)
    if row is None:
        return []
    found = tx.execute(RUNS, (row.number, min(max(limit, 0), MOST_RUNS))).fetchall()
    return [_record(values) for values in reversed(found)]


def find(tx: Connection, run_id: str) -> RunRecord | None:
    for values in tx.execute(_COLUMNS + "WHERE id = ?", (run_id,)).fetchall():
        return _record(values)
    return None


class _Row(msgspec.Struct, array_like=True):
    id: str
    request_id: str
    model: str
    status: RunStatus
    source: str
    error: str
    started_ns: int
    ended_ns: int | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


def _record(values: object) -> RunRecord:
    row = msgspec.convert(values, _Row)
    return RunRecord(
        id=row.id,
        request_id=row.request_id,
        model=row.model,
        status=row.status,
        source=row.source,
        error=row.error,
        started_at=from_ns(row.started_ns),
        ended_at=None if row.ended_ns is None else from_ns(row.ended_ns),
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cache_read_tokens=row.cache_read_tokens,
        cache_write_tokens=row.cache_write_tokens,
    )


def _answer_meta(meta: Mapping[str, object] | None) -> str | None:
    """As JSON; unlike a client's, what is not Unicode in it costs only itself."""
    return None if meta is None else whole(json.dumps(meta, ensure_ascii=False))


def _title(messages: Sequence[Mapping[str, object]]) -> str:
    """The beginning of the first thing that was said in words."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, str) and (words := content[: 4 * LONGEST_TITLE].split()):
            return " ".join(words)[:LONGEST_TITLE]
    return ""
