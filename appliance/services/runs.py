"""The runs of one tenant's agents: what is under way, what waits, what ended lately.

A run is one answer to be given: it has an id that its client chose, survives
the client's connection, and ends exactly once. Each session has a line, in
which one run is active and others wait.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import msgspec
import trio

from appliance.model.chat_attachments import Part
from appliance.model.errors import InvalidRequest
from appliance.model.message_queue import Backlog, Placing, QueueMode, QueuePolicy, Waiting, place
from appliance.model.session_keys import SessionKey
from appliance.services.turns.queue import Place

KEPT_FOR = 600.0  # seconds after its end
MOST_KEPT = 1_000
_MOST_KEPT_TEXT = 4_000_000  # characters, of all that are kept

Status = Literal["ok", "error", "aborted", "timeout"]


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """How a run ended; also kept as JSON for whoever asks after a restart."""

    run_id: str
    status: Status
    session_key: str = ""
    session_id: str = ""
    started_at: int = 0  # milliseconds since 1970, as on the wire
    ended_at: int = 0
    text: str = ""
    stop_reason: str = ""
    error: str = ""
    error_kind: str = ""
    provider: str = ""
    model: str = ""
    usage: dict[str, int] | None = None
    merged_into: str = ""  # the run that answered this one's message along with its own

    def encoded(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decoded(cls, data: bytes) -> "RunOutcome":
        return msgspec.json.decode(data, type=cls)


class Subject(Protocol):
    """What a run is about, of which collected messages are made."""

    @property
    def text(self) -> str: ...
    @property
    def parts(self) -> Sequence[Part]: ...


@dataclass(eq=False, slots=True)
class ActiveRun:
    """A run that has not ended. ``ready`` lets it go ahead, ``ended`` is its end."""

    id: str
    key: SessionKey
    accepted_at: datetime
    subject: Subject
    started_at: datetime | None = None
    session_id: str = ""
    text: str = ""  # of the answer, as far as it has come
    outcome: RunOutcome | None = None
    stop_reason: str = ""
    carrier: "ActiveRun | None" = None  # answers this one's message along with its own
    place: Place | None = None
    ready: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def status(self) -> str:
        if self.outcome is not None:
            return self.outcome.status
        return "queued" if self.started_at is None else "running"

    @property
    def error(self) -> str:
        return "" if self.outcome is None else self.outcome.error

    @property
    def ended_at(self) -> int | None:
        return None if self.outcome is None else self.outcome.ended_at

    def cancel(self, reason: str = "rpc") -> bool:
        """Ask the run to end; False if it has ended or was asked before."""
        if self.outcome is not None or self.scope.cancel_called:
            return False
        self.stop_reason = reason
        self.scope.cancel()
        return True


class RunLine:
    """The runs of one session."""

    def __init__(self) -> None:
        self.active: ActiveRun | None = None
        self.backlog: Backlog[ActiveRun] = Backlog()
        self._last_arrival = 0.0
        self._mode = QueueMode.FOLLOWUP  # of the active run

    def runs(self) -> list[ActiveRun]:
        """The active one first, then those that wait, in their order."""
        first = [] if self.active is None else [self.active]
        return first + self.backlog.items()

    def offer(
        self,
        run: ActiveRun,
        *,
        mode: QueueMode,
        policy: QueuePolicy,
        join: Callable[[], Place],
    ) -> list[ActiveRun]:
        """Let ``run`` be the active one, or wait; return those that had to go for it.

        Raises what ``join`` raises, which takes a place among the session's turns.
        """
        self._last_arrival = trio.current_time()
        waiting = Waiting(run, mode, run.subject.text)
        match place(mode, busy=self.active is not None):
            case Placing.RUN:
                run.place = join()
                self.active = run
                self._mode = QueueMode.FOLLOWUP
                run.ready.set()
                return []
            case Placing.INTERRUPT:
                if self.active is not None and self.active.started_at is not None:
                    self.active.cancel("interrupt")
                self.backlog.add_first(waiting)
                return []
            case Placing.WAIT:
                return self.backlog.add(waiting, policy)

    async def gather(self, run: ActiveRun, *, debounce: float) -> tuple[list[ActiveRun], list[str]]:
        """The runs that the active one answers along with its own message, and what was lost.

        A collecting run waits until nothing has come for ``debounce`` seconds.
        """
        if self._mode is not QueueMode.COLLECT:
            return [], self.backlog.take_lost()
        while (quiet_at := self._last_arrival + debounce) > trio.current_time():  # noqa: ASYNC110 - the moment moves on
            await trio.sleep_until(quiet_at)
        followers = [waiting.item for waiting in self.backlog.collected()]
        self._carry(run, followers)
        return followers, self.backlog.take_lost()

    def steer(self, run: ActiveRun) -> list[ActiveRun]:
        """What came for the active run while it worked: its next round begins with their messages.

        This run answers them too, but for those that are to have a turn of their own besides.
        What nobody takes is answered by a turn of its own.
        """
        if run is not self.active:
            return []
        backlogged = set(map(id, self.backlog.items()))
        steered = self.backlog.steered()
        left = set(map(id, self.backlog.items()))
        self._carry(run, [r for r in steered if id(r) in backlogged and id(r) not in left])
        return steered

    def release(self, run: ActiveRun) -> None:
        """``run`` has ended: the next one goes ahead, keeping the session's place."""
        if run is not self.active:
            self.backlog.discard(run)
            return
        place, run.place = run.place, None
        waiting = self.backlog.pop()
        self.active = None
        if waiting is not None:
            following = waiting.item
            self.active, self._mode = following, waiting.mode
            if place is not None:
                following.place = place.next_place()
            following.ready.set()
        if place is not None:
            place.leave()

    @property
    def is_empty(self) -> bool:
        return self.active is None and not len(self.backlog)

    @staticmethod
    def _carry(carrier: ActiveRun, followers: Sequence[ActiveRun]) -> None:
        for follower in followers:
            follower.carrier = carrier
            follower.ready.set()


