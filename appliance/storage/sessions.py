"""What was said: a tenant's sessions, their messages, and the runs that answered.

A message is kept as the JSON it arrived as, so a transcript gives back every
text and every field. A run is one turn: what the user said and, if it came to
one, the answer. A process that dies leaves runs ``running``; whoever opens the
store next marks them ``crashed``, and puts what still waited to be answered
where it was said.

A key leads to one live session. A reset archives that one, whole and with its
id, and begins another under the key.
"""

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import UNSET, UnsetType

from appliance.model.errors import InvalidRequest
from appliance.model.periods import to_ns
from appliance.model.session_keys import SessionKey
from appliance.storage import (
    session_changes,
    session_context,
    session_queries,
    session_words,
    transcripts,
)
from appliance.storage.connection import DatabaseRoot
from appliance.storage.database import Database
from appliance.storage.inbox import Inbox
from appliance.storage.requests import RequestLog
from appliance.storage.session_rows import (
    Context,
    ContextLine,
    Message,
    MessageKind,
    PreviewItem,
    Run,
    RunRecord,
    RunStatus,
    SearchHit,
    Session,
    SessionFilter,
    SessionListing,
    SessionPage,
    SessionPreview,
    StoredMessage,
    TranscriptLine,
    encode,
    require_unicode,
)
from appliance.storage.session_turns import SessionTurns
from appliance.storage.session_words import message_text
from appliance.storage.sessions_schema import SCHEMA
from appliance.storage.transcripts import MOST_MESSAGES

__all__ = [
    "FILE",
    "Context",
    "ContextLine",
    "Message",
    "MessageKind",
    "PreviewItem",
    "Run",
    "RunRecord",
    "RunStatus",
    "SearchHit",
    "Session",
    "SessionFilter",
    "SessionListing",
    "SessionPage",
    "SessionPreview",
    "SessionStore",
    "StoredMessage",
    "TranscriptLine",
    "message_text",
]

FILE = "sessions/sessions.sqlite"
LONGEST_QUERY = 4_096  # characters

_ALL_LIVE = SessionFilter()


