"""What becomes of messages that come while the agent works on an earlier one."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueMode(StrEnum):
    STEER = "steer"  # into the running turn at its next round, else a turn of its own
    FOLLOWUP = "followup"  # a turn each
    COLLECT = "collect"  # one turn for all that have come
    INTERRUPT = "interrupt"  # the running turn ends for it
    STEER_BACKLOG = "steer-backlog"  # into the running turn, and a turn of its own

    @property
    def steers(self) -> bool:
        return self in {QueueMode.STEER, QueueMode.STEER_BACKLOG}


class Drop(StrEnum):
    """Which message goes when too many wait."""

    OLD = "old"
    NEW = "new"
    SUMMARIZE = "summarize"  # the oldest, but a line of it goes along with the next turn


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    debounce: float = 1.0  # seconds of quiet before collected messages are answered
    cap: int = 20
    drop: Drop = Drop.SUMMARIZE


class Placing(Enum):
    RUN = "run"  # nothing runs: at once
    WAIT = "wait"
    INTERRUPT = "interrupt"


def place(mode: QueueMode, *, busy: bool) -> Placing:
    """What to do with a message that has come."""
    if not busy:
        return Placing.RUN
    return Placing.INTERRUPT if mode is QueueMode.INTERRUPT else Placing.WAIT


@dataclass(frozen=True, slots=True)
class Waiting(Generic[T]):
    item: T
    mode: QueueMode
    text: str


class Backlog(Generic[T]):
    """The messages that wait in one session."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting[T]] = deque()
        self._lost: list[str] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def items(self) -> list[T]:
        return [waiting.item for waiting in self._waiting]

    def is_full(self, policy: QueuePolicy) -> bool:
        """Whether a further message would be refused."""
        return policy.drop is Drop.NEW and len(self._waiting) >= policy.cap

    def add(self, waiting: Waiting[T], policy: QueuePolicy) -> list[T]:
        """Take a message; return those that had to go for it."""
        gone: list[T] = []
        while self._waiting and len(self._waiting) >= policy.cap:
            old = self._waiting.popleft()
            gone.append(old.item)
            if policy.drop is Drop.SUMMARIZE:
                self._lost.append(" ".join(old.text.split())[:160])
                del self._lost[: -policy.cap]
        self._waiting.append(waiting)
        return gone

    def add_first(self, waiting: Waiting[T]) -> None:
        """Take a message that is answered before the others."""
        self._waiting.appendleft(waiting)

    def discard(self, item: T) -> bool:
        for waiting in self._waiting:
            if waiting.item == item:
                self._waiting.remove(waiting)
                return True
        return False

    def pop(self) -> Waiting[T] | None:
        """Take the message that is answered next."""
        return self._waiting.popleft() if self._waiting else None

    def collected(self) -> list[Waiting[T]]:
        """Take those that may be answered together with the one taken before."""
        items: list[Waiting[T]] = []
        while self._waiting and self._waiting[0].mode is QueueMode.COLLECT:
            items.append(self._waiting.popleft())
        return items

    def take_lost(self) -> list[str]:
        """Lines of messages that did not fit, for the next turn; told once."""
        lost, self._lost = self._lost, []
        return lost

    def steered(self) -> list[T]:
        """Take what is meant for the turn under way; ``steer-backlog`` stays for its own."""
        taken = [waiting.item for waiting in self._waiting if waiting.mode is QueueMode.STEER]
        also = [w.item for w in self._waiting if w.mode is QueueMode.STEER_BACKLOG]
        self._waiting = deque(
            Waiting(w.item, QueueMode.FOLLOWUP, w.text) if w.mode is QueueMode.STEER_BACKLOG else w
            for w in self._waiting
            if w.mode is not QueueMode.STEER
        )
        return taken + also


def batch_text(texts: Sequence[str], lost: Sequence[str]) -> str:
    """What a turn says that answers several messages at once."""
    if len(texts) == 1 and not lost:
        return texts[0]
    parts: list[str] = []
    if lost:
        lines = "\n".join(f"- {line}" for line in lost)
        parts.append(f"[{len(lost)} earlier messages were too many to keep whole:]\n{lines}")
    if len(texts) == 1:
        parts.append(texts[0])
    else:
        numbered = "\n\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))
        parts.append(f"[Messages that came while you were busy:]\n{numbered}")
    return "\n\n".join(parts)
