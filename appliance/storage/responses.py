"""What was answered to requests to ``/v1/responses``, kept for whoever continues it.

A response is kept as the JSON that is shown of it, with the input it was asked
with. The input and the output of what it continues are found by following the
chain. A process that dies leaves runs in the background under way; whoever
opens the store next marks them failed.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec
import trio

from appliance.model.errors import ApplianceError, InvalidRequest, TooLarge
from appliance.model.periods import to_ns
from appliance.storage import (
    conversations,
    response_reading,
    response_threads,
    response_writing,
)
from appliance.storage.connection import Connection, DatabaseRoot
from appliance.storage.conversations import Conversations
from appliance.storage.database import Database
from appliance.storage.response_rows import (
    COLUMNS,
    ENDS_WELL,
    MOST_ITEMS,
    Item,
    ItemPage,
    NewResponse,
    PageOf,
    ResponseState,
    StoredResponse,
    response_of,
)
from appliance.storage.response_threads import Limits
from appliance.storage.responses_schema import SCHEMA

__all__ = ["FILE", "MOST_ITEMS", "ResponseStore"]

FILE = "responses/responses.sqlite"
MOST_EVENT_BYTES = 32 * 1024 * 1024  # of one response
_READ_IN_LOOP = 256 * 1024  # bytes
_ITEMS_AT_ONCE = 500  # are written in about 3 ms
_REMOVED_AT_ONCE = 250  # in about as many

_RESPONSES = f"SELECT {COLUMNS} FROM responses AS r JOIN threads AS t ON t.id = r.thread "  # noqa: S608 - all of it is ours
_FIND = _RESPONSES + "WHERE r.public_id = ? AND t.expires_ns > ?"
_UNDER_WAY = (
    _RESPONSES
    + "WHERE r.status IN ('queued', 'in_progress') AND r.public_id = coalesce(?, r.public_id)"
)
_SET_SESSION = "UPDATE responses SET session = ? WHERE public_id = ?"
_NUMBER = """
SELECT r.id FROM responses AS r JOIN threads AS t ON t.id = r.thread
WHERE r.public_id = ? AND t.expires_ns > ?
"""


class Room(Protocol):
    """The tenant's room on the disk; see ``storage.room``."""

    def require(self, size: int = 0) -> None: ...
    def changed(self, size: int = 0) -> None: ...


class StoreRoot(DatabaseRoot, Protocol):
    @property
    def room(self) -> Room: ...


