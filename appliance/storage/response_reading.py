"""Reading what is stored of responses: within the caller's transaction."""

import msgspec

from appliance.model.errors import TooLarge
from appliance.storage import conversations
from appliance.storage.connection import Connection
from appliance.storage.response_rows import (
    Item,
    ItemPage,
    PageOf,
    item_of,
    output_of,
    unknown_after,
)

LONGEST_CHAIN = 1_000  # responses
LARGEST_CONTEXT = 64 * 1024 * 1024  # bytes
_EVENTS_AT_ONCE = 500

LINK = """
SELECT r.id, r.previous, r.size, r.thread, r.conversation
FROM responses AS r JOIN threads AS t ON t.id = r.thread
WHERE r.public_id = ? AND t.expires_ns > ?
"""
INPUTS = "SELECT public_id, item FROM items WHERE response = ? AND NOT is_output ORDER BY place"
_BODY = "SELECT body, conversation FROM responses WHERE id = ?"
_OUTPUTS = (
    "SELECT place, public_id, item FROM items WHERE response = ? AND is_output ORDER BY place"
)
_PLACE = """
SELECT max(i.place) FROM items AS i WHERE i.response = ? AND NOT i.is_output AND i.public_id = ?
"""
_PAGE_UP = """
SELECT public_id, item FROM items WHERE response = ? AND NOT is_output AND place > ?
ORDER BY place LIMIT ?
"""
_PAGE_DOWN = """
SELECT public_id, item FROM items WHERE response = ? AND NOT is_output AND place < ?
ORDER BY place DESC LIMIT ?
"""
_FIND_ITEM = """
SELECT i.item, i.place, r.body FROM items AS i
JOIN responses AS r ON r.id = i.response JOIN threads AS t ON t.id = r.thread
WHERE i.public_id = ? AND t.expires_ns > ? AND r.public_id NOT GLOB 'draft:*'
ORDER BY i.id DESC LIMIT 1
"""
_EVENTS = """
SELECT sequence, event FROM events WHERE response = ? AND sequence > ? ORDER BY sequence LIMIT ?
"""
_LEAST = -1
BEYOND = 2**62  # of any number


def input_page(tx: Connection, response_id: str, page: PageOf, *, now_ns: int) -> ItemPage | None:
    """Raises :exc:`InvalidRequest` for an ``after`` that is not among them."""
    found = tx.execute(LINK, (response_id, now_ns)).fetchall()
    if not found:
        return None
    number = found[0][0]
    start = BEYOND if page.newest_first else _LEAST
    if page.after is not None:
        ((place,),) = tx.execute(_PLACE, (number, page.after)).fetchall()
        if place is None:
            raise unknown_after(page.after)
        start = msgspec.convert(place, int)
    query = _PAGE_DOWN if page.newest_first else _PAGE_UP
    rows = tx.execute(query, (number, start, page.limit + 1)).fetchall()
    return ItemPage([item_of(row) for row in rows[: page.limit]], len(rows) > page.limit)


def events_after(
    tx: Connection, response_id: str, after: int, *, now_ns: int
) -> list[tuple[int, bytes]]:
    found = tx.execute(LINK, (response_id, now_ns)).fetchall()
    if not found:
        return []
    rows = tx.execute(_EVENTS, (found[0][0], after, _EVENTS_AT_ONCE)).fetchall()
    return [(msgspec.convert(number, int), msgspec.convert(event, bytes)) for number, event in rows]


def chain(tx: Connection, response_id: str, now_ns: int) -> tuple[list[int], int] | None:
    """The numbers of a response and of those before it, the oldest first, and their bytes."""
    numbers: list[int] = []
    size = 0
    wanted: str | None = response_id
    while wanted is not None:
        rows = tx.execute(LINK, (wanted, now_ns)).fetchall()
        match rows:
            case [(int(number), None | str() as previous, int(bytes_), _, conversation)]:
                numbers.append(number)
                size += bytes_
                wanted = previous
                if isinstance(conversation, str):
                    before = conversations.size_before(tx, conversation, number)
                    if before is None:
                        return None
                    size += before
            case _:
                return None
        if len(numbers) > LONGEST_CHAIN or size > LARGEST_CONTEXT:
            raise TooLarge(
                f"the response continues more than {LONGEST_CHAIN} others, or more than "
                f"{LARGEST_CONTEXT} bytes; begin anew with a summary",
                limit=LONGEST_CHAIN,
            )
    return numbers[::-1], size


def items(tx: Connection, number: int) -> list[Item]:
    """What a response was asked with and what it said, as a model reads it.

    Before that, what was in its conversation.
    """
    ((body, conversation),) = tx.execute(_BODY, (number,)).fetchall()
    inputs: list[Item] = []
    if isinstance(conversation, str):
        inputs += conversations.items_before(tx, conversation, number)
    inputs += [item_of(row) for row in tx.execute(INPUTS, (number,)).fetchall()]
    shown = output_of(msgspec.convert(body, bytes))
    for row in tx.execute(_OUTPUTS, (number,)).fetchall():
        match row:
            case (int(), str(public_id), bytes(item)):
                inputs.append(Item(public_id, item))
            case (int(place), str(), None) if place < len(shown):
                inputs.append(shown[place])
    return inputs


def find_item(tx: Connection, item_id: str, now_ns: int) -> bytes | None:
    for row in tx.execute(_FIND_ITEM, (item_id, now_ns)).fetchall():
        match row:
            case (bytes(item), _, _):
                return item
            case (None, int(place), bytes(body)):
                return output_of(body)[place].json
    return conversations.find_anywhere(tx, item_id, now_ns=now_ns)
