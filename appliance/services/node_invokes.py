"""Commands that were sent to a tenant's nodes, until their results came back.

A command is identified by the caller's idempotency key. Asking again with the
same key waits for, or repeats, the one result; the node is not asked twice.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import trio

from appliance.model.errors import InvalidRequest, RateLimited, Unavailable

MOST_PENDING = 64
_MOST_KEPT = 1_000
# Results may be pictures. When the sum is reached the oldest is forgotten, but
# not that its key was used: a command must not run twice.
_MOST_KEPT_BYTES = 16 * 1024 * 1024
_KEPT_FOR = 5 * 60  # seconds


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What came of a command. ``payload`` is JSON, None where there is none."""

    ok: bool
    payload: bytes | None = None
    code: str = ""
    message: str = ""
    by_gateway: bool = False  # not the node's own word


_TIMED_OUT = NodeResult(ok=False, code="TIMEOUT", message="node invoke timed out", by_gateway=True)
_GONE = NodeResult(ok=False, code="NOT_CONNECTED", message="node disconnected", by_gateway=True)


@dataclass(slots=True, eq=False)
class NodeInvoke:
    """One command. ``deadline`` and ``ended_at`` are on Trio's clock."""

    id: str
    node: str
    command: str
    params: bytes | None
    connection: str  # only the connection that was asked may answer
    fingerprint: bytes
    deadline: float
    result: NodeResult | None = None
    ended_at: float = 0.0
    ended: trio.Event = field(default_factory=trio.Event)

    def finish(self, result: NodeResult) -> None:
        self.result = result
        self.ended_at = trio.current_time()
        self.ended.set()

    async def wait(self) -> NodeResult:
        """Wait for the result, up to the deadline.

        Cancelled, the command goes on and whoever asks again may have its result.
        """
        with trio.move_on_at(self.deadline):
            await self.ended.wait()
        if not self.ended.is_set():
            self.finish(_TIMED_OUT)
        if self.result is None:
            raise Unavailable("the result of this idempotencyKey is no longer kept")
        return self.result


class NodeInvokes:
    """The commands of one tenant."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, NodeInvoke] = OrderedDict()
        self._by_id: dict[str, NodeInvoke] = {}  # those without a result

    def __len__(self) -> int:
        """How many wait for their result."""
        return len(self._by_id)

    def earlier(self, key: str, fingerprint: bytes) -> NodeInvoke | None:
        """The command that was sent with ``key``.

        Raises :exc:`InvalidRequest` if that was another command.
        """
        self._tidy()
        known = self._by_key.get(key)
        if known is not None and known.fingerprint != fingerprint:
            raise InvalidRequest.at(
                "idempotencyKey", "was used for another command", "choose a new key"
            )
        return known

    def require_room(self) -> None:
        """Raises :exc:`RateLimited` when too many commands wait for their nodes."""
        if len(self._by_id) >= MOST_PENDING:
            raise RateLimited(f"{MOST_PENDING} commands wait for nodes already", retry_after=1)

    def add(self, key: str, invoke: NodeInvoke) -> None:
        self._by_key[key] = invoke
        self._by_id[invoke.id] = invoke

    def discard(self, key: str) -> None:
        """Forget a command that never reached its node."""
        invoke = self._by_key.pop(key)
        self._by_id.pop(invoke.id, None)

    def find(self, invoke_id: str) -> NodeInvoke | None:
        """A command that waits for its result."""
        self._tidy()
        return self._by_id.get(invoke_id)

    def finish(self, invoke: NodeInvoke, result: NodeResult) -> None:
        """Hand ``result`` to whoever waits for it, and keep it for those who ask again."""
        invoke.finish(result)
        self._tidy()

    def connection_closed(self, connection: str) -> None:
        """Whatever waits for this connection waits in vain."""
        for invoke in [found for found in self._by_id.values() if found.connection == connection]:
            del self._by_id[invoke.id]
            invoke.finish(_GONE)

    def _tidy(self) -> None:
        now = trio.current_time()
        for invoke in list(self._by_id.values()):
            if not invoke.ended.is_set() and invoke.deadline <= now:
                invoke.finish(_TIMED_OUT)
            if invoke.ended.is_set():
                del self._by_id[invoke.id]
        for key, invoke in list(self._by_key.items()):
            if invoke.ended.is_set() and invoke.ended_at + _KEPT_FOR <= now:
                del self._by_key[key]
        for key, invoke in list(self._by_key.items())[: max(0, len(self._by_key) - _MOST_KEPT)]:
            if invoke.ended.is_set():
                del self._by_key[key]
        self._forget_large()

    def _forget_large(self) -> None:
        sizes = {key: len(i.result.payload or b"") for key, i in self._by_key.items() if i.result}
        total = sum(sizes.values())
        for key, size in sizes.items():
            if total <= _MOST_KEPT_BYTES:
                return
            self._by_key[key].result = None
            total -= size
