"""A session's messages as a chat client shows them: bounded, and without what is too large.

Limits are OpenClaw's, because clients are built for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.storage.session_rows import MessageKind, RunStatus, Session, StoredMessage
from appliance.storage.sessions import SessionStore

DEFAULT_LIMIT = 200  # messages
MOST = 1_000
LARGEST = 6 * 1024 * 1024  # bytes of all messages together
LARGEST_MESSAGE = 128 * 1024  # bytes
LONGEST_TEXT = 12_000  # characters
MOST_CAUGHT_UP = 200  # messages; whoever missed more reads anew
OMITTED = "[chat.history omitted: message too large]"
_CUT = "\n...(truncated)..."
# Pictures make messages large that are small to show; so much is read for their sake.
_MOST_PICTURES = 16 * 1024 * 1024

Shown = dict[str, object]


class TenantWithStore(Protocol):
    async def sessions(self) -> SessionStore: ...


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """``next_offset`` continues towards the beginning, None there."""

    session: Session | None
    messages: list[Shown]
    total: int
    next_offset: int | None
    cursor: str  # for :func:`missed`


@dataclass(frozen=True, slots=True)
class OneMessage:
    message: Shown | None
    reason: str = ""  # why there is none: not_found, oversized


async def page(
    tenant: TenantWithStore,
    key: SessionKey,
    *,
    limit: int | None = None,
    offset: int = 0,
    session_id: str | None = None,
    max_chars: int | None = None,
) -> HistoryPage:
    """The newest messages, without the last ``offset`` ones; oldest first.

    Of ``session_id`` it may be an earlier incarnation of the same session. An
    unknown session has no messages.
    """
    store = await tenant.sessions()
    session = _session(store, key, session_id)
    if session is None:
        return HistoryPage(None, [], 0, None, "")
    limit = min(max(1, limit or DEFAULT_LIMIT), MOST)
    before = session.last_seq - offset + 1
    lines: list[StoredMessage] = []
    if before > session.first_seq:
        lines = store.messages(
            session.id, limit=limit, before_seq=before, omit_over=LARGEST_MESSAGE
        )
    messages = _fitting(_shown(store, lines, max_chars=max_chars or LONGEST_TEXT))
    first = lines[-len(messages)].seq if messages else before
    more = bool(lines) and first > session.first_seq
    return HistoryPage(
        session,
        messages,
        session.last_seq - session.first_seq + 1,
        session.last_seq - first + 1 if more else None,
        f"{session.id}:{session.last_seq}",
    )


async def missed(tenant: TenantWithStore, key: SessionKey, cursor: str) -> HistoryPage | None:
    """What came after ``cursor``; None if that is too much or of another incarnation."""
    store = await tenant.sessions()
    session = store.find(key)
    session_id, _, seq = cursor.rpartition(":")
    if session is None or session.id != session_id or not seq.isdecimal() or len(seq) > 18:
        return None
    behind = session.last_seq - int(seq)
    if not 0 <= behind <= MOST_CAUGHT_UP:
        return None
    lines: list[StoredMessage] = []
    if behind:
        lines = store.messages(
            session.id, limit=MOST_CAUGHT_UP, after_seq=int(seq), omit_over=LARGEST_MESSAGE
        )
    messages = _shown(store, lines, max_chars=LONGEST_TEXT)
    if len(_fitting(messages)) < len(messages):
        return None
    cursor = f"{session.id}:{session.last_seq}"
    return HistoryPage(session, messages, session.messages, None, cursor)


async def one(
    tenant: TenantWithStore, key: SessionKey, message_id: str, *, max_chars: int
) -> OneMessage:
    """One message of a session in full, as far as ``max_chars`` go."""
    store = await tenant.sessions()
    session = store.find(key)
    stored = store.message(message_id)
    if session is None or stored is None:
        return OneMessage(None, "not_found")
    # Ids are looked up in the whole store; the message must be of this session.
    same = store.messages(session.id, limit=1, before_seq=stored.seq + 1, omit_over=LARGEST_MESSAGE)
    if not same or same[-1].id != stored.id:
        return OneMessage(None, "not_found")
    shown = display(stored, max_chars=max_chars)
    if len(msgspec.json.encode(shown)) > LARGEST:
        return OneMessage(None, "oversized")
    return OneMessage(shown)


def display(stored: StoredMessage, *, max_chars: int = LONGEST_TEXT) -> Shown:
    """A stored message as clients read it."""
    message = dict(stored.message)
    if stored.omitted:
        content: list[Shown] = [{"type": "text", "text": OMITTED}]
    else:
        content = _content(message.get("content"), max_chars=max_chars)
        content += _calls(message.get("tool_calls"), max_chars)
    own: Shown = {"id": stored.id, "seq": stored.seq}
    if stored.kind is not MessageKind.MESSAGE:
        own["kind"] = stored.kind.value
    shown: Shown = {
        "role": message.get("role", stored.role),
        "content": content,
        "timestamp": to_ms(stored.created_at),
        "__openclaw": own,
    }
    if shown["role"] == "tool":
        shown |= {
            "role": "toolResult",
            "toolCallId": message.get("tool_call_id", ""),
            "toolName": message.get("name", ""),
            "isError": bool(stored.meta.get("isError")),
        }
    for name in ("provider", "model", "usage", "stopReason", "idempotencyKey", "errorMessage"):
        if name in stored.meta:
            shown[name] = stored.meta[name]
    if "aborted" in stored.meta or stored.status is RunStatus.CANCELLED:
        shown["openclawAbort"] = {
            "aborted": True,
            "origin": stored.meta.get("aborted", "rpc"),
            "runId": stored.meta.get("idempotencyKey", stored.run or ""),
        }
    return shown


def _session(store: SessionStore, key: SessionKey, session_id: str | None) -> Session | None:
    if session_id is None:
        return store.find(key)
    session = store.find_by_id(session_id)
    return session if session is not None and session.key == key.short else None


def _shown(store: SessionStore, lines: Sequence[StoredMessage], *, max_chars: int) -> list[Shown]:
    left = _MOST_PICTURES
    found: list[Shown] = []
    for line in lines:
        stored = line
        if line.omitted and line.bytes <= left:
            left -= line.bytes
            stored = store.message(line.id) or line
        shown = display(stored, max_chars=max_chars)
        if len(msgspec.json.encode(shown)) > LARGEST_MESSAGE:
            shown["content"] = [{"type": "text", "text": OMITTED}]
        found.append(shown)
    return found


def _fitting(messages: list[Shown]) -> list[Shown]:
    """The latest of ``messages`` that go into one answer."""
    left = LARGEST
    for number in range(len(messages) - 1, -1, -1):
        left -= len(msgspec.json.encode(messages[number]))
        if left < 0:
            return messages[number + 1 :]
    return messages


def _content(content: object, *, max_chars: int) -> list[Shown]:
    if isinstance(content, str):
        return [{"type": "text", "text": _cut(content, max_chars)}]
    if not isinstance(content, list):
        return []
    return [_part(part, max_chars) for part in content if isinstance(part, Mapping)]


def _calls(calls: object, max_chars: int) -> list[Shown]:
    """The tools that a message of the assistant calls."""
    found: list[Shown] = []
    for call in calls if isinstance(calls, list) else ():
        match call:
            case {"id": call_id, "function": {"name": name, "arguments": str(arguments)}}:
                shown: Shown = {"type": "toolCall", "id": call_id, "name": name}
                shown["arguments"] = _arguments(arguments, max_chars)
                found.append(shown)
    return found


def _arguments(text: str, max_chars: int) -> object:
    if len(text) > max_chars:
        return {"truncated": _cut(text, max_chars)}
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return {"text": text}


def _part(part: Mapping[str, object], max_chars: int) -> Shown:
    match part.get("type"):
        case "text":
            text = part.get("text")
            return {"type": "text", "text": _cut(text if isinstance(text, str) else "", max_chars)}
        case "image_url":
            link = part.get("image_url")
            url = link.get("url") if isinstance(link, Mapping) else ""
            return _picture(url if isinstance(url, str) else "")
        case _:
            return dict(part)


def _picture(url: str) -> Shown:
    if not url.startswith("data:"):
        return {"type": "image", "url": url}
    mime, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "image", "mimeType": mime, "omitted": True, "bytes": len(data) * 3 // 4}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + _CUT
