"""Sessions as files: OpenClaw's transcripts out of the store, and into it.

What a model is to see again is stored the way it is sent to models; what it
cannot take (tool results, thoughts, notes) is kept beside it, so that a
transcript that was imported is exported with everything that was in it.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import trio

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.protocols.transcripts import (
    COMPACTION,
    MESSAGE,
    Entry,
    Header,
    Transcript,
    decode_transcript,
    encode,
    text_of,
)
from appliance.storage.session_rows import MessageKind, Session, StoredMessage
from appliance.storage.sessions import SessionStore

MOST_BYTES = 10 * 1024 * 1024
MOST_LINES = 20_000  # of a session that is imported
_PAGE = 1_000
_BYTES_A_TOKEN = 4  # as the store estimates them
_AT_ONCE = 100  # rows written before others may use the loop: some milliseconds

_NOTE = "custom_message"
_MARK = "note"  # ours, beside a message that no model is to see
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_SHOWN = frozenset({"user", "assistant"})
# What a message says beside its words, kept as what is known of it.
_ABOUT = ("api", "provider", "model", "usage", "stopReason", "errorMessage", "idempotencyKey")


@dataclass(frozen=True, slots=True)
class Exported:
    session: Session
    content: str
    lines: int  # without the header


@dataclass(frozen=True, slots=True)
class Line:
    """One line to be written; a compaction has a summary and what is kept after it."""

    id: str
    role: str
    kind: MessageKind
    message: Mapping[str, object]
    meta: Mapping[str, object] = field(default_factory=dict)
    at: datetime | None = None
    first_kept: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A transcript that was checked from end to end."""

    lines: tuple[Line, ...]
    left_out: int
    truncated: bool


class SessionTranscripts:
    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    async def export(self, store: SessionStore, session: Session) -> Exported:
        """The transcript of a session; raises :exc:`TooLarge` beyond 10 MiB."""
        estimate = 0
        header = Header(session.id, _iso(session.created_at))
        kept: dict[int, str] = {}
        parent: str | None = None
        entries: list[Entry] = []
        async with aclosing(_messages(store, session)) as messages:
            async for message in messages:
                kept[message.seq] = message.id
                entries.append(_exported(message, parent, kept))
                parent = message.id
                estimate += message.tokens * _BYTES_A_TOKEN
                _require_short(estimate)
        data = b"".join(encode(header, entries))
        _require_short(len(data))
        return Exported(session, data.decode(), len(entries))

    async def read(self, content: str) -> Planned:
        """Check a whole transcript.

        Raises :exc:`InvalidRequest` naming the line, :exc:`TooLarge`.
        """
        try:
            data = content.encode()
        except UnicodeEncodeError:
            raise InvalidRequest.at(
                "content", "holds half of a surrogate pair", "send whole characters"
            ) from None
        if len(data) > MOST_BYTES:
            raise TooLarge(f"content is limited to {MOST_BYTES} bytes; split the transcript")
        # Ten megabytes take longer to read than the loop may be kept from others.
        return await trio.to_thread.run_sync(_plan, data)

    async def write(
        self, store: SessionStore, key: SessionKey, planned: Planned, *, anew: bool
    ) -> None:
        """Put a transcript into a session; ``anew`` archives what it holds.

        If it is cancelled in between, what was written is taken back.
        """
        if anew:
            store.reset(key, reason="import", now=self._clock())
        else:
            store.open_session(key, now=self._clock())
        try:
            await self._append(store, key, planned.lines)
        except BaseException:
            store.delete(key)
            raise

    async def copy(self, store: SessionStore, source: Session, key: SessionKey) -> None:
        """Append to a session what ``source`` holds now."""
        async with aclosing(_messages(store, source)) as messages:
            lines = [_line_of(message) async for message in messages]
        await self._append(store, key, lines)

    async def _append(self, store: SessionStore, key: SessionKey, lines: Sequence[Line]) -> None:
        numbers: dict[str, int] = {}
        for count, line in enumerate(lines, start=1):
            at = line.at or self._clock()
            if line.kind is MessageKind.COMPACTION:
                last = max(numbers.values(), default=0)
                stored = store.compact(
                    key,
                    summary=text_of(line.message),
                    kept_from=numbers.get(line.first_kept or "", last + 1),
                    tokens_before=_count(line.meta.get("tokensBefore")),
                    now=at,
                )
            else:
                stored = store.append(
                    key,
                    role=line.role,
                    message=line.message,
                    kind=line.kind,
                    meta=line.meta,
                    now=at,
                )
            numbers[line.id] = stored.seq
            if count % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()


# Out of the store


def _require_short(size: int) -> None:
    if size > MOST_BYTES:
        raise TooLarge(f"the transcript is longer than {MOST_BYTES} bytes; read it page by page")


