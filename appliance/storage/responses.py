"""What was answered to requests to ``/v1/responses``, kept for whoever continues it.

A response is kept as the JSON that is shown of it, with the input it was asked
with. The input and the output of what it continues are found by following the
chain. A process that dies leaves runs in the background under way; whoever
opens the store next marks them failed.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.model.periods import to_ns
from appliance.storage import conversations, response_reading, response_threads
from appliance.storage.connection import Connection, DatabaseRoot
from appliance.storage.conversations import Conversations
from appliance.storage.database import Database
from appliance.storage.response_rows import (
    COLUMNS,
    MOST_ITEMS,
    Item,
    ItemPage,
    NewResponse,
    PageOf,
    ResponseStatus,
    StoredResponse,
    item_of,
    output_of,
    response_of,
)
from appliance.storage.response_threads import Limits
from appliance.storage.responses_schema import SCHEMA

__all__ = ["FILE", "MOST_ITEMS", "ResponseStore"]

FILE = "responses/responses.sqlite"
MOST_EVENT_BYTES = 32 * 1024 * 1024  # of one response
_READ_IN_LOOP = 256 * 1024  # bytes

_RESPONSES = f"SELECT {COLUMNS} FROM responses AS r JOIN threads AS t ON t.id = r.thread "  # noqa: S608 - all of it is ours
_FIND = _RESPONSES + "WHERE r.public_id = ? AND t.expires_ns > ?"
_UNDER_WAY = (
    _RESPONSES
    + "WHERE r.status IN ('queued', 'in_progress') AND r.public_id = coalesce(?, r.public_id)"
)
_INSERT = """
INSERT INTO responses (public_id, thread, status, background, model, previous, conversation,
                       session, size, created_ns, ended_ns, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id
"""
_INSERT_ITEM = """
INSERT INTO items (response, is_output, place, public_id, item) VALUES (?, ?, ?, ?, ?)
"""
_NUMBER = "SELECT id, conversation, thread FROM responses WHERE public_id = ?"
_UPDATE = """
UPDATE responses SET status = ?, body = ?, size = size - length(body) + ?,
                     ended_ns = coalesce(ended_ns, ?)
WHERE id = ?
"""
_SET_SESSION = "UPDATE responses SET session = ? WHERE public_id = ?"
_FORGET_OUTPUT = "DELETE FROM items WHERE response = ? AND is_output"
_DELETE = """
DELETE FROM responses WHERE public_id = ? AND (
    SELECT t.expires_ns FROM threads AS t WHERE t.id = responses.thread
) > ?
"""
_INSERT_EVENT = "INSERT OR IGNORE INTO events (response, sequence, event) VALUES (?, ?, ?)"
_COUNT_EVENTS = "UPDATE responses SET events = events + ? WHERE id = ? AND events + ? <= ?"
_LAST_EVENT = "SELECT max(sequence) FROM events WHERE response = ?"


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
                response = response_of(row)
                body = _interrupted(response.body)
                number, _, _ = _number(tx, response.id) or (0, None, 0)
                _finish(tx, number, ResponseStatus.FAILED, body, (), now_ns=to_ns(now))
                if response.has_events:
                    ((last,),) = tx.execute(_LAST_EVENT, (number,)).fetchall()
                    sequence = msgspec.convert(last, int) + 1
                    event = b'{"type":"response.failed","sequence_number":%d,"response":%s}'
                    tx.execute(_INSERT_EVENT, (number, sequence, event % (sequence, body)))
            return len(rows)

        return self._database.write(end)

    # Writing

    def require_room(self, size: int) -> None:
        """Raise ``QuotaExceeded`` or ``DiskFull`` if ``size`` more bytes could not be kept."""
        self._room.require(size)

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
        limits = limits or Limits()

        def insert(tx: Connection) -> None:
            now_ns, expires_ns = to_ns(now), to_ns(expires)
            response_threads.sweep(tx, now_ns=now_ns)
            thread = _thread_of(tx, response, now_ns)
            response_threads.make_room(tx, response.size, limits, spare=thread)
            if thread is None:
                thread = response_threads.begin(tx, expires_ns=expires_ns)
            else:
                response_threads.renew(tx, thread, expires_ns=expires_ns)
            number = _insert(tx, response, thread, now_ns)
            if response.status.is_over:
                _finish(tx, number, response.status, response.body, response.outputs, now_ns=now_ns)

        self._database.write(insert)
        self._room.changed(response.size)

    def update(
        self,
        response_id: str,
        *,
        status: ResponseStatus,
        body: bytes,
        now: datetime,
        outputs: Sequence[Item] = (),
        events: Sequence[tuple[int, bytes]] = (),
    ) -> bool:
        """Note how a response that was added before goes on; False if it was deleted meanwhile.

        Its last ``events`` are kept with it, however many there are already.
        """

        def change(tx: Connection) -> bool:
            found = _number(tx, response_id)
            if found is None:
                return False
            _finish(tx, found[0], status, body, outputs, now_ns=to_ns(now))
            _add_events(tx, found[0], events, most=response_reading.BEYOND)
            return True

        changed = self._database.write(change)
        self._room.changed(len(body))
        return changed

    def note_session(self, response_id: str, session: str) -> None:
        """Note which session of an agent a response belongs to."""
        self._database.write(lambda tx: tx.execute(_SET_SESSION, (session, response_id)))

    def delete(self, response_id: str, *, now: datetime) -> bool:
        """Remove a response; False if there is none."""

        def remove(tx: Connection) -> bool:
            tx.execute(_DELETE, (response_id, to_ns(now)))
            removed = tx.changes() > 0
            response_threads.sweep(tx, now_ns=to_ns(now))
            return removed

        removed = self._database.write(remove)
        self._room.changed()
        return removed

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
            found = _number(tx, response_id)
            if found is None:
                return False
            return _add_events(tx, found[0], events, most=MOST_EVENT_BYTES)

        kept = self._database.write(insert)
        self._room.changed(size)
        return kept

    def events(self, response_id: str, *, after: int, now: datetime) -> list[tuple[int, bytes]]:
        """Up to 500 events whose numbers are greater than ``after``, in order."""

        return self._database.read(
            lambda tx: response_reading.events_after(tx, response_id, after, now_ns=to_ns(now))
        )


def _number(tx: Connection, response_id: str) -> tuple[int, str | None, int] | None:
    for row in tx.execute(_NUMBER, (response_id,)).fetchall():
        match row:
            case (int(number), None | str() as conversation, int(thread)):
                return number, conversation, thread
    return None


def _thread_of(tx: Connection, response: NewResponse, now_ns: int) -> int | None:
    """The thread that a response continues, None if it begins one."""
    if response.conversation is not None:
        return conversations.thread_of(tx, response.conversation, now_ns=now_ns)
    if response.previous is None:
        return None
    rows = tx.execute(response_reading.LINK, (response.previous, now_ns)).fetchall()
    return msgspec.convert(rows[0][3], int) if rows else None


def _insert(tx: Connection, response: NewResponse, thread: int, now_ns: int) -> int:
    values = (
        response.id,
        thread,
        response.status.value,
        int(response.background),
        response.model,
        response.previous,
        response.conversation,
        response.session,
        response.size,
        now_ns,
        now_ns if response.status.is_over else None,
        response.body,
    )
    ((number,),) = tx.execute(_INSERT, values).fetchall()
    tx.executemany(
        _INSERT_ITEM,
        [(number, 0, place, item.id, item.json) for place, item in enumerate(response.inputs)],
    )
    return msgspec.convert(number, int)


def _finish(
    tx: Connection,
    number: int,
    status: ResponseStatus,
    body: bytes,
    outputs: Sequence[Item],
    *,
    now_ns: int,
) -> None:
    """Write down how far a response has come; what it ends with goes into its conversation."""
    ended_ns = now_ns if status.is_over else None
    tx.execute(_UPDATE, (status.value, body, len(body), ended_ns, number))
    tx.execute(_FORGET_OUTPUT, (number,))
    shown = output_of(body)
    rows = []
    for place, item in enumerate(outputs or shown):
        same = place < len(shown) and shown[place].json == item.said
        rows.append((number, 1, place, item.id, None if same else item.said))
    tx.executemany(_INSERT_ITEM, rows)
    if status in {ResponseStatus.COMPLETED, ResponseStatus.INCOMPLETE}:
        conversation = _conversation_of(tx, number)
        if conversation is not None:
            inputs = [
                item_of(row) for row in tx.execute(response_reading.INPUTS, (number,)).fetchall()
            ]
            said = {item.id: item.said for item in outputs}
            added = [Item(item.id, item.json, said.get(item.id)) for item in shown]
            conversations.append(tx, conversation, [*inputs, *added])


def _conversation_of(tx: Connection, number: int) -> str | None:
    query = "SELECT conversation FROM responses WHERE id = ?"
    ((conversation,),) = tx.execute(query, (number,)).fetchall()
    return msgspec.convert(conversation, str | None)


def _add_events(
    tx: Connection, number: int, events: Sequence[tuple[int, bytes]], *, most: int
) -> bool:
    size = sum(len(event) for _, event in events)
    tx.execute(_COUNT_EVENTS, (size, number, size, most))
    if not tx.changes():
        return False
    tx.executemany(_INSERT_EVENT, [(number, *event) for event in events])
    return True


def _interrupted(body: bytes) -> bytes:
    """The same response, failed."""
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    members["status"] = msgspec.Raw(b'"failed"')
    members["error"] = msgspec.Raw(
        b'{"code":"server_error","message":"the gateway was started again while it was answering"}'
    )
    return msgspec.json.encode(members)


def page_of(*, limit: int, order: str, after: str | None) -> PageOf:
    """Read what a caller asks of a list. Raises :exc:`InvalidRequest`."""
    if not 1 <= limit <= MOST_ITEMS:
        raise InvalidRequest.at("limit", f"must lie between 1 and {MOST_ITEMS}")
    if order not in {"asc", "desc"}:
        raise InvalidRequest.at("order", "must be asc or desc")
    return PageOf(limit=limit, newest_first=order == "desc", after=after)
