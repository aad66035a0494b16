"""What waits for a node until it asks: work for later, and commands it could not do yet.

A phone in somebody's pocket may be connected and still refuse the camera. Its
commands wait here until the app is in the foreground and pulls them.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from appliance.model.errors import RateLimited
from appliance.model.ids import new_id

_DAY_MS = 24 * 60 * 60 * 1000
_ACTION_LIFE_MS = 10 * 60 * 1000
_MOST_NODES = 200
_MOST_ACTIONS = 64
_RANKS = {"high": 0, "normal": 1}
_STATUS = "status.request"


@dataclass(frozen=True, slots=True)
class WorkItem:
    """Something the node is asked to report. ``expires_at_ms`` is None for what is always asked."""

    id: str
    type: str
    priority: str
    created_at_ms: int
    expires_at_ms: int | None


@dataclass(frozen=True, slots=True)
class QueuedAction:
    """A command for when the node is able. ``params`` is JSON."""

    id: str
    command: str
    params: bytes | None
    enqueued_at_ms: int


@dataclass(frozen=True, slots=True)
class Drained:
    revision: int
    items: list[WorkItem]
    has_more: bool


@dataclass(slots=True)
class _Queue:
    revision: int = 0
    work: dict[str, WorkItem] = field(default_factory=dict)  # by type
    actions: OrderedDict[str, QueuedAction] = field(default_factory=OrderedDict)


class NodeQueues:
    """The queues of one tenant's nodes. Each is small: one item of a type, 64 actions."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def enqueue(
        self, node: str, kind: str, *, priority: str, expires_in_ms: int | None, now_ms: int
    ) -> tuple[int, WorkItem]:
        """Ask ``node`` for ``kind`` and return the queue's revision and the item.

        What is asked already is not asked twice. Raises :exc:`RateLimited`
        when too many nodes have something waiting.
        """
        queue = self._queue(node, now_ms)
        known = queue.work.get(kind)
        if known is not None:
            return queue.revision, known
        expires = now_ms + (_DAY_MS if expires_in_ms is None else expires_in_ms)
        item = WorkItem(new_id("work"), kind, priority, now_ms, expires)
        queue.work[kind] = item
        queue.revision += 1
        return queue.revision, item

    def drain(self, node: str, *, most: int, now_ms: int) -> Drained:
        """Hand out the most urgent items; a node is always asked for its status."""
        queue = self._pruned(node, now_ms) or _Queue()
        waiting = sorted(
            queue.work.values(), key=lambda item: (_RANKS[item.priority], item.created_at_ms)
        )
        items = waiting[:most]
        for item in items:
            del queue.work[item.type]
        if items:
            queue.revision += 1
        has_more = len(waiting) > len(items)
        if not any(item.type == _STATUS for item in waiting):
            if len(items) < most:
                items.append(WorkItem("baseline-status", _STATUS, "default", now_ms, None))
            else:
                has_more = True
        return Drained(queue.revision, items, has_more)

    def defer(self, node: str, command: str, params: bytes | None, *, now_ms: int) -> QueuedAction:
        """Keep a command for when ``node`` is able; the oldest goes if there are too many."""
        queue = self._queue(node, now_ms)
        action = QueuedAction(new_id("act"), command, params, now_ms)
        queue.actions[action.id] = action
        while len(queue.actions) > _MOST_ACTIONS:
            queue.actions.popitem(last=False)
        return action

    def actions(self, node: str, *, now_ms: int) -> list[QueuedAction]:
        queue = self._pruned(node, now_ms)
        return list(queue.actions.values()) if queue else []

    def acknowledge(self, node: str, ids: list[str], *, now_ms: int) -> int:
        """Forget these actions; return how many are left."""
        queue = self._pruned(node, now_ms)
        if queue is None:
            return 0
        for action_id in ids:
            queue.actions.pop(action_id, None)
        return len(queue.actions)

    def forget(self, node: str) -> None:
        self._queues.pop(node, None)

    def _queue(self, node: str, now_ms: int) -> _Queue:
        queue = self._pruned(node, now_ms)
        if queue is None:
            if len(self._queues) >= _MOST_NODES:
                raise RateLimited(f"{_MOST_NODES} nodes have something waiting already")
            queue = self._queues[node] = _Queue()
        return queue

    def _pruned(self, node: str, now_ms: int) -> _Queue | None:
        queue = self._queues.get(node)
        if queue is None:
            return None
        for item in list(queue.work.values()):
            if item.expires_at_ms is not None and item.expires_at_ms <= now_ms:
                del queue.work[item.type]
        for action in list(queue.actions.values()):
            if action.enqueued_at_ms + _ACTION_LIFE_MS <= now_ms:
                del queue.actions[action.id]
        return queue
