"""The part of a session store that is about turns: begun, gone through in rounds, ended."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from appliance.model.periods import to_ns
from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.storage import inbox, paused_calls, runs, session_context
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.paused_calls import Line, PausedTurn, Resumption
from appliance.storage.session_rows import (
    Run,
    RunRecord,
    RunStatus,
    encode,
    require_unicode,
)


class SessionTurns:
    _database: Database

    def mark_crashed(self, *, now: datetime) -> int:
        """End every run that is still running; return how many there were."""

        def end(tx: Connection) -> int:
            tx.execute(runs.CRASH, (to_ns(now),))
            return tx.changes()

        return self._database.write(end)

    def begin_run(
        self,
        key: SessionKey,
        messages: Sequence[Mapping[str, object]],
        *,
        request_id: str,
        model: str,
        now: datetime,
        run_id: str | None = None,
        meta: Mapping[str, object] | None = None,
        source: str = "http",
        answers: Sequence[str] = (),
        resumption: Resumption | None = None,
    ) -> Run:
        """Store what was said, in a new session if there is none with this key.

        ``meta`` goes with what the user said. A ``run_id`` that an earlier run
        has gives way to a fresh one. With the source "heartbeat" the session
        does not count as used; with that or "cron" no person has spoken. What
        waited in the inbox for the runs ``answers`` is what is said here. What a
        ``resumption`` need not do again is part of the run at once.

        Raises :exc:`InvalidRequest` for text that is not Unicode.
        """
        beginning = runs.Beginning.of(messages, meta)
        if run_id is not None:
            require_unicode(run_id, field="run_id")
        lines = [] if resumption is None else _lines(resumption.rounds)

        def begin(tx: Connection) -> Run:
            inbox.take(tx, answers)
            run = runs.begin(
                tx, key, beginning, run_id=run_id, request_id=request_id, model=model,
                source=source, now_ns=to_ns(now),
            )  # fmt: skip
            if resumption is not None:
                paused_calls.resume(tx, resumption, run.id, now_ns=to_ns(now))
            if lines:
                runs.add_round(tx, run, lines, now_ns=to_ns(now))
            return run

        return self._database.write(begin)

    def add_round(
        self,
        run: Run,
        messages: Sequence[tuple[Mapping[str, object], Mapping[str, object] | None]],
        *,
        now: datetime,
        answers: Sequence[str] = (),
    ) -> list[str]:
        """Keep a round of a turn: what the model said and called, and what came of it.

        Each message comes with its ``meta``. From then on it is part of the
        conversation, however the run ends. What waited in the inbox for the
        runs ``answers`` is among it. Returns the lines' ids, none if the
        session was deleted meanwhile.
        """
        lines = _lines(messages)

        def add(tx: Connection) -> list[str]:
            inbox.take(tx, answers)
            return runs.add_round(tx, run, lines, now_ns=to_ns(now))

        return self._database.write(add)

    def pause(
        self, run: Run, calls: Sequence[str], *, owner: str, digest: bytes, now: datetime
    ) -> None:
        """Note that ``calls`` of this run are for its caller to answer."""
        self._database.write(
            lambda tx: paused_calls.add(
                tx, calls, run.id, owner=owner, digest=digest, now_ns=to_ns(now)
            )
        )

    def paused(self, calls: Sequence[str], *, owner: str) -> PausedTurn | None:
        """The turn that waits for ``owner`` to answer these calls, all of them."""
        return self._database.read(lambda tx: paused_calls.find(tx, calls, owner=owner))

    def resumed(self, paused: str, answers: bytes) -> str | None:
        """The latest run that went on from the run ``paused`` with these answers."""
        return self._database.read(lambda tx: paused_calls.resumed(tx, paused, answers))

    def own_rounds(self, run: str) -> list[Line]:
        """What a run itself said and did, its answer included; empty if nobody knows it."""
        return self._database.read(lambda tx: paused_calls.rounds(tx, run))

    def last_run(self, key: SessionKey, *, but_run: str | None = None) -> str | None:
        """Whose message is the latest that the model sees, ``but_run`` left out."""
        return self._database.read(lambda tx: session_context.last_run(tx, key, but_run=but_run))

    def finish_run(
        self,
        run: Run,
        *,
        text: str,
        usage: TokenUsage,
        status: RunStatus,
        now: datetime,
        meta: Mapping[str, object] | None = None,
        error: str = "",
        context_tokens: int | None = None,
    ) -> bool:
        """Store the answer, as far as it came, and how the run ended.

        ``usage`` is of all its calls; ``context_tokens`` are those of the last
        call, where there was more than one. ``meta`` goes with the answer.
        Returns False if the session was deleted meanwhile; nothing is kept then.
        """
        return self._database.write(
            lambda tx: runs.finish(
                tx, run, text=text, usage=usage, status=status, meta=meta, error=error,
                context_tokens=context_tokens, now_ns=to_ns(now),
            )
        )  # fmt: skip

    def runs(self, session: SessionKey | str, *, limit: int = 200) -> list[RunRecord]:
        """The newest ``limit`` runs (1,000 at most) of a session, a key or an id, oldest first."""
        return self._database.read(lambda tx: runs.latest(tx, session, limit=limit))

    def run(self, run_id: str) -> RunRecord | None:
        return self._database.read(lambda tx: runs.find(tx, run_id))


def _lines(
    messages: Sequence[tuple[Mapping[str, object], Mapping[str, object] | None]],
) -> list[tuple[str, str, str | None]]:
    return [
        (
            str(message.get("role", "")),
            encode(message),
            None if meta is None else encode(meta, field="meta"),
        )
        for message, meta in messages
    ]
