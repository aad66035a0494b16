"""Conversations of a tenant: what responses were given in them, as one list of items."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol

import msgspec
import trio

from appliance.model.errors import AlreadyExists, InvalidRequest, QuotaExceeded, TooLarge
from appliance.model.periods import to_ns
from appliance.storage import response_threads
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.response_rows import (
    Conversation,
    Item,
    ItemPage,
    PageOf,
    conversation_of,
    item_of,
    unknown_after,
)
from appliance.storage.response_threads import Limits

MOST_ITEMS = 10_000  # of one conversation
LARGEST = 64 * 1024 * 1024  # bytes that are read at once
_READ_IN_LOOP = 256 * 1024  # bytes
ITEMS_AT_ONCE = 250  # are written or removed in about 4 ms

_LIVING = "JOIN threads AS t ON t.id = c.thread WHERE t.expires_ns > ?"
_FIND = f"""
SELECT c.public_id, c.metadata, c.session, c.created_ns FROM conversations AS c {_LIVING}
AND c.public_id = ?
"""  # noqa: S608 - all of it is ours
_NUMBERS = f"SELECT c.id, c.thread FROM conversations AS c {_LIVING} AND c.public_id = ?"  # noqa: S608 - all of it is ours
_INSERT = """
INSERT INTO conversations (public_id, thread, metadata, created_ns) VALUES (?, ?, ?, ?)
RETURNING id
"""
_SET_METADATA = "UPDATE conversations SET metadata = ? WHERE id = ?"
_SET_SESSION = "UPDATE conversations SET session = ? WHERE public_id = ?"
_DELETE_ITEMS = """
DELETE FROM conversation_items WHERE id IN (
    SELECT id FROM conversation_items WHERE conversation = ? LIMIT ?
)
"""
_DELETE = "DELETE FROM conversations WHERE id = ?"
_INSERT_ITEM = """
INSERT INTO conversation_items (conversation, public_id, item, sealed) VALUES (?, ?, ?, ?)
ON CONFLICT (conversation, public_id) DO NOTHING
"""
_LAST_ITEM = "SELECT coalesce(max(id), 0) FROM conversation_items"
_BEGIN_ARRIVING = "INSERT INTO arriving (response, conversation, after) VALUES (?, ?, ?)"
_ARRIVE = """
INSERT INTO conversation_items (conversation, public_id, item)
SELECT a.conversation, i.public_id, i.item
FROM arriving AS a JOIN items AS i ON i.response = a.response
WHERE a.response = ? AND NOT i.is_output AND i.place >= ? AND i.place < ? ORDER BY i.place
ON CONFLICT (conversation, public_id) DO NOTHING
"""
_HAVE_ARRIVED = "DELETE FROM arriving WHERE response = ?"
_ARRIVING = "SELECT response FROM arriving"
_TAKE_BACK = """
DELETE FROM conversation_items WHERE id IN (
    SELECT c.id FROM arriving AS a JOIN conversation_items AS c
    ON c.conversation = a.conversation AND c.id > a.after
    WHERE a.response = ?
    AND c.public_id IN (SELECT public_id FROM items WHERE response = a.response) LIMIT ?
)
"""
_TRIM = """
DELETE FROM conversation_items WHERE id IN (
    SELECT id FROM conversation_items WHERE conversation = ? ORDER BY id LIMIT ?
)
"""
_COUNT = "SELECT count(*) FROM conversation_items WHERE conversation = ?"
_SIZE = "SELECT coalesce(sum(length(item)), 0) FROM conversation_items WHERE conversation = ?"
_ALL = """
SELECT public_id, coalesce(sealed, item) FROM conversation_items WHERE conversation = ?
ORDER BY id
"""
_ONE = "SELECT public_id, item FROM conversation_items WHERE conversation = ? AND public_id = ?"
_PLACE = "SELECT id FROM conversation_items WHERE conversation = ? AND public_id = ?"
_PAGE_UP = """
SELECT public_id, item FROM conversation_items WHERE conversation = ? AND id > ?
ORDER BY id LIMIT ?
"""
_PAGE_DOWN = """
SELECT public_id, item FROM conversation_items WHERE conversation = ? AND id < ?
ORDER BY id DESC LIMIT ?
"""
_LAST_RESPONSE = """
SELECT r.public_id FROM items AS i JOIN responses AS r ON r.id = i.response
WHERE i.is_output AND r.conversation = ? AND i.public_id = (
    SELECT public_id FROM conversation_items WHERE conversation = ? ORDER BY id DESC LIMIT 1
)
ORDER BY i.id DESC LIMIT 1
"""
_BEFORE = """
SELECT c.id, min(i.id) FROM conversations AS c JOIN conversation_items AS i ON i.conversation = c.id
WHERE c.public_id = ?
AND i.public_id IN (SELECT public_id FROM items WHERE response = ? AND is_output)
"""
_SIZE_BEFORE = """
SELECT coalesce(sum(length(item)), 0) FROM conversation_items WHERE conversation = ? AND id < ?
"""
_ITEMS_BEFORE = """
SELECT public_id, coalesce(sealed, item) FROM conversation_items WHERE conversation = ? AND id < ?
AND public_id NOT IN (SELECT public_id FROM items WHERE response = ? AND NOT is_output)
ORDER BY id
"""
_NO_SESSION = "UPDATE conversations SET session = '' WHERE id = ?"
_DELETE_ITEM = "DELETE FROM conversation_items WHERE conversation = ? AND public_id = ?"
_ANYWHERE = """
SELECT coalesce(i.sealed, i.item) FROM conversation_items AS i
JOIN conversations AS c ON c.id = i.conversation
JOIN threads AS t ON t.id = c.thread
WHERE i.public_id = ? AND t.expires_ns > ? ORDER BY i.id DESC LIMIT 1
"""
_BEYOND = 2**62


class Room(Protocol):
    def require(self, size: int = 0) -> None: ...
    def changed(self, size: int = 0) -> None: ...


class Conversations:
    """Methods that are not async run in the loop; those that find nothing say so with None."""

    def __init__(self, database: Database, room: Room) -> None:
        self._database = database
        self._room = room
        self._taken: dict[str, trio.Lock] = {}

    @asynccontextmanager
    async def taken(self, conversation_id: str | None) -> AsyncIterator[None]:
        """Have it for oneself: what comes in steps stays together, and is read when it is whole."""
        if conversation_id is None:
            yield
            return
        lock = self._taken.setdefault(conversation_id, trio.Lock())
        async with lock:
            try:
                yield
            finally:
                if not lock.statistics().tasks_waiting:
                    self._taken.pop(conversation_id, None)

    def create(
        self,
        conversation_id: str,
        items: Sequence[Item],
        *,
        metadata: bytes,
        now: datetime,
        expires: datetime,
        limits: Limits | None = None,
    ) -> Conversation:
        """Begin a conversation, with ``items`` in it. Raises :exc:`QuotaExceeded`, ``DiskFull``."""
        limits = limits or Limits()
        size = sum(len(item.json) for item in items)
        self._room.require(size)

        def insert(tx: Connection) -> None:
            response_threads.sweep(tx, now_ns=to_ns(now))
            if response_threads.totals(tx).conversations >= limits.conversations:
                raise QuotaExceeded(
                    f"there are {limits.conversations} conversations, as many as may be; "
                    "delete some"
                )
            response_threads.require_room(tx, size, limits)
            thread = response_threads.begin(tx, expires_ns=to_ns(expires))
            values = (conversation_id, thread, metadata, to_ns(now))
            ((number,),) = tx.execute(_INSERT, values).fetchall()
            _add(tx, msgspec.convert(number, int), items, is_strict=True)

        self._database.write(insert)
        self._room.changed(size)
        return Conversation(id=conversation_id, metadata=metadata, session="", created_at=now)

    def find(self, conversation_id: str, *, now: datetime) -> Conversation | None:
        rows = self._database.read(
            lambda tx: tx.execute(_FIND, (to_ns(now), conversation_id)).fetchall()
        )
        return conversation_of(rows[0]) if rows else None

    def set_metadata(self, conversation_id: str, metadata: bytes, *, now: datetime) -> bool:
        def change(tx: Connection) -> bool:
            found = _numbers(tx, conversation_id, to_ns(now))
            if found is not None:
                tx.execute(_SET_METADATA, (metadata, found[0]))
            return found is not None

        return self._database.write(change)

    def note_session(self, conversation_id: str, session: str) -> None:
        """Note which session of an agent this conversation goes on in."""
        self._database.write(lambda tx: tx.execute(_SET_SESSION, (session, conversation_id)))

    def last_response(self, conversation_id: str, *, now: datetime) -> str | None:
        """The id of the response that said the latest of it; None if none that is kept did."""

        def read(tx: Connection) -> str | None:
            found = _numbers(tx, conversation_id, to_ns(now))
            if found is None:
                return None
            rows = tx.execute(_LAST_RESPONSE, (conversation_id, found[0])).fetchall()
            return msgspec.convert(rows[0][0], str) if rows else None

        return self._database.read(read)

    async def delete(self, conversation_id: str, *, now: datetime) -> bool:
        """Remove a conversation and its items, a few at a time; its responses stay."""
        while True:
            left = self._database.write(lambda tx: _delete(tx, conversation_id, to_ns(now)))
            if left != "more":
                self._room.changed()
                return left == "gone"
            await trio.lowlevel.checkpoint()

    def add_items(
        self,
        conversation_id: str,
        items: Sequence[Item],
        *,
        now: datetime,
        expires: datetime,
        limits: Limits | None = None,
    ) -> bool:
        """Append ``items``; False if there is no such conversation.

        Raises :exc:`AlreadyExists` for an id that is in it, :exc:`InvalidRequest` for more than
        it may hold, :exc:`QuotaExceeded` and ``DiskFull``; then nothing has changed.
        """
        size = sum(len(item.json) for item in items)
        self._room.require(size)

        def insert(tx: Connection) -> bool:
            found = _numbers(tx, conversation_id, to_ns(now))
            if found is None:
                return False
            number, thread = found
            response_threads.require_room(tx, size, limits or Limits())
            if _count(tx, number) + len(items) > MOST_ITEMS:
                raise InvalidRequest.at(
                    "items", f"a conversation holds {MOST_ITEMS} items at most", "begin another"
                )
            _add(tx, number, items, is_strict=True)
            response_threads.renew(tx, thread, expires_ns=to_ns(expires))
            return True

        added = self._database.write(insert)
        self._room.changed(size)
        return added

    async def context(self, conversation_id: str, *, now: datetime) -> list[Item] | None:
        """All of its items as a model reads them, the oldest first. Raises :exc:`TooLarge`."""
        async with self.taken(conversation_id):
            return await self._context(conversation_id, now)

    async def _context(self, conversation_id: str, now: datetime) -> list[Item] | None:
        def measure(tx: Connection) -> tuple[int, int] | None:
            found = _numbers(tx, conversation_id, to_ns(now))
            if found is None:
                return None
            ((size,),) = tx.execute(_SIZE, (found[0],)).fetchall()
            return found[0], msgspec.convert(size, int)

        measured = self._database.read(measure)
        if measured is None:
            return None
        number, size = measured
        if size > LARGEST:
            raise TooLarge(f"the conversation has more than {LARGEST} bytes", limit_bytes=LARGEST)

        def read(tx: Connection) -> list[Item]:
            return [item_of(row) for row in tx.execute(_ALL, (number,)).fetchall()]

        if size <= _READ_IN_LOOP:
            return self._database.read(read)
        return await self._database.scan(read)

    def items(self, conversation_id: str, page: PageOf, *, now: datetime) -> ItemPage | None:
        """Raises :exc:`InvalidRequest` for an ``after`` that is not in it."""

        def read(tx: Connection) -> ItemPage | None:
            found = _numbers(tx, conversation_id, to_ns(now))
            if found is None:
                return None
            number = found[0]
            start = _BEYOND if page.newest_first else -1
            if page.after is not None:
                places = tx.execute(_PLACE, (number, page.after)).fetchall()
                if not places:
                    raise unknown_after(page.after)
                start = msgspec.convert(places[0][0], int)
            query = _PAGE_DOWN if page.newest_first else _PAGE_UP
            rows = tx.execute(query, (number, start, page.limit + 1)).fetchall()
            return ItemPage([item_of(row) for row in rows[: page.limit]], len(rows) > page.limit)

        return self._database.read(read)

    def find_item(self, conversation_id: str, item_id: str, *, now: datetime) -> Item | None:
        def read(tx: Connection) -> Item | None:
            found = _numbers(tx, conversation_id, to_ns(now))
            rows = [] if found is None else tx.execute(_ONE, (found[0], item_id)).fetchall()
            return item_of(rows[0]) if rows else None

        return self._database.read(read)

    def delete_item(self, conversation_id: str, item_id: str, *, now: datetime) -> bool:
        """No agent's session goes on with it: what was deleted is known there."""

        def remove(tx: Connection) -> bool:
            found = _numbers(tx, conversation_id, to_ns(now))
            if found is None:
                return False
            tx.execute(_DELETE_ITEM, (found[0], item_id))
            if not tx.changes():
                return False
            tx.execute(_NO_SESSION, (found[0],))
            return True

        return self._database.write(remove)


