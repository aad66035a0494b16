"""Writing responses down: within the caller's transaction.

A response with very many items is written a few at a time, so that the loop is
not held up: as a draft that nobody can find, until the last of it is there. It
is removed in the same way, as a draft again.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec

from appliance.storage import conversations, response_reading
from appliance.storage.connection import Connection
from appliance.storage.response_rows import (
    ENDS_WELL,
    Item,
    NewResponse,
    ResponseState,
    ResponseStatus,
    StoredResponse,
    item_of,
    output_of,
)

_INSERT = """
INSERT INTO responses (public_id, thread, status, background, model, previous, conversation,
                       session, size, created_ns, ended_ns, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id
"""
_INSERT_ITEM = """
INSERT INTO items (response, is_output, place, public_id, item) VALUES (?, ?, ?, ?, ?)
"""
_INSERT_EVENT = "INSERT OR IGNORE INTO events (response, sequence, event) VALUES (?, ?, ?)"
_COUNT_EVENTS = "UPDATE responses SET events = events + ? WHERE id = ? AND events + ? <= ?"
_NUMBER = "SELECT id, conversation, thread FROM responses WHERE public_id = ?"
_UPDATE = """
UPDATE responses SET status = ?, body = ?, size = size - length(body) + ?,
                     ended_ns = coalesce(ended_ns, ?)
WHERE id = ?
"""
_LAST_EVENT = "SELECT max(sequence) FROM events WHERE response = ?"
_FORGET_OUTPUT = "DELETE FROM items WHERE response = ? AND is_output"
_COUNT_INPUTS = "SELECT count(*) FROM items WHERE response = ? AND NOT is_output"
_DRAFT, _AFTER_DRAFTS = "draft:", "draft;"  # what their ids begin with, and what sorts behind
_DRAFTS = "SELECT id FROM responses WHERE public_id >= ? AND public_id < ?"
_HIDE = "UPDATE responses SET public_id = ? WHERE id = ?"
_REMOVE_EVENTS = """
DELETE FROM events WHERE response = ? AND sequence IN (
    SELECT sequence FROM events WHERE response = ? LIMIT ?
)
"""
_REMOVE_ITEMS = """
DELETE FROM items WHERE id IN (SELECT id FROM items WHERE response = ? LIMIT ?)
"""
_REMOVE = "DELETE FROM responses WHERE id = ?"
_PUBLISH = "UPDATE responses SET public_id = ?, status = ? WHERE id = ?"


def number_of(tx: Connection, response_id: str) -> tuple[int, str | None, int] | None:
    for row in tx.execute(_NUMBER, (response_id,)).fetchall():
        match row:
            case (int(number), None | str() as conversation, int(thread)):
                return number, conversation, thread
    return None


def thread_of(
    tx: Connection, previous: str | None, conversation: str | None, now_ns: int
) -> int | None:
    """The thread that a response continues, None if it begins one."""
    if conversation is not None:
        return conversations.thread_of(tx, conversation, now_ns=now_ns)
    if previous is None:
        return None
    rows = tx.execute(response_reading.LINK, (previous, now_ns)).fetchall()
    return msgspec.convert(rows[0][3], int) if rows else None


def insert(tx: Connection, response: NewResponse, thread: int, now_ns: int) -> None:
    """Write down a response with all of its items; a conversation gets them if it is complete."""
    number = _insert_row(tx, response, thread, now_ns)
    add_inputs(tx, number, list(enumerate(response.inputs)))
    if response.status.is_over:
        _add_outputs(tx, number, response.state)


def draft(tx: Connection, response: NewResponse, thread: int, now_ns: int) -> int:
    """Begin to write down a response; return the draft's number.

    It takes the room of the whole, and nobody could guess its id.
    """
    unfinished = replace(response, id=_draft_name(), status=ResponseStatus.QUEUED)
    return _insert_row(tx, unfinished, thread, now_ns)


def _draft_name() -> str:
    return _DRAFT + secrets.token_hex(16)


def hide(tx: Connection, number: int) -> None:
    """Make a draft of a response that is to go."""
    tx.execute(_HIDE, (_draft_name(), number))


def in_steps(items: Sequence[Item], *, most: int) -> Iterator[Sequence[tuple[int, Item]]]:
    """The items with their places, so many at a time.

    In the order of their ids: each step touches its own pages of the index of
    ids, or every one of them would write nearly all of that anew.
    """
    placed = sorted(enumerate(items), key=lambda each: each[1].id)
    return (placed[start : start + most] for start in range(0, len(placed), most))


def add_inputs(tx: Connection, number: int, placed: Sequence[tuple[int, Item]]) -> None:
    """Add what a response was asked with, or some of it; each item with its place."""
    rows = [(number, 0, place, item.id, item.json) for place, item in placed]
    tx.executemany(_INSERT_ITEM, rows)


def publish(tx: Connection, number: int, response: NewResponse, now_ns: int) -> None:
    """Make a draft that has all of its inputs the response."""
    tx.execute(_PUBLISH, (response.id, response.status.value, number))
    if response.status.is_over:
        finish(tx, number, response.state, now_ns=now_ns)


def remove_some(tx: Connection, number: int, *, most: int) -> bool:
    """Remove so many rows of a draft, or what is left of it; True while there is more."""
    if conversations.take_back(tx, number):
        return True
    tx.execute(_REMOVE_EVENTS, (number, number, most))
    if tx.changes() >= most:
        return True
    tx.execute(_REMOVE_ITEMS, (number, most))
    if tx.changes() >= most:
        return True
    tx.execute(_REMOVE, (number,))
    return False


def drafts(tx: Connection) -> list[int]:
    """Their numbers; where nothing is under way they are those of a process that died."""
    rows = tx.execute(_DRAFTS, (_DRAFT, _AFTER_DRAFTS)).fetchall()
    return [msgspec.convert(number, int) for (number,) in rows]


def _insert_row(tx: Connection, response: NewResponse, thread: int, now_ns: int) -> int:
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
    return msgspec.convert(number, int)


def finish(tx: Connection, number: int, state: ResponseState, *, now_ns: int) -> None:
    """Write down how far a response has come; what it ends with goes into its conversation.

    Its events are not looked at.
    """
    ended_ns = now_ns if state.status.is_over else None
    tx.execute(_UPDATE, (state.status.value, state.body, len(state.body), ended_ns, number))
    tx.execute(_FORGET_OUTPUT, (number,))
    _add_outputs(tx, number, state)


def _add_outputs(tx: Connection, number: int, state: ResponseState) -> None:
    shown = output_of(state.body)
    rows = []
    for place, item in enumerate(state.outputs or shown):
        same = place < len(shown) and shown[place].json == item.said
        rows.append((number, 1, place, item.id, None if same else item.said))
    tx.executemany(_INSERT_ITEM, rows)
    if state.status in ENDS_WELL:
        conversation = _conversation_of(tx, number)
        if conversation is not None:
            inputs: list[Item] = []
            if not conversations.have_arrived(tx, number):
                rows_in = tx.execute(response_reading.INPUTS, (number,)).fetchall()
                inputs = [item_of(row) for row in rows_in]
            said = {item.id: item.said for item in state.outputs}
            added = [Item(item.id, item.json, said.get(item.id)) for item in shown]
            conversations.append(tx, conversation, [*inputs, *added])


def many_for_conversation(tx: Connection, response_id: str) -> tuple[int, str, int] | None:
    """The number, conversation and inputs of a response that takes steps to go in there."""
    found = number_of(tx, response_id)
    if found is None or found[1] is None:
        return None
    ((count,),) = tx.execute(_COUNT_INPUTS, (found[0],)).fetchall()
    inputs = msgspec.convert(count, int)
    return (found[0], found[1], inputs) if inputs > conversations.ITEMS_AT_ONCE else None


def _conversation_of(tx: Connection, number: int) -> str | None:
    query = "SELECT conversation FROM responses WHERE id = ?"
    ((conversation,),) = tx.execute(query, (number,)).fetchall()
    return msgspec.convert(conversation, str | None)


def add_events(
    tx: Connection, number: int, events: Sequence[tuple[int, bytes]], *, most: int
) -> bool:
    size = sum(len(event) for _, event in events)
    tx.execute(_COUNT_EVENTS, (size, number, size, most))
    if not tx.changes():
        return False
    tx.executemany(_INSERT_EVENT, [(number, *event) for event in events])
    return True


def interrupt(tx: Connection, response: StoredResponse, *, now_ns: int) -> None:
    """Mark a response failed that was under way when its process ended."""
    number, _, _ = number_of(tx, response.id) or (0, None, 0)
    body, error = _interrupted(response.body)
    finish(tx, number, ResponseState(status=ResponseStatus.FAILED, body=body), now_ns=now_ns)
    if response.has_events:
        ((last,),) = tx.execute(_LAST_EVENT, (number,)).fetchall()
        sequence = msgspec.convert(last, int) + 1
        for event in (error, {"type": "response.failed", "response": msgspec.Raw(body)}):
            text = msgspec.json.encode({**event, "sequence_number": sequence})
            tx.execute(_INSERT_EVENT, (number, sequence, text))
            sequence += 1


def _interrupted(body: bytes) -> tuple[bytes, dict[str, object]]:
    """The same response, failed, and the event that says why."""
    told = {
        "code": "interrupted",
        "message": "the gateway was started again while it was answering",
    }
    members = msgspec.json.decode(body, type=dict[str, object])
    output = members.get("output")
    for item in output if isinstance(output, list) else ():
        if item.get("status") == "in_progress":
            item["status"] = "incomplete"
    body = msgspec.json.encode({**members, "status": "failed", "error": told})
    error = {"type": "server_error", "param": None, **told}
    return body, {"type": "error", "param": None, **told, "error": error}
