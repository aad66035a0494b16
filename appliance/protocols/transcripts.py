"""OpenClaw's transcripts: a conversation as lines of JSON.

The first line is the session's header; every other is an entry with an ``id``
and the ``parentId`` it follows, so that the whole is a tree. One branch of it
is the conversation as it stands. Entries of kinds that we do not know keep
their place and their content.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.protocols.json_body import decode

VERSION = 3  # of the format: trees, with the names of entries as they are now
LONGEST_LINE = 4 * 1024 * 1024
MOST_ENTRIES = 100_000
_LONGEST_ID = 256
_REMEDY = "export the session again"

MESSAGE = "message"
COMPACTION = "compaction"
_LEAF = "leaf"
# What can be the end of the conversation. Other entries are notes beside it.
_KNOWN = frozenset(
    {
        MESSAGE,
        COMPACTION,
        "branch_summary",
        "custom",
        "custom_message",
        "label",
        "model_change",
        "reset",
        "session_info",
        "thinking_level_change",
    }
)

_HEADER_KEYS = frozenset({"type", "version", "id", "timestamp", "cwd"})
_ENTRY_KEYS = frozenset({"type", "id", "parentId", "timestamp"})
# JavaScript cuts texts between the halves of a pair and writes the half as an
# escape. The pair and any other escape stand first, so that they are passed over.
_HALF_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?!u)."
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


@dataclass(frozen=True, slots=True)
class Header:
    """``timestamp`` is ISO 8601 text, here and in :class:`Entry`."""

    id: str
    timestamp: str = ""
    cwd: str = ""
    version: int | None = VERSION
    others: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """``content`` holds all members but the four named here."""

    type: str
    id: str
    parent_id: str | None
    timestamp: str
    content: Mapping[str, object]

    @property
    def message(self) -> Mapping[str, object] | None:
        """``{role, content, …}``, if this is a message."""
        message = self.content.get("message")
        return message if self.type == MESSAGE and isinstance(message, dict) else None


@dataclass(frozen=True, slots=True)
class Transcript:
    """``truncated``: the last line was broken off, and is left out."""

    header: Header
    entries: tuple[Entry, ...]
    truncated: bool = False

    def branch(self) -> list[Entry]:
        """The conversation as it stands: from the first entry to the leaf.

        The leaf is the latest entry of a known kind that was not put aside, or
        what a later ``leaf`` entry points to. An entry whose parent is not in
        the file before it follows the leaf of that moment.
        """
        parents: dict[str, str | None] = {}
        leaf: str | None = None
        for entry in self.entries:
            if entry.type == _LEAF:
                target = entry.content.get("targetId")
                if target is None or (isinstance(target, str) and target in parents):
                    parents[entry.id] = leaf = target
                continue
            parent = entry.parent_id
            parents[entry.id] = parent if parent is None or parent in parents else leaf
            if entry.type in _KNOWN and entry.content.get("appendMode") != "side":
                leaf = entry.id
        # Parents stand before their children, so this ends.
        path: set[str] = set()
        while leaf is not None:
            path.add(leaf)
            leaf = parents[leaf]
        return [entry for entry in self.entries if entry.id in path and entry.type != _LEAF]


def text_of(message: Mapping[str, object]) -> str:
    """What a message says; pictures, thoughts and tool calls are left out."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part for part in content if isinstance(part, dict) and part.get("type") == "text")
    texts = (part.get("text") for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))