def thread_of(tx: Connection, conversation_id: str, *, now_ns: int) -> int | None:
    found = _numbers(tx, conversation_id, now_ns)
    return None if found is None else found[1]


def size_before(tx: Connection, conversation_id: str, response: int) -> int | None:
    """Bytes of what was in a conversation when a response was given there.

    None where nobody knows any more: one of both has left nothing there.
    """
    number, place = _before(tx, conversation_id, response)
    if place is None:
        return None
    ((size,),) = tx.execute(_SIZE_BEFORE, (number, place)).fetchall()
    return msgspec.convert(size, int)


def items_before(tx: Connection, conversation_id: str, response: int) -> list[Item]:
    """The same as a model reads it, without what the response was asked with."""
    number, place = _before(tx, conversation_id, response)
    return [item_of(row) for row in tx.execute(_ITEMS_BEFORE, (number, place, response)).fetchall()]


def _before(tx: Connection, conversation_id: str, response: int) -> tuple[object, object]:
    """The numbers of the conversation and of the first item that the response said there."""
    ((number, place),) = tx.execute(_BEFORE, (conversation_id, response)).fetchall()
    return number, place


def append(tx: Connection, conversation_id: str, items: Sequence[Item]) -> None:
    """Add what a response was asked with and what it said; what is in there already stays.

    One that was deleted meanwhile gets nothing, one that is full loses its oldest items:
    as many as came, or more with the next (see :func:`trim`).
    """
    found = _numbers(tx, conversation_id, -1)
    if found is not None:
        _add(tx, found[0], items, is_strict=False)
        trim(tx, conversation_id, most=max(ITEMS_AT_ONCE, len(items)))


