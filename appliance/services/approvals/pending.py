"""What waits for somebody's word, and the words that were given lately.

Only while the tenant is awake: after a restart nothing waits any more, and
whoever asked is gone with it.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import trio

from appliance.model.errors import ApplianceError, Kind, RateLimited
from appliance.storage.approvals import StoredApprovals

MOST_PENDING = 50
MOST_OF_CLIENTS = 20  # of these, asked by clients and not by agents
_MOST_KEPT = 200
_KEPT_FOR = 5 * 60  # seconds
_MOST_WARY = 1_000
# Whoever answers in the last moment is heard: writing down what was said takes a while.
_ANSWER_TAKES = 10.0  # seconds


class ApprovalAnswered(ApplianceError):
    """Somebody was faster, or the time is over."""

    code = "approval-answered"
    title = "The question is answered already"
    kind = Kind.CONFLICT


class Decision(StrEnum):
    ALLOW_ONCE = "allow-once"
    ALLOW_ALWAYS = "allow-always"
    DENY = "deny"


class Ended(StrEnum):
    """Why nothing waits any more."""

    ANSWERED = "user"
    TIMED_OUT = "timeout"
    CANCELLED = "cancelled"  # whoever asked does not want it any more
    NO_ROUTE = "no-route"  # nobody is there to be asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """May this be done? ``digest`` is of all that would be done, and the answer holds for that.

    ``patterns`` is what an "always" would allow from then on; without any, it
    allows exactly this again.
    """

    kind: str  # "exec" or "tool"
    subject: str  # what people are shown
    digest: str
    agent: str
    session: str | None = None  # the short key
    run_id: str = ""
    argv: tuple[str, ...] | None = None
    directory: str | None = None
    environment: tuple[str, ...] = ()  # names only
    host: str | None = "sandbox"
    node_id: str | None = None
    security: str | None = None
    ask: str | None = None
    resolved_path: str | None = None
    reason: str = ""
    patterns: tuple[str, ...] = ()
    allows_always: bool = False

    @property
    def decisions(self) -> tuple[Decision, ...]:
        if self.allows_always:
            return tuple(Decision)
        return (Decision.ALLOW_ONCE, Decision.DENY)


@dataclass(slots=True, eq=False, kw_only=True)
class Pending:
    """A question that was put. ``deadline`` and ``ended_at`` are on Trio's clock."""

    id: str
    question: Question
    created_at_ms: int
    expires_at_ms: int
    deadline: float
    requester: str = ""  # the client that asked, "" for an agent
    decision: Decision | None = None  # None: nobody decided
    resolved_by: str | None = None
    why: Ended | None = None
    ended_at: float = 0.0
    is_claimed: bool = False  # an answer is being written down
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def is_allowed(self) -> bool:
        return self.decision in {Decision.ALLOW_ONCE, Decision.ALLOW_ALWAYS}

    def finish(self, why: Ended, decision: Decision | None = None, by: str | None = None) -> None:
        """The first word counts; later ones change nothing."""
        if self.ended.is_set():
            return
        self.why, self.decision, self.resolved_by = why, decision, by
        self.ended_at = trio.current_time()
        self.ended.set()

    async def wait(self) -> None:
        """Wait for the answer, up to the deadline."""
        with trio.move_on_at(self.deadline):
            await self.ended.wait()
        if self.is_claimed and not self.ended.is_set():
            with trio.move_on_after(_ANSWER_TAKES):
                await self.ended.wait()


class ApprovalBook:
    """One tenant's."""

    def __init__(self) -> None:
        self._pending: OrderedDict[str, Pending] = OrderedDict()
        self._ended: OrderedDict[str, Pending] = OrderedDict()
        self._wary: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.stored: StoredApprovals | None = None  # what the file holds, once it was read
        self.changing = trio.Lock()
        # By grant: when it was used last, and how often since it was written.
        self.uses: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._pending)

    def __iter__(self) -> Iterator[Pending]:
        """Those that wait, in the order they came."""
        return iter(list(self._pending.values()))

    def add(self, pending: Pending) -> None:
        """Raises :exc:`RateLimited` when too many wait already."""
        own = sum(1 for each in self._pending.values() if each.requester)
        if len(self._pending) >= MOST_PENDING or (pending.requester and own >= MOST_OF_CLIENTS):
            raise RateLimited(f"{len(self._pending)} approvals wait for an answer already")
        self._pending[pending.id] = pending

    def find(self, approval_id: str) -> Pending | None:
        """One that waits, or ended lately."""
        self._tidy()
        return self._pending.get(approval_id) or self._ended.get(approval_id)

    def close(self, pending: Pending) -> None:
        """It waits no longer; keep what was said for those who come late."""
        if self._pending.pop(pending.id, None) is not None:
            self._ended[pending.id] = pending
        self._tidy()

    def was_denied(self, run_id: str, digest: str) -> bool:
        """Whether somebody said no to the same thing in the same run."""
        self._tidy()
        return bool(run_id) and any(
            (each.question.run_id, each.question.digest) == (run_id, digest)
            and each.decision is Decision.DENY
            for each in self._ended.values()
        )

    def note_wary(self, run_id: str, call_id: str) -> None:
        """This call must be asked about; the tool itself will ask."""
        self._wary[run_id, call_id] = None
        while len(self._wary) > _MOST_WARY:
            self._wary.popitem(last=False)

    def take_wary(self, run_id: str, call_id: str) -> bool:
        return self._wary.pop((run_id, call_id), False) is None

    def _tidy(self) -> None:
        now = trio.current_time()
        while self._ended:
            first = next(iter(self._ended.values()))
            if len(self._ended) <= _MOST_KEPT and first.ended_at + _KEPT_FOR > now:
                return
            del self._ended[first.id]
