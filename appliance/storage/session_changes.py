"""How a session comes to be, changes and ends. All of it within the caller's transaction."""

from collections.abc import Mapping

import apsw
from msgspec import UnsetType

from appliance.model.errors import AlreadyExists, InvalidRequest, NotFound
from appliance.model.ids import new_id
from appliance.model.session_keys import SessionKey
from appliance.storage.connection import Connection
from appliance.storage.session_rows import (
    SessionRow,
    decode_object,
    encode,
    live_row,
    require_unicode,
    session_row,
)

LARGEST_SETTINGS = 64 * 1024  # bytes of JSON

_OPEN = """
INSERT INTO sessions (public_id, key, agent, title, model, created_ns, updated_ns)
VALUES (?, ?, ?, '', ?, ?, ?) ON CONFLICT (key) DO NOTHING
"""
_ARCHIVE = """
UPDATE sessions SET key = 'archived:' || public_id, live_key = key, archived_ns = ?,
                    archive_reason = ?
WHERE key = ? AND archived_ns IS NULL
"""
_SUCCEED = """
INSERT INTO sessions (public_id, key, agent, title, model, created_ns, updated_ns, label,
                      settings, facts)
SELECT ?, live_key, agent, '', model, ?, ?, label, settings, facts FROM sessions WHERE id = ?
"""


def open_session(
    tx: Connection, key: SessionKey, *, model: str, facts: Mapping[str, object], now_ns: int
) -> SessionRow:
    tx.execute(_OPEN, (new_id("ses"), key.short, key.agent, model, now_ns, now_ns))
    if facts:
        note_facts(tx, key, facts)
    return require(tx, key)


def patch(
    tx: Connection,
    key: SessionKey,
    *,
    label: str | UnsetType | None,
    settings: Mapping[str, object | None],
    now_ns: int,
) -> SessionRow:
    row = require(tx, key)
    if not isinstance(label, UnsetType):
        _set_label(tx, row, label)
    merged = _merged(row.settings, settings, field="settings")
    tx.execute(
        "UPDATE sessions SET settings = ?, updated_ns = ? WHERE id = ?",
        (merged, now_ns, row.number),
    )
    return require(tx, key)


def note_facts(tx: Connection, key: SessionKey, facts: Mapping[str, object | None]) -> bool:
    row = live_row(tx, key.short)
    if row is None:
        return False
    merged = _merged(row.facts, facts, field="facts")
    if merged != row.facts:
        tx.execute("UPDATE sessions SET facts = ? WHERE id = ?", (merged, row.number))
    return True


def reset(tx: Connection, key: SessionKey, *, reason: str, now_ns: int) -> SessionRow:
    row = live_row(tx, key.short)
    if row is None:
        return open_session(tx, key, model="", facts={}, now_ns=now_ns)
    # First the old one gives up key and label, then the new one takes them.
    archive(tx, key, reason=reason, now_ns=now_ns)
    tx.execute(_SUCCEED, (new_id("ses"), now_ns, now_ns, row.number))
    return require(tx, key)


def archive(tx: Connection, key: SessionKey, *, reason: str, now_ns: int) -> SessionRow | None:
    row = live_row(tx, key.short)
    if row is None:
        return None
    tx.execute(_ARCHIVE, (now_ns, reason, key.short))
    return session_row(tx, "WHERE id = ?", row.number)


def delete(tx: Connection, key: SessionKey, *, keep_transcript: bool) -> bool:
    if keep_transcript:
        row = live_row(tx, key.short)
        if row is None:
            return False
        # Nobody says when it is; it was last used then.
        return archive(tx, key, reason="deleted", now_ns=row.updated_ns) is not None
    tx.execute("DELETE FROM sessions WHERE key = ?", (key.short,))
    return tx.changes() == 1


def delete_by_id(tx: Connection, public_id: str) -> bool:
    tx.execute("DELETE FROM sessions WHERE public_id = ?", (public_id,))
    return tx.changes() == 1


def require(tx: Connection, key: SessionKey) -> SessionRow:
    row = live_row(tx, key.short)
    if row is None:
        raise NotFound(f"No session found: {key.short}")
    return row


def _set_label(tx: Connection, row: SessionRow, label: str | None) -> None:
    if label is not None:
        require_unicode(label, field="label")
    try:
        tx.execute("UPDATE sessions SET label = ? WHERE id = ?", (label, row.number))
    except apsw.ConstraintError:
        raise AlreadyExists(f"label already in use: {label}") from None


def _merged(stored: str, changes: Mapping[str, object | None], *, field: str) -> str:
    """The stored JSON object with ``changes``; what is None is taken out."""
    if not changes:
        return stored
    merged = {**decode_object(stored), **changes}
    kept = {name: value for name, value in merged.items() if value is not None}
    text = encode(kept, field=field)
    if len(text) > LARGEST_SETTINGS:
        raise InvalidRequest.at(
            field, f"together they exceed {LARGEST_SETTINGS} bytes", "remove some"
        )
    return text