class SessionStore(SessionTurns):
    """The sessions of one tenant. Methods that are not async run in the loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.requests = RequestLog(database)
        self.inbox = Inbox(database)
        self.durable = database.durable
        self.tend = database.tend
        self.close = database.close

    @classmethod
    async def open(cls, root: DatabaseRoot, *, now: datetime) -> "SessionStore":
        """Open or create the store; what the last process left running has crashed."""
        store = cls(await Database.open(root, FILE, SCHEMA))
        try:
            store.mark_crashed(now=now)
            store.inbox.recover(now=now)
            store.requests.mark_interrupted()
            store.requests.prune_old(now)
        except BaseException:
            await store.close()
            raise
        return store

    # What the model sees

    def history(
        self,
        key: SessionKey,
        *,
        limit_tokens: int,
        but_run: str | None = None,
        said: Sequence[Message] = (),
    ) -> builtins.list[Message]:
        """The latest turns that fit into ``limit_tokens``, oldest first, and what is ``said`` now.

        Turns are taken whole, so an answer never stands without its question.
        What was not answered is not part of the conversation, unless its turn
        never came (``runs.leave``). What a summary
        stands for is replaced by it, as a message of the user. The turn
        ``but_run`` is left out: it is under way. Every tool call in it has its
        one result.
        """
        context = self.context(key, limit_tokens=limit_tokens, but_run=but_run)
        return session_context.conversation(context, said)

    def context(self, key: SessionKey, *, limit_tokens: int, but_run: str | None = None) -> Context:
        """What :meth:`history` is made of, with numbers and estimates: for compaction."""
        return self._database.read(
            lambda tx: session_context.context(tx, key, limit_tokens=limit_tokens, but_run=but_run)
        )

    def compact(
        self, key: SessionKey, *, summary: str, kept_from: int, tokens_before: int, now: datetime
    ) -> StoredMessage:
        """Let ``summary`` stand for what came before number ``kept_from``.

        Nothing is removed from the transcript, which gets a ``compaction`` line.
        Raises :exc:`NotFound` if there is no such session.
        """
        return self._database.write(
            lambda tx: session_context.compact(
                tx, key, summary=summary, kept_from=kept_from, tokens_before=tokens_before,
                now_ns=to_ns(now),
            )
        )  # fmt: skip

    # Sessions

    def find(self, key: SessionKey) -> Session | None:
        """The live session of this key."""
        return self._find("WHERE key = ?", key.short)

    def find_by_id(self, public_id: str) -> Session | None:
        """A session by its id, live or archived."""
        return self._find("WHERE public_id = ?", public_id)

    def find_by_label(self, label: str) -> Session | None:
        """The live session of this label."""
        return self._find("WHERE label = ? AND archived_ns IS NULL", label)

    def page(self, *, limit: int = 50, cursor: str | None = None, query: str = "") -> SessionPage:
        """Sessions, the last used first; ``query`` is looked for in keys and titles.

        Raises :exc:`InvalidRequest` for a cursor that did not come from here.
        """
        return self._database.read(
            lambda tx: session_queries.page(tx, limit=limit, cursor=cursor, query=query)
        )

    def list(self, *, filters: SessionFilter = _ALL_LIVE) -> SessionListing:
        """Live sessions, the last used first; filters look at the 10,000 last used."""
        return self._database.read(lambda tx: session_queries.listing(tx, filters))

    def incarnations(self, key: SessionKey, *, limit: int = 50) -> builtins.list[Session]:
        """The live session of this key and those archived under it, newest first."""
        return self._database.read(lambda tx: session_queries.incarnations(tx, key, limit=limit))

    def open_session(
        self,
        key: SessionKey,
        *,
        now: datetime,
        model: str = "",
        facts: Mapping[str, object] | None = None,
    ) -> Session:
        """The session of this key, made if there is none; ``facts`` are merged into its own."""
        return self._database.write(
            lambda tx: session_changes.open_session(
                tx, key, model=model, facts=facts or {}, now_ns=to_ns(now)
            )
        ).session()

    def patch(
        self,
        key: SessionKey,
        *,
        label: str | UnsetType | None = UNSET,
        settings: Mapping[str, object | None] | None = None,
        now: datetime,
    ) -> Session:
        """Change label and settings; None removes either.

        Raises :exc:`NotFound`; :exc:`AlreadyExists` ("label already in use: X");
        :exc:`InvalidRequest` for text that is not Unicode or settings beyond 64 KiB.
        """
        return self._database.write(
            lambda tx: session_changes.patch(
                tx, key, label=label, settings=settings or {}, now_ns=to_ns(now)
            )
        ).session()

    def note_facts(
        self, key: SessionKey, facts: Mapping[str, object | None], *, now: datetime
    ) -> bool:
        """Merge ``facts`` into the session's, None removing one; False if there is none.

        It does not count as use: ``updated_at`` stays.
        """
        del now  # nothing is dated by it yet
        return self._database.write(lambda tx: session_changes.note_facts(tx, key, facts))

    def reset(self, key: SessionKey, *, reason: str, now: datetime) -> Session:
        """Begin the session anew: another id, no messages, counters at zero.

        Label, settings, facts and model stay. What was there is archived and
        found by its old id; a run under way ends there. Where there is no
        session, one is made.
        """
        return self._database.write(
            lambda tx: session_changes.reset(tx, key, reason=reason, now_ns=to_ns(now))
        ).session()

    def archive(
        self, key: SessionKey, *, now: datetime, reason: str = "archived"
    ) -> Session | None:
        """Let the key lead nowhere; the session is found by its id. None if there is none."""
        row = self._database.write(
            lambda tx: session_changes.archive(tx, key, reason=reason, now_ns=to_ns(now))
        )
        return None if row is None else row.session()

    def delete(self, key: SessionKey, *, keep_transcript: bool = False) -> bool:
        """Delete the session with everything in it; False if there is none.

        ``keep_transcript`` archives it instead.
        """
        return self._database.write(
            lambda tx: session_changes.delete(tx, key, keep_transcript=keep_transcript)
        )

    def delete_by_id(self, public_id: str) -> bool:
        """Delete one incarnation, live or archived, with everything in it."""
        return self._database.write(lambda tx: session_changes.delete_by_id(tx, public_id))

    # Transcripts

    def append(
        self,
        key: SessionKey,
        *,
        role: str,
        message: Mapping[str, object],
        kind: MessageKind | str = MessageKind.MESSAGE,
        meta: Mapping[str, object] | None = None,
        now: datetime,
        run: Run | str | None = None,
    ) -> StoredMessage:
        """Add a line to the transcript of the live session, which is made if need be.

        With a ``run``, or its id, the line goes to that run's incarnation;
        :exc:`NotFound` if that was deleted. Raises :exc:`InvalidRequest` for
        text that is not Unicode.
        """
        encoded = encode(message, field="message")
        return self._database.write(
            lambda tx: transcripts.append_line(
                tx, key, run, role=role, message=encoded, kind=MessageKind(kind), meta=meta,
                now_ns=to_ns(now),
            )
        )  # fmt: skip

    def transcript(
        self, key: SessionKey, *, after: int = 0, limit: int = MOST_MESSAGES
    ) -> builtins.list[TranscriptLine]:
        """The messages that follow number ``after``, oldest first, with all turns in it."""
        return self._database.read(lambda tx: transcripts.lines(tx, key, after=after, limit=limit))

    def messages(
        self,
        session: SessionKey | str,
        *,
        limit: int,
        before_seq: int | None = None,
        after_seq: int | None = None,
        omit_over: int | None = None,
    ) -> builtins.list[StoredMessage]:
        """The newest ``limit`` lines, oldest first; with ``after_seq`` alone those that follow it.

        ``session`` is a key, or an id, which also reaches archived ones. There
        are 1,000 lines and 16 MiB at most. A message of more than ``omit_over``
        bytes comes without its content.
        """
        return self._database.read(
            lambda tx: transcripts.messages(
                tx, session, limit=limit, before_seq=before_seq, after_seq=after_seq,
                omit_over=omit_over,
            )
        )  # fmt: skip

    def message(self, public_id: str) -> StoredMessage | None:
        """One line by its id, also of an archived session."""
        return self._database.read(lambda tx: transcripts.message_by_id(tx, public_id))

    def last_message(self, key: SessionKey) -> StoredMessage | None:
        """The newest line of the kind ``message``."""
        return self._database.read(lambda tx: transcripts.last_message(tx, key))

    def first_user_text(self, key: SessionKey) -> str:
        """What was said first, in words; "" if nothing was."""
        return self._database.read(lambda tx: session_words.first_user_text(tx, key))

    def previews(
        self, keys: Sequence[SessionKey], *, limit: int = 12, max_chars: int = 240
    ) -> builtins.list[SessionPreview]:
        """The last ``limit`` things said in each session, oldest first, cut at ``max_chars``."""
        return self._database.read(
            lambda tx: [
                session_words.preview(tx, key, limit=limit, max_chars=max_chars) for key in keys
            ]
        )

    async def search(
        self,
        query: str,
        *,
        agent: str | None = None,
        keys: Sequence[SessionKey] = (),
        limit: int = 10,
    ) -> builtins.list[SearchHit]:
        """Messages of live sessions in which ``query`` stands, the newest first.

        Looks through the tenant's 200,000 newest, in a thread. Raises
        :exc:`InvalidRequest` for an empty or overlong query.
        """
        require_unicode(query, field="query")
        if not query.strip() or len(query) > LONGEST_QUERY:
            raise InvalidRequest.at("query", f"is 1 to {LONGEST_QUERY} characters")
        return await self._database.scan(
            lambda tx: session_words.search(tx, query, agent=agent, keys=keys, limit=limit)
        )

    def truncate(self, key: SessionKey, *, keep_last: int, now: datetime) -> int:
        """Hide all but the newest ``keep_last`` lines; return how many are left.

        The others keep their numbers and are given by :meth:`message` only.
        """
        return self._database.write(
            lambda tx: transcripts.truncate(tx, key, keep_last=keep_last, now_ns=to_ns(now))
        )

    def _find(self, condition: str, value: str) -> Session | None:
        return self._database.read(lambda tx: session_queries.find(tx, condition, value))