def trim(tx: Connection, conversation_id: str, *, most: int = ITEMS_AT_ONCE) -> bool:
    """Remove so many items of one that has too many; True while there are more."""
    found = _numbers(tx, conversation_id, -1)
    excess = 0 if found is None else _count(tx, found[0]) - MOST_ITEMS
    if found is not None and excess > 0:
        tx.execute(_TRIM, (found[0], min(excess, most)))
    return excess > most


def begin_arriving(tx: Connection, response: int, conversation_id: str) -> bool:
    """Have the input of a response come into its conversation; False if that was deleted."""
    found = _numbers(tx, conversation_id, -1)
    if found is not None:
        ((last,),) = tx.execute(_LAST_ITEM).fetchall()
        tx.execute(_BEGIN_ARRIVING, (response, found[0], last))
    return found is not None


def arrive(tx: Connection, response: int, start: int) -> None:
    """Add the next items, from place ``start`` on; what is in there already stays."""
    tx.execute(_ARRIVE, (response, start, start + ITEMS_AT_ONCE))


def have_arrived(tx: Connection, response: int) -> bool:
    """That was all of them; False if none were to come."""
    tx.execute(_HAVE_ARRIVED, (response,))
    return tx.changes() > 0


def arriving(tx: Connection) -> list[int]:
    """The responses whose input is on its way, or was when the process died."""
    return [msgspec.convert(number, int) for (number,) in tx.execute(_ARRIVING).fetchall()]


