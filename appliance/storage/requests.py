"""Requests that were begun, so that one sent again is answered and not done again.

A key belongs to a space ("chat", "agent", "send"), and both to the tenant
whose database this is. Whether a replay is the same request, the fingerprint
says; what follows from that is the service's decision.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from appliance.model.periods import from_ns, to_ns
from appliance.storage import inbox
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.inbox import Unanswered
from appliance.storage.session_rows import require_unicode

MOST_REQUESTS = 10_000
_KEPT_FOR = timedelta(hours=24)
# Each request that begins makes room for itself, so none pays for the whole table.
_CLEARED_AT_ONCE = 8

_COLUMNS = "SELECT run, fingerprint, outcome, started_ns, interrupted FROM requests "
_FIND = _COLUMNS + "WHERE space = ? AND key = ?"
_FIND_RUN = _COLUMNS + "WHERE run = ? ORDER BY started_ns DESC LIMIT 1"
_BEGIN = "INSERT INTO requests (space, key, run, fingerprint, started_ns) VALUES (?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM requests WHERE space = ? AND key = ?"
_OVER = "(outcome IS NOT NULL OR interrupted)"
_CLEAR_OLD = f"""
DELETE FROM requests WHERE (space, key) IN (
    SELECT space, key FROM requests WHERE started_ns < ? AND {_OVER} ORDER BY started_ns LIMIT ?
)
"""  # noqa: S608 - all of it is ours
_CLEAR_OLDEST = """
DELETE FROM requests WHERE (space, key) IN (
    SELECT space, key FROM requests ORDER BY started_ns LIMIT ?
)
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request of this key that was begun before.

    ``outcome`` is what :meth:`RequestLog.finish` was given, None while it runs or
    if it never ended: ``interrupted`` says that its process died.
    """

    run_id: str
    fingerprint: bytes
    outcome: bytes | None
    started_at: datetime
    interrupted: bool


class RequestLog:
    """The requests of one tenant's last 24 hours, 10,000 at most. Methods run in the loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._number: int | None = None  # of rows, once they have been counted

    def begin(
        self, space: str, key: str, *, fingerprint: bytes, run_id: str, now: datetime
    ) -> Seen | None:
        """Note that a request begins and return None, or what is known of its first sending.

        Raises :exc:`InvalidRequest` for a key that is not Unicode.
        """
        require_unicode(key, field="idempotencyKey")
        require_unicode(run_id, field="runId")
        seen = self.find(space, key)
        if seen is not None and not _is_old(seen, now):
            return seen

        def insert(tx: Connection) -> int:
            number = self._number
            if number is None:
                ((counted,),) = tx.execute("SELECT count(*) FROM requests").fetchall()
                number = msgspec.convert(counted, int)
            tx.execute(_FORGET, (space, key))  # one that is too old to be a replay's
            number -= tx.changes()
            tx.execute(_CLEAR_OLD, (to_ns(now - _KEPT_FOR), _CLEARED_AT_ONCE))
            number -= tx.changes()
            if number >= MOST_REQUESTS:
                tx.execute(_CLEAR_OLDEST, (number - MOST_REQUESTS + 1,))
                number -= tx.changes()
            tx.execute(_BEGIN, (space, key, run_id, fingerprint, to_ns(now)))
            return number + 1

        self._number = self._database.write(insert)
        return None

    def finish(
        self,
        space: str,
        key: str,
        outcome: bytes,
        *,
        now: datetime,
        unanswered: Unanswered | None = None,
    ) -> bool:
        """Keep the answer for whoever asks again; False if the request is not known.

        A message of it that still waits in the inbox leaves that: into the
        transcript if it is ``unanswered``, else for good.
        """

        def update(tx: Connection) -> bool:
            if unanswered is None:
                inbox.drop(tx, space, key)
            else:
                inbox.leave(tx, space, key, unanswered, now_ns=to_ns(now))
            tx.execute(
                "UPDATE requests SET outcome = ?, interrupted = 0 WHERE space = ? AND key = ?",
                (outcome, space, key),
            )
            return tx.changes() == 1

        return self._database.write(update)

    def forget(self, space: str, key: str) -> None:
        """Let the key be used anew: the request was refused before it did anything."""

        def clear(tx: Connection) -> None:
            tx.execute(_FORGET, (space, key))
            inbox.drop(tx, space, key)

        self._number = None
        self._database.write(clear)

    def find(self, space: str, key: str) -> Seen | None:
        """What is known of a request, however old it is."""
        return self._find(_FIND, space, key)

    def find_run(self, run_id: str) -> Seen | None:
        """The newest request that led to this run."""
        return self._find(_FIND_RUN, run_id)

    def prune(self, before: datetime) -> int:
        """Forget requests that began earlier and are over; return how many there were."""

        def clear(tx: Connection) -> int:
            tx.execute(_CLEAR_OLD, (to_ns(before), MOST_REQUESTS))
            return tx.changes()

        self._number = None
        return self._database.write(clear)

    def prune_old(self, now: datetime) -> int:
        """Forget what no replay is expected of any more."""
        return self.prune(now - _KEPT_FOR)

    def mark_interrupted(self) -> int:
        """Mark what was begun by a process that is no more; return how many there were."""

        def mark(tx: Connection) -> int:
            tx.execute(
                "UPDATE requests SET interrupted = 1 WHERE outcome IS NULL AND NOT interrupted"
            )
            return tx.changes()

        return self._database.write(mark)

    def _find(self, query: str, *values: str) -> Seen | None:
        rows = self._database.read(lambda tx: tx.execute(query, values).fetchall())
        return _seen(rows[0]) if rows else None


class _Row(msgspec.Struct, array_like=True):
    run: str
    fingerprint: bytes
    outcome: bytes | None
    started_ns: int
    interrupted: int


def _seen(values: object) -> Seen:
    row = msgspec.convert(values, _Row)
    return Seen(
        row.run, row.fingerprint, row.outcome, from_ns(row.started_ns), bool(row.interrupted)
    )


def _is_old(seen: Seen, now: datetime) -> bool:
    """Whether its key may stand for another request; never while it is under way."""
    is_over = seen.outcome is not None or seen.interrupted
    return is_over and now - seen.started_at > _KEPT_FOR
