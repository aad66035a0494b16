"""Answers that are kept for whoever asks the very same of the same tenant again.

What is kept hangs on the tenant's meter, which exists as long as the tenant is
awake: there is no key under which one tenant could find what another left, and
a tenant that is made anew under an old name finds nothing.
"""

import hashlib
import sys
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import msgspec
import trio

from appliance.model.cache_use import CacheWish
from appliance.model.calls import (
    Aside,
    Delta,
    Dialect,
    Finished,
    FinishReason,
    LogprobsDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
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
_items = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
# Bytes of memory, as measured: of an answer besides its pieces, and of each piece
# besides its texts. What was decoded takes up to seven times its JSON.
_OVERHEAD = 1024
_EACH = 128
_DECODED = 8
_MOST_OF_ALL = 4  # one answer takes at most a fourth of what a tenant may keep
_MOST_PIECES = 512  # that wait to be joined
_BARE = sys.getsizeof("")

Spoken = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta  # more of it may follow


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """``deltas`` end with ``Finished``; ``size`` is in bytes, ``since`` by trio's clock."""

    target: Target
    deltas: Sequence[Delta]
    usage: TokenUsage | None
    size: int
    since: float

    def is_old(self, ttl: float) -> bool:
        return self.since + ttl <= trio.current_time()


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

    def drop_old(self, ttl: float) -> None:
        """Those that are too old to be of use, as far as nobody used them since."""
        while self.answers and next(iter(self.answers.values())).is_old(ttl):
            self.drop_oldest()


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
        # As long as the config says now, whatever it said then.
        if answer.is_old(tenant.config.defaults.response_cache.ttl):
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
        shelf.drop_old(settings.ttl)
        now = trio.current_time()
        shelf.answers[place.key] = KeptAnswer(recording.target, deltas, recording.usage, size, now)
        shelf.size += size
        while shelf.size > settings.max_bytes:
            shelf.drop_oldest()
        self._make_room()

    def _make_room(self) -> None:
        """Whoever keeps most gives way."""
        while self.size > self._limit_bytes():
            max(self._shelves.values(), key=lambda shelf: shelf.size).drop_oldest()


class RecordingReply(DeltaReply):
    """Notes what it hands on, as much of ``most_bytes`` as one answer may take.

    An answer comes in hundreds of pieces, and is kept in one for each voice.
    """

    def __init__(self, inner: Reply, target: Target, *, most_bytes: int) -> None:
        super().__init__(inner, target.model)
        self.target = target
        self._left = most_bytes // _MOST_OF_ALL
        self._notes: list[Delta] | None = []
        self._first: Spoken | None = None  # of those that become one
        self._texts: list[str] = []  # of all of them

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
        goes_on = _goes_on(self._first, delta)
        self._left -= sys.getsizeof(_text(delta)) - _BARE if goes_on else _size(delta)
        if self._left < 0:
            self._notes = self._first = None
            self._texts.clear()
            return
        if not goes_on:
            self._join(self._notes)
            if not isinstance(delta, Spoken):
                self._notes.append(delta)
                return
            self._first = delta
        self._texts.append(_text(delta))
        if len(self._texts) > _MOST_PIECES:
            self._texts = ["".join(self._texts)]

    def _join(self, notes: list[Delta]) -> None:
        match self._first:
            case None:
                return
            case ToolCallDelta() as call:
                notes.append(replace(call, arguments="".join(self._texts)))
            case words:
                notes.append(replace(words, text="".join(self._texts)))
        self._first = None
        self._texts.clear()


def _text(delta: Delta) -> str:
    match delta:
        case TextDelta(text) | ReasoningDelta(text) | RefusalDelta(text):
            return text
        case ToolCallDelta():
            return delta.arguments
    return ""


def _goes_on(first: Delta | None, delta: Delta) -> bool:
    """Whether ``delta`` is more of what ``first`` began."""
    if isinstance(first, ToolCallDelta) and isinstance(delta, ToolCallDelta):
        return first.index == delta.index and not (delta.id or delta.name)
    return type(first) is type(delta)  # of what stands alone there is never a first


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
    head = [
        tenant.id,
        request.dialect,
        [_asked(tenant, target) for target in route.targets],
        sorted(request.headers.items()),
        request.output_limit,
    ]
    _add(digest.update, (msgspec.json.encode(head), rules))
    for name in sorted(request.body.keys() - _NO_MATTER):
        value = request.body[name]
        if name == "input" and request.dialect is Dialect.RESPONSES:
            value = _nameless(value)
        # Without the white space, and with all that decoding would lose: the order
        # of keys, in which a model fills in a schema, and all digits of numbers.
        _add(digest.update, (name.encode(), msgspec.json.format(value, indent=-1)))
    return digest.digest()


def _asked(tenant: AwakeTenant, target: Target) -> Sequence[object]:
    """Who is asked, where that is, and with whose key."""
    section = tenant.config.providers.get(target.provider)
    key = tenant.provider_key(target.provider)
    return [str(target), owner_of(tenant, target), section, key]


def _nameless(text: bytes) -> bytes:
    """Items without the names they were given when they were stored, each time others."""
    try:
        items = _items.decode(text)
    except msgspec.ValidationError:
        return text  # one message, as text
    return msgspec.json.encode([_bare(item) for item in items])


def _bare(item: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    if item.keys() <= {*_STORED_AS, "type"}:
        return item  # nothing but a reference to another one
    return {name: value for name, value in item.items() if name not in _STORED_AS}


def _add(update: Callable[[bytes], None], parts: Iterable[bytes]) -> None:
    """Each with its length, so that no two requests read alike."""
    for part in parts:
        update(b"%d:" % len(part))
        update(part)


def _size(delta: Delta) -> int:
    match delta:
        case Finished():
            return _EACH
        case LogprobsDelta() | Aside():
            return _EACH + _DECODED * len(msgspec.json.encode(delta))
        case _:
            fields = (getattr(delta, name) for name in delta.__slots__)
            return _EACH + sum(sys.getsizeof(each) - _BARE for each in fields if type(each) is str)