def encode(header: Header, entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the transcript line by line, each with its end."""
    first: dict[str, object] = {"type": "session"}
    if header.version is not None:
        first["version"] = header.version
    first |= {"id": header.id, "timestamp": header.timestamp, "cwd": header.cwd}
    yield _line(first | {k: v for k, v in header.others.items() if k not in _HEADER_KEYS})
    for entry in entries:
        yield _line(
            {
                "type": entry.type,
                "id": entry.id,
                "parentId": entry.parent_id,
                "timestamp": entry.timestamp,
            }
            | {k: v for k, v in entry.content.items() if k not in _ENTRY_KEYS}
        )


def _line(members: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(members) + b"\n"


def decode_transcript(lines: Iterable[bytes]) -> Transcript:
    """Read a transcript; raise :exc:`InvalidRequest` naming the line that cannot be used."""
    header: Header | None = None
    entries: list[Entry] = []
    seen: set[str] = set()
    leaf: str | None = None
    broken: InvalidRequest | None = None
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_LINE:
            raise _refuse(number, f"longer than {LONGEST_LINE} bytes", "shorten the entry")
        if not line.strip():
            continue
        if broken is not None:
            raise broken
        try:
            members = _parse(line, number)
        except InvalidRequest as exc:
            broken = exc  # the last line may break off where its writer died
            continue
        if header is None:
            header = _read_header(members, number)
            continue
        if len(entries) == MOST_ENTRIES:
            raise _refuse(number, f"more than {MOST_ENTRIES} entries", "split the transcript")
        entry = _read_entry(members, number, leaf)
        if entry.id in seen:
            raise _refuse(number, f"the id {entry.id[:80]!r} appears twice", _REMEDY)
        seen.add(entry.id)
        entries.append(entry)
        if entry.type in _KNOWN and entry.content.get("appendMode") != "side":
            leaf = entry.id
    if header is None:
        raise broken or _refuse(1, "there is no session header", "send the whole file")
    return Transcript(header, tuple(entries), truncated=broken is not None)


def _parse(line: bytes, number: int) -> object:
    line = line.strip()
    try:
        try:
            return decode(line)
        except InvalidRequest:
            mended = _HALF_PAIR.sub(_mend, line)
            if mended == line:
                raise
            return decode(mended)
    except InvalidRequest as exc:
        raise _refuse(number, exc.detail) from None


def _mend(found: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if found[1] else found[0]


def _read_header(members: object, number: int) -> Header:
    if type(members) is not dict or members.get("type") != "session":
        raise _refuse(number, "no session header", "the first line has the type session")
    version = members.get("version")
    if version is not None and type(version) is not int:
        raise _refuse(number, "version must be an integer", _REMEDY)
    return Header(
        id=_id(members, number),
        timestamp=_text(members, "timestamp", number),
        cwd=_text(members, "cwd", number),
        version=version,
        others={k: v for k, v in members.items() if k not in _HEADER_KEYS},
    )


def _read_entry(members: object, number: int, leaf: str | None) -> Entry:
    """``leaf`` is what an entry follows that does not say what it follows."""
    if type(members) is not dict:
        raise _refuse(number, "not a JSON object", _REMEDY)
    kind = members.get("type")
    if type(kind) is not str or not kind or kind == "session":
        raise _refuse(number, "type must name the kind of entry", _REMEDY)
    parent = members.get("parentId", leaf)
    if parent is not None and type(parent) is not str:
        raise _refuse(number, "parentId must be a string or null", _REMEDY)
    if kind == MESSAGE:
        _check_message(members.get("message"), number)
    return Entry(
        type=kind,
        # The oldest files have no ids: one line follows the other.
        id=_id(members, number) if "id" in members else f"line-{number}",
        parent_id=parent,
        timestamp=_text(members, "timestamp", number),
        content={k: v for k, v in members.items() if k not in _ENTRY_KEYS},
    )


def _check_message(message: object, number: int) -> None:
    if type(message) is not dict or type(message.get("role")) is not str:
        raise _refuse(number, "message must be an object with a role", _REMEDY)
    content = message.get("content")
    if content is None or type(content) is str:
        return
    if type(content) is not list or not all(
        type(part) is dict and type(part.get("type")) is str for part in content
    ):
        raise _refuse(number, "content must be a string or a list of typed parts", _REMEDY)


def _id(members: Mapping[str, object], number: int) -> str:
    value = members.get("id")
    if type(value) is not str or not 0 < len(value) <= _LONGEST_ID:
        raise _refuse(number, f"id must have 1 to {_LONGEST_ID} characters", _REMEDY)
    return value


def _text(members: Mapping[str, object], name: str, number: int) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if type(value) is not str:
        raise _refuse(number, f"{name} must be a string", _REMEDY)
    return value


def _refuse(number: int, reason: str, remedy: str = "") -> InvalidRequest:
    return InvalidRequest.at(f"line {number}", reason, remedy)
