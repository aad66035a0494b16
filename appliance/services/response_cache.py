"""Answers that are kept for whoever asks the very same of the same tenant again.

What is kept hangs on the tenant's meter, which exists as long as the tenant is
awake: there is no key under which one tenant could find what another left, and
a tenant that is made anew under an old name finds nothing.
"""

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import trio

from appliance.model.cache_use import CacheWish
from appliance.model.calls import Delta, Dialect, Finished, FinishReason, LogprobsDelta, TextDelta
from appliance.model.usage import TokenUsage
from appliance.providers.base import Reply
from appliance.services.asking import owner_of
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.delta_replies import DeltaReply
from appliance.services.meter import Meter
from appliance.services.routing import Route, Target

# How an answer travels, and for whom it is; none of it changes the answer.
_NO_MATTER = frozenset(
    {
        "model", "stream", "stream_options", "user", "metadata", "store", "safety_identifier",
        "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
    }
)  # fmt: skip
_GOOD_ENDS = frozenset({FinishReason.STOP, FinishReason.TOOL_CALLS})
_STORED_AS = frozenset({"id", "status"})
_OVERHEAD = 512  # bytes that an answer takes besides its text
_EACH = 128  # … and each piece of it
_MOST_OF_ALL = 4  # one answer takes at most a fourth of what a tenant may keep


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """``deltas`` end with ``Finished``; ``size`` is in bytes, ``until`` by trio's clock."""

    target: Target
    deltas: Sequence[Delta]
    usage: TokenUsage | None
    size: int
    until: float