def take_back(tx: Connection, response: int) -> bool:
    """Remove some of the items that have come; True while there are more."""
    tx.execute(_TAKE_BACK, (response, ITEMS_AT_ONCE))
    if tx.changes() >= ITEMS_AT_ONCE:
        return True
    tx.execute(_HAVE_ARRIVED, (response,))
    return False


def find_anywhere(tx: Connection, item_id: str, *, now_ns: int) -> bytes | None:
    """The JSON of an item of any conversation."""
    for (item,) in tx.execute(_ANYWHERE, (item_id, now_ns)).fetchall():
        return msgspec.convert(item, bytes)
    return None


def _numbers(tx: Connection, conversation_id: str, now_ns: int) -> tuple[int, int] | None:
    for number, thread in tx.execute(_NUMBERS, (now_ns, conversation_id)).fetchall():
        return msgspec.convert(number, int), msgspec.convert(thread, int)
    return None


def _count(tx: Connection, number: int) -> int:
    ((count,),) = tx.execute(_COUNT, (number,)).fetchall()
    return msgspec.convert(count, int)


def _add(tx: Connection, number: int, items: Sequence[Item], *, is_strict: bool) -> None:
    for item in items:
        sealed = item.sealed if item.sealed != item.json else None
        tx.execute(_INSERT_ITEM, (number, item.id, item.json, sealed))
        if is_strict and not tx.changes():
            raise AlreadyExists(f"the conversation holds an item {item.id[:64]!r} already")


def _delete(tx: Connection, conversation_id: str, now_ns: int) -> str:
    found = _numbers(tx, conversation_id, now_ns)
    if found is None:
        return "none"
    tx.execute(_DELETE_ITEMS, (found[0], ITEMS_AT_ONCE))
    if tx.changes() >= ITEMS_AT_ONCE:
        return "more"
    tx.execute(_DELETE, (found[0],))
    return "gone"