class RunBook:
    """The runs of one tenant while it is awake."""

    def __init__(self) -> None:
        self._active: dict[str, ActiveRun] = {}
        self._lines: dict[str, RunLine] = {}
        self._finished: OrderedDict[str, tuple[float, RunOutcome]] = OrderedDict()
        self._finished_text = 0
        self._expected: dict[str, list[trio.Event]] = {}

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._active)

    def __iter__(self) -> Iterator[ActiveRun]:
        return iter(list(self._active.values()))

    def line(self, key: SessionKey) -> RunLine:
        """The line of a session; it goes when its last run has ended."""
        return self._lines.setdefault(key.short, RunLine())

    def start(self, run: ActiveRun) -> None:
        """Take ``run`` into the book, until :meth:`end`.

        Raises :exc:`InvalidRequest` if a run of that id is under way.
        """
        if run.id in self._active:
            raise InvalidRequest.at(
                "idempotencyKey", "is the id of another run under way", "send a new one"
            )
        self._active[run.id] = run
        for event in self._expected.pop(run.id, ()):
            event.set()

    def end(self, run: ActiveRun, outcome: RunOutcome) -> None:
        """Note how ``run`` ended and let the session's next one go ahead. Never raises."""
        if run.outcome is not None:
            return
        run.outcome = outcome
        self._active.pop(run.id, None)
        if (line := self._lines.get(run.key.short)) is not None:
            line.release(run)
        self._tidy(run.key)
        self._keep(outcome)
        run.ended.set()

    def withdraw(self, run: ActiveRun) -> None:
        """Take a run back that never began; its id may be used again."""
        self._active.pop(run.id, None)
        if (line := self._lines.get(run.key.short)) is not None:
            line.release(run)
        self._tidy(run.key)

    def _tidy(self, key: SessionKey) -> None:
        """Drop the session's line if nobody is in it."""
        line = self._lines.get(key.short)
        if line is not None and line.is_empty:
            del self._lines[key.short]

    def find(self, run_id: str) -> ActiveRun | None:
        """A run that has not ended."""
        return self._active.get(run_id)

    def finished(self, run_id: str) -> RunOutcome | None:
        """How a run ended, if that was in the last ten minutes."""
        self._forget_old()
        kept = self._finished.get(run_id)
        return None if kept is None else kept[1]

    def for_session(self, key: str, /) -> list[ActiveRun]:
        """The runs of a session (its key without the tenant): first the active, then the waiting.

        Those that are answered along with another come last.
        """
        line = self._lines.get(key)
        first = [] if line is None else line.runs()
        rest = [run for run in self._active.values() if run.key.short == key and run not in first]
        return first + rest

    async def wait(self, run_id: str, timeout: float) -> RunOutcome | None:  # noqa: ASYNC109 - what the client said
        """How the run ends, or ended lately; None if it has not in ``timeout`` seconds.

        A run that nobody knows may still begin.
        """
        with trio.move_on_after(timeout):
            while True:
                if (run := self.find(run_id)) is not None:
                    await run.ended.wait()
                    return run.outcome
                if (outcome := self.finished(run_id)) is not None:
                    return outcome
                await self._wait_expected(run_id)
        return None

    async def _wait_expected(self, run_id: str) -> None:
        event = trio.Event()
        self._expected.setdefault(run_id, []).append(event)
        try:
            await event.wait()
        finally:
            waiting = self._expected.get(run_id, [])
            if event in waiting:
                waiting.remove(event)
                if not waiting:
                    del self._expected[run_id]

    def _keep(self, outcome: RunOutcome) -> None:
        if (before := self._finished.pop(outcome.run_id, None)) is not None:
            self._finished_text -= len(before[1].text)
        self._finished[outcome.run_id] = (trio.current_time(), outcome)
        self._finished_text += len(outcome.text)
        self._forget_old()

    def _forget_old(self) -> None:
        too_old = trio.current_time() - KEPT_FOR
        while self._finished:
            ended, outcome = next(iter(self._finished.values()))
            if (
                ended > too_old
                and len(self._finished) <= MOST_KEPT
                and self._finished_text <= _MOST_KEPT_TEXT
            ):
                return
            self._finished.popitem(last=False)
            self._finished_text -= len(outcome.text)