async def _messages(store: SessionStore, session: Session) -> AsyncGenerator[StoredMessage, None]:
    after = session.first_seq - 1
    while page := store.messages(session.id, limit=_PAGE, after_seq=after):
        for message in page:
            yield message
        after = page[-1].seq
        await trio.lowlevel.checkpoint()


def _exported(message: StoredMessage, parent: str | None, kept: Mapping[int, str]) -> Entry:
    timestamp = _iso(message.created_at)
    if message.kind is MessageKind.COMPACTION:
        first = _count(message.meta.get("keptFrom"))
        content: dict[str, object] = {
            "summary": text_of(message.message),
            # What is kept may only have been said after it.
            "firstKeptEntryId": kept.get(first, message.id),
            "tokensBefore": _count(message.meta.get("tokensBefore")),
        }
        return Entry(COMPACTION, message.id, parent, timestamp, content)
    content = {"message": _spoken(message)}
    if message.kind is MessageKind.NOTE and message.role in _SHOWN:
        content[_MARK] = True
    return Entry(MESSAGE, message.id, parent, timestamp, content)


def _spoken(message: StoredMessage) -> dict[str, object]:
    about = {name: message.meta[name] for name in _ABOUT if name in message.meta}
    content = message.meta.get("parts") or _parts(message.message.get("content"))
    others = {k: v for k, v in message.message.items() if k not in {"role", "content"}}
    spoken = {"role": message.role, "content": content, **others, **about}
    return {**spoken, "timestamp": to_ms(message.created_at)}


def _parts(content: object) -> object:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [] if content is None else content


def _line_of(message: StoredMessage) -> Line:
    kept = message.meta.get("keptFrom")
    return Line(
        id=str(message.seq),
        role=message.role,
        kind=message.kind,
        message=message.message,
        meta=message.meta,
        at=message.created_at,
        first_kept=None if kept is None else str(kept),
    )


# Into it


def _plan(data: bytes) -> Planned:
    transcript = decode_transcript(data.split(b"\n"))
    branch = transcript.branch()
    lines = tuple(line for line in map(_line, branch) if line is not None)
    if len(lines) > MOST_LINES:
        raise TooLarge(f"a transcript is limited to {MOST_LINES} messages; split it")
    _check_text(lines)
    return Planned(lines, _messages_in(transcript) - len(lines), transcript.truncated)


def _messages_in(transcript: Transcript) -> int:
    return sum(entry.type in {MESSAGE, COMPACTION, _NOTE} for entry in transcript.entries)


def _line(entry: Entry) -> Line | None:
    at = _moment(entry)
    if entry.type == COMPACTION:
        summary = entry.content.get("summary")
        return Line(
            id=entry.id,
            role="system",
            kind=MessageKind.COMPACTION,
            message={"role": "system", "content": summary if isinstance(summary, str) else ""},
            meta={"tokensBefore": entry.content.get("tokensBefore")},
            at=at,
            first_kept=_text_or_none(entry.content.get("firstKeptEntryId")),
        )
    if entry.type == _NOTE:
        content = entry.content.get("content")
        return _note(entry, {"role": "system", "content": _parts(content)}, at)
    message = entry.message
    if message is None:
        return None
    role = str(message["role"])
    if role not in _SHOWN or entry.content.get(_MARK) is True:
        return _note(entry, message, at)
    text = text_of(message)
    about = {name: message[name] for name in _ABOUT if name in message}
    if not _is_only_text(message.get("content")):
        about["parts"] = message["content"]
    # A model takes no empty message: an answer that only called tools is for people.
    kind = MessageKind.MESSAGE if text else MessageKind.NOTE
    return Line(entry.id, role, kind, {"role": role, "content": text}, about, at)


def _note(entry: Entry, message: Mapping[str, object], at: datetime | None) -> Line:
    kept = {name: value for name, value in message.items() if name != "timestamp"}
    return Line(entry.id, str(message["role"]), MessageKind.NOTE, kept, {}, at)


def _is_only_text(content: object) -> bool:
    if not isinstance(content, list):
        return True
    return len(content) == 1 and content[0].get("type") == "text" and len(content[0]) == 2


def _check_text(lines: Sequence[Line]) -> None:
    for line in lines:
        try:
            msgspec.json.encode((line.role, line.message, line.meta))
        except (UnicodeEncodeError, msgspec.MsgspecError, TypeError) as exc:
            raise InvalidRequest.at(
                f"entry {line.id[:80]}", "holds what cannot be stored", "export it again"
            ) from exc


def _moment(entry: Entry) -> datetime | None:
    """When the entry was written; what says nothing usable is taken as of now."""
    message = entry.message
    stamp = None if message is None else message.get("timestamp")
    try:
        if isinstance(stamp, int | float) and not isinstance(stamp, bool):
            moment = datetime.fromtimestamp(stamp / 1000, UTC)
        else:
            moment = datetime.fromisoformat(entry.timestamp)
    except (ValueError, OverflowError, OSError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment if _EARLIEST <= moment <= _LATEST else None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
