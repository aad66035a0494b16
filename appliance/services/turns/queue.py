"""Who may speak: the turns of one session follow each other, in the order they came."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from appliance.model.errors import RateLimited
from appliance.model.session_keys import SessionKey

# More than this waiting for one session means that somebody loops.
WAITING_TURNS = 16


class TurnQueue:
    """Who may speak in which session now: one tenant's turns."""

    def __init__(self) -> None:
        self._sessions: dict[str, deque[Place]] = {}

    def __len__(self) -> int:
        """How many sessions have a turn running or waiting."""
        return len(self._sessions)

    def join(self, key: SessionKey, *, limit: int | None) -> "Place":
        """Take the next place in this session's line; whoever takes one leaves it again.

        Raises :exc:`RateLimited` when ``limit`` other sessions are active, or
        when too many turns wait for this one.
        """
        line = self._sessions.get(key.text)
        if line is None:
            if limit is not None and len(self._sessions) >= limit:
                raise RateLimited(
                    f"concurrent_sessions is limited to {limit}; wait for a session to finish",
                    retry_after=1 if limit else None,  # waiting for none at all never helps
                )
            line = deque()
        if len(line) > WAITING_TURNS:  # one of them is not waiting
            raise RateLimited(
                f"{WAITING_TURNS} turns of this session are waiting already", retry_after=1
            )
        return Place(self._sessions, key.text, line)

    @asynccontextmanager
    async def turn(self, key: SessionKey, *, limit: int | None) -> AsyncIterator[None]:
        """Wait for this session's earlier turns. Raises like :meth:`join`."""
        place = self.join(key, limit=limit)
        try:
            await place.reached()
            yield
        finally:
            place.leave()


class Place:
    """One turn's place in the line of its session."""

    __slots__ = ("_key", "_line", "_sessions", "_turn")

    def __init__(self, sessions: "dict[str, deque[Place]]", key: str, line: "deque[Place]") -> None:
        self._sessions = sessions
        self._key = key
        self._line = line
        self._turn = trio.Event()
        line.append(self)
        sessions[key] = line
        if self.is_first:
            self._turn.set()

    @property
    def is_first(self) -> bool:
        return self._line[0] is self

    async def reached(self) -> None:
        """Wait until everybody before has left."""
        await self._turn.wait()

    def leave(self) -> None:
        """Make room for the next; leaving twice is leaving once."""
        if self not in self._line:
            return
        self._line.remove(self)
        if self._line:
            self._line[0]._turn.set()  # noqa: SLF001 - of the same class
        else:
            del self._sessions[self._key]

    def next_place(self) -> "Place":
        """A place at the end of this line, which no limit refuses: the session is active."""
        return Place(self._sessions, self._key, self._line)