class ResponseStore:
    """The responses of one tenant. Methods that are not async run in the loop."""

    def __init__(self, database: Database, room: Room) -> None:
        self._database = database
        self._room = room
        self.conversations = Conversations(database, room)
        self.durable = database.durable
        self.tend = database.tend
        self.close = database.close

    @classmethod
    async def open(cls, root: StoreRoot, *, now: datetime) -> "ResponseStore":
        """Open or create the store; what the last process left under way has failed."""
        store = cls(await Database.open(root, FILE, SCHEMA), root.room)
        try:
            for number in store._database.read(conversations.arriving):
                await store._take_back(number)
            for number in store._database.read(response_writing.drafts):
                await store._remove(number)
            store.mark_interrupted(now=now)
        except BaseException:
            await store.close()
            raise
        return store

    def mark_interrupted(self, *, now: datetime, response_id: str | None = None) -> int:
        """End everything that is under way, or that one; return how many there were."""

        def end(tx: Connection) -> int:
            rows = tx.execute(_UNDER_WAY, (response_id,)).fetchall()
            for row in rows:
                response_writing.interrupt(tx, response_of(row), now_ns=to_ns(now))
            return len(rows)

        return self._database.write(end)

    # Writing

    def require_room(self, size: int) -> None:
        """Raise ``QuotaExceeded`` or ``DiskFull`` if ``size`` more bytes could not be kept."""
        self._room.require(size)

    def require_place(
        self, *, previous: str | None, conversation: str | None, now: datetime, limits: Limits
    ) -> None:
        """Raise :exc:`QuotaExceeded` if one more could not be kept, whatever went for it.

        ``previous`` and ``conversation`` are what it is to continue.
        """

        def check(tx: Connection) -> None:
            thread = response_writing.thread_of(tx, previous, conversation, to_ns(now))
            response_threads.require_place(tx, limits, spare=thread)

        self._database.read(check)

    def add(
        self,
        response: NewResponse,
        *,
        now: datetime,
        expires: datetime,
        limits: Limits | None = None,
    ) -> None:
        """Keep a response; one that is over may be continued from now on.

        What it continues is kept until ``expires`` too. A conversation gets its
        input and output, once it is completed. The oldest make room.

        Raises :exc:`QuotaExceeded` and ``DiskFull``; then nothing has changed.
        """
        self._room.require(response.size)

        def insert(tx: Connection) -> None:
            thread = _make_room(tx, response, limits or Limits(), now=now, expires=expires)
            response_writing.insert(tx, response, thread, to_ns(now))

        self._database.write(insert)
        self._room.changed(response.size)

    async def keep(
        self,
        response: NewResponse,
        *,
        now: datetime,
        expires: datetime,
        limits: Limits | None = None,
    ) -> None:
        """As :meth:`add`; many items are written a few at a time, beside others' work.

        Nobody finds such a response before it is whole. Cancelled, it leaves nothing.
        """
        self._room.require(response.size)
        await self._evict_for(response, limits or Limits(), now=now)
        async with self.conversations.taken(response.conversation):
            if len(response.inputs) <= _ITEMS_AT_ONCE:
                self.add(response, now=now, expires=expires, limits=limits)
            else:
                await self._keep_in_steps(response, now, expires, limits or Limits())

    async def _keep_in_steps(
        self, response: NewResponse, now: datetime, expires: datetime, limits: Limits
    ) -> None:
        def begin(tx: Connection) -> int:
            thread = _make_room(tx, response, limits, now=now, expires=expires)
            return response_writing.draft(tx, response, thread, to_ns(now))

        number = self._database.write(begin)
        try:
            for placed in response_writing.in_steps(response.inputs, most=_ITEMS_AT_ONCE):
                await trio.lowlevel.checkpoint()
                add = partial(response_writing.add_inputs, number=number, placed=placed)
                self._database.write(add)
            if response.conversation is not None and response.status in ENDS_WELL:
                await self._arrive(number, response.conversation, len(response.inputs))
            await trio.lowlevel.checkpoint()
            self._database.write(
                lambda tx: response_writing.publish(tx, number, response, to_ns(now))
            )
        except BaseException:
            await self._remove(number)
            raise
        self._room.changed(response.size)
        await self._trim(response.conversation)

    async def _arrive(self, number: int, conversation: str, inputs: int) -> None:
        """Have what a response was asked with go into its conversation, a few items at a time."""
        begin = partial(conversations.begin_arriving, response=number, conversation_id=conversation)
        if not self._database.write(begin):
            return
        for start in range(0, inputs, conversations.ITEMS_AT_ONCE):
            await trio.lowlevel.checkpoint()
            self._database.write(partial(conversations.arrive, response=number, start=start))

    async def _take_back(self, number: int) -> None:
        take_back = partial(conversations.take_back, response=number)
        with trio.CancelScope(shield=True), suppress(ApplianceError):
            while self._database.write(take_back):
                await trio.lowlevel.checkpoint()

    async def _trim(self, conversation: str | None) -> None:
        if conversation is not None:
            while self._database.write(partial(conversations.trim, conversation_id=conversation)):
                await trio.lowlevel.checkpoint()

    async def _evict_for(self, response: NewResponse, limits: Limits, *, now: datetime) -> None:
        """Let the oldest go for a response, each in its own steps."""

        def oldest(tx: Connection) -> int | None:
            thread = response_writing.thread_of(
                tx, response.previous, response.conversation, to_ns(now)
            )
            return response_threads.oldest(tx, response.size, limits, spare=thread)

        for _ in range(response_threads.MOST_EVICTED):
            number = self._database.read(oldest)
            if number is None:
                return
            self._database.write(partial(response_writing.hide, number=number))
            await self._remove(number)

    async def _remove(self, number: int) -> None:
        """Remove a draft a few rows at a time, whoever is cancelled meanwhile."""
        remove = partial(response_writing.remove_some, number=number, most=_REMOVED_AT_ONCE)
        # What cannot be removed from a broken file goes when the file is opened next.
        with trio.CancelScope(shield=True), suppress(ApplianceError):
            while self._database.write(remove):
                await trio.lowlevel.checkpoint()

    def update(self, response_id: str, state: ResponseState, *, now: datetime) -> bool:
        """Note how a response that was added before goes on; False if it was deleted meanwhile.

        The events of ``state`` are kept with it, however many there are already.
        """

        def change(tx: Connection) -> bool:
            found = response_writing.number_of(tx, response_id)
            if found is None:
                return False
            number = found[0]
            response_writing.finish(tx, number, state, now_ns=to_ns(now))
            response_writing.add_events(tx, number, state.events, most=response_reading.BEYOND)
            return True

        changed = self._database.write(change)
        self._room.changed(len(state.body))
        return changed

    async def end(self, response_id: str, state: ResponseState, *, now: datetime) -> bool:
        """As :meth:`update`, for the last time: very many items go into its conversation in steps.

        Cancelled, it has changed nothing.
        """
        known = self._database.read(
            lambda tx: response_writing.many_for_conversation(tx, response_id)
        )
        if known is None or state.status not in ENDS_WELL:
            return self.update(response_id, state, now=now)
        number, conversation, inputs = known
        async with self.conversations.taken(conversation):
            try:
                await self._arrive(number, conversation, inputs)
                await trio.lowlevel.checkpoint()
                changed = self.update(response_id, state, now=now)
            except BaseException:
                await self._take_back(number)
                raise
            await self._trim(conversation)
        return changed

    def note_session(self, response_id: str, session: str) -> None:
        """Note which session of an agent a response belongs to."""
        self._database.write(lambda tx: tx.execute(_SET_SESSION, (session, response_id)))

    async def delete(self, response_id: str, *, now: datetime) -> bool:
        """Remove a response; False if there is none. From the first step on nobody finds it."""

        def hide(tx: Connection) -> int | None:
            rows = tx.execute(_NUMBER, (response_id, to_ns(now))).fetchall()
            response_threads.sweep(tx, now_ns=to_ns(now))
            if not rows:
                return None
            number = msgspec.convert(rows[0][0], int)
            response_writing.hide(tx, number)
            return number

        number = self._database.write(hide)
        if number is None:
            return False
        await self._remove(number)
        self._room.changed()
        return True

    # Reading

    def find(self, response_id: str, *, now: datetime) -> StoredResponse | None:
        rows = self._database.read(
            lambda tx: tx.execute(_FIND, (response_id, to_ns(now))).fetchall()
        )
        return response_of(rows[0]) if rows else None

    async def context(self, response_id: str, *, now: datetime) -> list[Item] | None:
        """The items of a response and of all that it continues, the oldest first.

        None if it, or one before it, is not there any more. Raises
        :exc:`TooLarge` for more than can be read at once.
        """
        chain = self._database.read(lambda tx: response_reading.chain(tx, response_id, to_ns(now)))
        if chain is None:
            return None
        numbers, size = chain

        def read(tx: Connection) -> list[Item]:
            return [item for number in numbers for item in response_reading.items(tx, number)]

        if size <= _READ_IN_LOOP:
            return self._database.read(read)
        return await self._database.scan(read)

    def input_items(self, response_id: str, page: PageOf, *, now: datetime) -> ItemPage | None:
        """A page of what a response was asked with; None if there is no such response.

        Raises :exc:`InvalidRequest` for an ``after`` that is not among it.
        """

        return self._database.read(
            lambda tx: response_reading.input_page(tx, response_id, page, now_ns=to_ns(now))
        )

    async def find_items(self, ids: Sequence[str], *, now: datetime) -> Mapping[str, bytes]:
        """The JSON of items by their ids, as far as there are such in any response or conversation.

        Of several with one id it is the latest. Raises :exc:`TooLarge` for more
        than can be read at once.
        """
        now_ns = to_ns(now)

        def read(tx: Connection) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            size = 0
            for item_id in ids:
                item = response_reading.find_item(tx, item_id, now_ns)
                if item is not None:
                    found[item_id] = item
                    size += len(item)
                if size > response_reading.LARGEST_CONTEXT:
                    raise TooLarge(
                        f"the items referred to have more than "
                        f"{response_reading.LARGEST_CONTEXT} bytes",
                        limit_bytes=response_reading.LARGEST_CONTEXT,
                    )
            return found

        return await self._database.scan(read)

    # Events of what runs in the background

    def add_events(self, response_id: str, events: Sequence[tuple[int, bytes]]) -> bool:
        """Keep events with their sequence numbers; False if it is one response's share already."""
        size = sum(len(event) for _, event in events)
        self._room.require(size)

        def insert(tx: Connection) -> bool:
            found = response_writing.number_of(tx, response_id)
            if found is None:
                return False
            return response_writing.add_events(tx, found[0], events, most=MOST_EVENT_BYTES)

        kept = self._database.write(insert)
        self._room.changed(size)
        return kept

    def events(self, response_id: str, *, after: int, now: datetime) -> list[tuple[int, bytes]]:
        """Up to 500 events whose numbers are greater than ``after``, in order."""

        return self._database.read(
            lambda tx: response_reading.events_after(tx, response_id, after, now_ns=to_ns(now))
        )


def _make_room(
    tx: Connection, response: NewResponse, limits: Limits, *, now: datetime, expires: datetime
) -> int:
    """Let what has expired, and the oldest, go for a response; return the thread it is part of."""
    now_ns, expires_ns = to_ns(now), to_ns(expires)
    response_threads.sweep(tx, now_ns=now_ns)
    thread = response_writing.thread_of(tx, response.previous, response.conversation, now_ns)
    response_threads.make_room(tx, response.size, limits, spare=thread)
    if thread is None:
        return response_threads.begin(tx, expires_ns=expires_ns)
    response_threads.renew(tx, thread, expires_ns=expires_ns)
    return thread


def page_of(*, limit: int, order: str, after: str | None) -> PageOf:
    """Read what a caller asks of a list. Raises :exc:`InvalidRequest`."""
    if not 1 <= limit <= MOST_ITEMS:
        raise InvalidRequest.at("limit", f"must lie between 1 and {MOST_ITEMS}")
    if order not in {"asc", "desc"}:
        raise InvalidRequest.at("order", "must be asc or desc")
    return PageOf(limit=limit, newest_first=order == "desc", after=after)