class _Shelf:
    """What one tenant keeps, the longest unused first."""

    def __init__(self) -> None:
        self.answers: OrderedDict[bytes, KeptAnswer] = OrderedDict()
        self.size = 0

    def drop(self, key: bytes) -> None:
        answer = self.answers.pop(key, None)
        if answer is not None:
            self.size -= answer.size

    def drop_oldest(self) -> None:
        self.drop(next(iter(self.answers)))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to a request would be kept."""

    key: bytes
    reads: bool
    writes: bool


class ResponseCache:
    """``limit_bytes`` is for all tenants together."""

    def __init__(self, limit_bytes: Callable[[], int]) -> None:
        self._limit_bytes = limit_bytes
        self._shelves: WeakKeyDictionary[Meter, _Shelf] = WeakKeyDictionary()

    @property
    def size(self) -> int:
        return sum(shelf.size for shelf in self._shelves.values())

    def place(
        self,
        tenant: AwakeTenant,
        request: CallRequest,
        route: Route,
        wish: CacheWish,
        *,
        rules: bytes,
    ) -> Place | None:
        """Where to look and to keep; None for what is not kept at all.

        ``rules`` stands for the guardrails in force.
        """
        if request.agent is not None or request.choices > 1 or wish is CacheWish.BYPASS:
            return None
        if request.output_limit == 0:
            return None  # nothing is said: embeddings
        if request.kind == "embedding":
            return None  # no words that a reply could say again
        return Place(
            _key(tenant, request, route, rules),
            reads=wish is not CacheWish.NO_CACHE,
            writes=wish is not CacheWish.NO_STORE,
        )

    def find(self, tenant: AwakeTenant, place: Place) -> KeptAnswer | None:
        shelf = self._shelves.get(tenant.meter)
        if shelf is None or not place.reads:
            return None
        answer = shelf.answers.get(place.key)
        if answer is None:
            return None
        if answer.until <= trio.current_time():
            shelf.drop(place.key)
            return None
        shelf.answers.move_to_end(place.key)
        return answer

    def keep(self, tenant: AwakeTenant, place: Place, recording: "RecordingReply") -> None:
        """Keep an answer that came to its good end, if there is room for it."""
        settings = tenant.config.defaults.response_cache
        deltas = recording.recorded
        if not place.writes or not deltas or not _is_good(deltas[-1]):
            return
        size = _OVERHEAD + sum(map(_size, deltas))
        limit = min(settings.max_bytes, self._limit_bytes())
        if size * _MOST_OF_ALL > limit:
            return
        shelf = self._shelves.setdefault(tenant.meter, _Shelf())
        shelf.drop(place.key)
        until = trio.current_time() + settings.ttl
        shelf.answers[place.key] = KeptAnswer(
            recording.target, deltas, recording.usage, size, until
        )
        shelf.size += size
        while shelf.size > settings.max_bytes:
            shelf.drop_oldest()
        self._make_room()

    def _make_room(self) -> None:
        """Whoever keeps most gives way."""
        while self.size > self._limit_bytes():
            max(self._shelves.values(), key=lambda shelf: shelf.size).drop_oldest()


class RecordingReply(DeltaReply):
    """Notes what it hands on, up to ``most_bytes``."""

    def __init__(self, inner: Reply, target: Target, *, most_bytes: int) -> None:
        super().__init__(inner, target.model)
        self.target = target
        self._left = most_bytes
        self._notes: list[Delta] | None = []
        self._texts: list[str] = []

    @property
    def recorded(self) -> Sequence[Delta]:
        """All of the answer; empty if it was too long, or is not over."""
        return tuple(self._notes or ())

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        async with aclosing(self._inner.deltas()) as answer:
            async for deltas in answer:
                for delta in deltas:
                    self._note(delta)
                yield deltas

    def _note(self, delta: Delta) -> None:
        if self._notes is None:
            return
        self._left -= _size(delta)
        if self._left < 0:
            self._notes = None
            return
        if isinstance(delta, TextDelta):
            self._texts.append(delta.text)
            return
        if self._texts:
            # An answer comes in hundreds of pieces, and is kept as one.
            self._notes.append(TextDelta("".join(self._texts)))
            self._texts.clear()
        self._notes.append(delta)


class KeptReply(DeltaReply):
    """An answer from before."""

    def __init__(self, answer: KeptAnswer) -> None:
        super().__init__(_Source(answer), answer.target.model)


class _Source:
    finished = True
    provider_request_id = None

    def __init__(self, answer: KeptAnswer) -> None:
        self._answer = answer
        self.usage = answer.usage
        self.text_bytes = 0

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        await trio.lowlevel.checkpoint()
        yield self._answer.deltas


def _is_good(last: Delta) -> bool:
    """Whether an answer came to an end of its own: a budget may have cut it short."""
    return isinstance(last, Finished) and last.reason in _GOOD_ENDS


def _key(tenant: AwakeTenant, request: CallRequest, route: Route, rules: bytes) -> bytes:
    digest = hashlib.sha256()
    targets = [[str(target), owner_of(tenant, target)] for target in route.targets]
    head = [
        tenant.id,
        request.dialect,
        targets,
        sorted(request.headers.items()),
        request.output_limit,
    ]
    _add(digest.update, (msgspec.json.encode(head), rules))
    for name in sorted(request.body.keys() - _NO_MATTER):
        value = msgspec.json.decode(request.body[name])
        if name == "input" and request.dialect is Dialect.RESPONSES and isinstance(value, list):
            value = [_nameless(item) for item in value]
        _add(digest.update, (name.encode(), msgspec.json.encode(value, order="sorted")))
    return digest.digest()


def _nameless(item: Any) -> Any:
    """An item without the name it was given when it was stored, each time another one."""
    if not isinstance(item, dict) or item.get("type") == "item_reference":
        return item
    return {key: value for key, value in item.items() if key not in _STORED_AS}


def _add(update: Callable[[bytes], None], parts: Iterable[bytes]) -> None:
    """Each with its length, so that no two requests read alike."""
    for part in parts:
        update(b"%d:" % len(part))
        update(part)


def _size(delta: Delta) -> int:
    match delta:
        case Finished():
            return _EACH
        case LogprobsDelta(tokens):
            return _EACH + len(msgspec.json.encode(tokens))
        case _:
            fields = (getattr(delta, name) for name in delta.__slots__)
            return _EACH + sum(len(f.encode()) for f in fields if isinstance(f, str))
