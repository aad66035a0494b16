"""The words of a session: how it began, how it went on last, and where one of them stands."""

from collections.abc import Mapping, Sequence
from contextlib import closing

import msgspec

from appliance.model.periods import from_ns
from appliance.model.session_keys import SessionKey
from appliance.storage.connection import Connection
from appliance.storage.session_rows import (
    MessageKind,
    PreviewItem,
    SearchHit,
    SessionPreview,
    encode,
    live_row,
)
from appliance.storage.transcripts import newest

# A larger message holds pictures, and reading it costs more than its words are worth.
LARGEST_SHOWN = 256 * 1024  # bytes
_MOST_SEARCHED = 200_000  # newest messages of the tenant
_AROUND = 80  # characters before and after what was found

SEARCH = """
SELECT coalesce(s.live_key, s.key), s.public_id, m.public_id, m.id, m.seq, m.role, m.message,
       m.created_ns
FROM messages AS m JOIN sessions AS s ON s.id = m.session
WHERE m.id > (SELECT max(id) FROM messages) - ? AND m.kind = 'message'
  AND s.archived_ns IS NULL AND m.seq >= s.first_seq
  AND instr(lower(m.message), lower(?))
  AND (? IS NULL OR s.agent = ?)
  AND (? IS NULL OR s.key IN (SELECT value FROM json_each(?)))
ORDER BY m.id DESC
"""
_FIRST_SAID = """
SELECT CASE WHEN octet_length(message) <= ? THEN message END FROM messages
WHERE session = ? AND seq >= ? AND role = 'user' AND kind = 'message' ORDER BY seq LIMIT 1
"""


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Said(msgspec.Struct):
    content: str | list[_Part] | None = None


_decode_said = msgspec.json.Decoder(_Said).decode


def first_user_text(tx: Connection, key: SessionKey) -> str:
    row = live_row(tx, key.short)
    if row is None:
        return ""
    for (message,) in tx.execute(
        _FIRST_SAID, (LARGEST_SHOWN, row.number, row.first_seq)
    ).fetchall():
        return "" if message is None else _said(str(message))
    return ""


def preview(tx: Connection, key: SessionKey, *, limit: int, max_chars: int) -> SessionPreview:
    row = live_row(tx, key.short)
    if row is None:
        return SessionPreview(key.short, found=False)
    items: list[PreviewItem] = []
    for line in newest(tx, row, largest=LARGEST_SHOWN):
        if len(items) >= limit:
            break
        if line.kind is MessageKind.COMPACTION or line.message is None:
            continue
        if text := " ".join(_said(line.message).split()):
            items.append(PreviewItem(line.role, cut(text, max_chars)))
    return SessionPreview(key.short, found=True, items=tuple(reversed(items)))


def search(
    tx: Connection, query: str, *, agent: str | None, keys: Sequence[SessionKey], limit: int
) -> list[SearchHit]:
    # As it would stand in the JSON; what it is found in is looked at once more.
    escaped = msgspec.json.encode(query).decode()[1:-1]
    wanted = msgspec.json.encode([key.short for key in keys]).decode() if keys else None
    hits: list[SearchHit] = []
    values = (_MOST_SEARCHED, escaped, agent, agent, wanted, wanted)
    with closing(tx.execute(SEARCH, values)) as cursor:
        for each in cursor:
            hit = _hit(msgspec.convert(each, _HitRow), query)
            if hit is not None:
                hits.append(hit)
            if len(hits) >= limit:
                break
    return hits


def message_text(message: Mapping[str, object]) -> str:
    """The words of a message: its content, or the texts among its parts."""
    return _said(encode(message))


def cut(text: str, max_chars: int) -> str:
    """At most ``max_chars`` characters of ``text``, the last one a "…" if there were more."""
    return text if len(text) <= max_chars else f"{text[: max_chars - 1].rstrip()}…"


class _HitRow(msgspec.Struct, array_like=True):
    key: str
    session_id: str
    public_id: str | None
    number: int
    seq: int
    role: str
    message: str
    created_ns: int


def _hit(row: _HitRow, query: str) -> SearchHit | None:
    text = " ".join(_said(row.message).split())
    at = text.lower().find(" ".join(query.split()).lower())
    if at < 0:
        return None  # it stands in a name or an address
    return SearchHit(
        key=row.key,
        session_id=row.session_id,
        message_id=row.public_id or f"msg_n{row.number}",
        seq=row.seq,
        role=row.role,
        text=text[max(at - _AROUND, 0) : at + len(query) + _AROUND],
        created_at=from_ns(row.created_ns),
    )


def _said(message: str) -> str:
    """The words of a message; "" for one that is built otherwise."""
    try:
        content = _decode_said(message).content
    except msgspec.ValidationError:
        return ""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content if part.text)
