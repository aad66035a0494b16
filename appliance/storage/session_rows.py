"""Sessions, messages and runs as values, and how rows become them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.periods import from_ns
from appliance.storage.connection import Connection

Message = dict[str, object]

_BYTES_A_TOKEN = 4  # of a message in the model's context, its frame included


class RunStatus(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


class MessageKind(StrEnum):
    """What a line of a transcript is; only a ``message`` is ever shown to the model."""

    MESSAGE = "message"
    NOTE = "note"  # for people: a command's answer, the mark of an abort
    COMPACTION = "compaction"  # where older messages were replaced by a summary


@dataclass(frozen=True, slots=True)
class Run:
    """A turn under way.

    ``session`` is the row that the answer goes to, also after a reset;
    ``session_id`` is its public id, ``seq`` the number of the turn's first message.
    """

    id: str
    session: int
    session_id: str = ""
    seq: int = 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it is kept. Prompt tokens include those read from and written to a cache."""

    id: str
    request_id: str
    model: str
    status: RunStatus
    source: str
    error: str
    started_at: datetime
    ended_at: datetime | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


# A Struct, because a listing makes many and a frozen dataclass of 25 fields takes
# 2.5 µs, of which a Struct takes 0.2.
class Session(msgspec.Struct, frozen=True):
    """One incarnation of a session.

    ``key`` is without the tenant prefix; it is the live key also of an archived
    incarnation. Tokens are sums over all runs, those of the cache being part of
    ``input_tokens``; ``context_tokens`` is what the last call used. ``messages``
    counts what the transcript shows; ``last_seq`` is the last one's number,
    ``first_seq`` the first one's, and from ``kept_from`` on the model still sees
    them. ``settings`` are the overrides a client patched, ``facts`` what is known
    of where it came from; both are kept as they were given.
    """

    id: str
    key: str
    agent: str
    title: str
    model: str
    created_at: datetime
    updated_at: datetime
    messages: int
    input_tokens: int
    output_tokens: int
    label: str | None = None
    settings: Mapping[str, object] = {}
    facts: Mapping[str, object] = {}
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    context_tokens: int = 0
    compactions: int = 0
    aborted: bool = False  # the last run was
    kept_from: int = 1
    summary: str | None = None
    last_interaction_at: datetime | None = None  # when a person last said something
    last_seq: int = 0
    first_seq: int = 1
    archived_at: datetime | None = None  # None: live
    archive_reason: str = ""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """``cursor`` continues the listing; None at its end."""

    sessions: tuple[Session, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which live sessions to list; all conditions hold together.

    ``archived`` looks at the setting of that name: False leaves those out that
    a client put away, True shows only those, None both. Incarnations that a
    reset replaced are never listed; see ``SessionStore.incarnations``.
    """

    limit: int = 50
    offset: int = 0
    active_since: datetime | None = None
    agent: str | None = None
    label: str | None = None
    search: str = ""  # looked for in keys, titles and labels
    spawned_by: str | None = None
    archived: bool | None = False


@dataclass(frozen=True, slots=True)
class SessionListing:
    """``total`` counts what matches without limit and offset.

    What had to be looked for or counted one by one is counted up to 10,000.
    """

    sessions: tuple[Session, ...]
    total: int


@dataclass(frozen=True, slots=True)
class TranscriptLine:
    """``status`` is how the message's run ended, None for a message without one."""

    seq: int
    message: Message
    created_at: datetime
    run: str | None
    status: RunStatus | None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A line of a transcript; ``message`` is the JSON object as it was sent.

    ``meta`` is what else is known of it: provider, model, usage, stopReason and
    so on. ``status`` is how its run ended, None for a message without one.
    """

    seq: int
    id: str
    role: str
    kind: MessageKind
    message: Message
    meta: Mapping[str, object]
    created_at: datetime
    run: str | None
    status: RunStatus | None
    tokens: int = 0  # estimate
    bytes: int = 0  # of the JSON
    omitted: bool = False  # it was larger than asked for; ``message`` is empty


@dataclass(frozen=True, slots=True)
class ContextLine:
    """A message that the model sees, with the estimate of its tokens."""

    seq: int
    run: str | None
    tokens: int
    message: Message


@dataclass(frozen=True, slots=True)
class Context:
    """What the model sees of a session: a summary of what was before, and the rest."""

    summary: str | None
    lines: tuple[ContextLine, ...]
    tokens: int  # estimate, of all of it


@dataclass(frozen=True, slots=True)
class PreviewItem:
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class SessionPreview:
    """The last things said; ``found`` is False where there is no such session."""

    key: str
    found: bool
    items: tuple[PreviewItem, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A message in which something was found; ``text`` is what stands around it."""

    key: str
    session_id: str
    message_id: str
    seq: int
    role: str
    text: str
    created_at: datetime


SESSION_COLUMNS = """
SELECT id, public_id, coalesce(live_key, key), agent, title, model, created_ns, updated_ns,
       messages, input_tokens, output_tokens, label, settings, facts, cache_read_tokens,
       cache_write_tokens, context_tokens, compactions, aborted, kept_from, summary,
       interaction_ns, first_seq, archived_ns, archive_reason
FROM sessions
"""


class SessionRow(msgspec.Struct, array_like=True):
    number: int
    public_id: str
    key: str
    agent: str
    title: str
    model: str
    created_ns: int
    updated_ns: int
    last_seq: int
    input_tokens: int
    output_tokens: int
    label: str | None
    settings: str
    facts: str
    cache_read_tokens: int
    cache_write_tokens: int
    context_tokens: int
    compactions: int
    aborted: int
    kept_from: int
    summary: str | None
    interaction_ns: int | None
    first_seq: int
    archived_ns: int | None
    archive_reason: str

    def session(self) -> Session:
        return Session(
            id=self.public_id,
            key=self.key,
            agent=self.agent,
            title=self.title,
            model=self.model,
            created_at=from_ns(self.created_ns),
            updated_at=from_ns(self.updated_ns),
            messages=self.last_seq - self.first_seq + 1,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            label=self.label,
            settings=decode_object(self.settings),
            facts=decode_object(self.facts),
            cache_read_tokens=self.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens,
            context_tokens=self.context_tokens,
            compactions=self.compactions,
            aborted=bool(self.aborted),
            kept_from=self.kept_from,
            summary=self.summary,
            last_interaction_at=_moment(self.interaction_ns),
            last_seq=self.last_seq,
            first_seq=self.first_seq,
            archived_at=_moment(self.archived_ns),
            archive_reason=self.archive_reason,
        )


def session_row(tx: Connection, condition: str, value: object) -> SessionRow | None:
    """The one session of which ``condition``, an SQL text of ours with one "?", holds."""
    for values in tx.execute(SESSION_COLUMNS + condition, (value,)).fetchall():
        return msgspec.convert(values, SessionRow)
    return None


def live_row(tx: Connection, short_key: str) -> SessionRow | None:
    return session_row(tx, "WHERE key = ?", short_key)


_decode_object = msgspec.json.Decoder(dict[str, object]).decode


def decode_object(text: str) -> dict[str, object]:
    return {} if text == "{}" else _decode_object(text)


def encode(value: Mapping[str, object], *, field: str = "messages") -> str:
    """JSON for a row; :exc:`InvalidRequest` for text that is not Unicode."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        raise _half_a_character(field) from None


def require_unicode(text: str, *, field: str) -> str:
    """``text`` if SQLite can hold it, else raise :exc:`InvalidRequest`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _half_a_character(field) from None
    return text


def whole(text: str) -> str:
    """``text`` of a model, which may be cut anywhere and must not be lost for it."""
    return text.encode(errors="replace").decode()


def estimated_tokens(text: str) -> int:
    return -(-len(text.encode()) // _BYTES_A_TOKEN)


def _half_a_character(field: str) -> InvalidRequest:
    return InvalidRequest.at(
        field, "the text holds half of a surrogate pair", "send whole characters"
    )


def _moment(moment_ns: int | None) -> datetime | None:
    return None if moment_ns is None else from_ns(moment_ns)
