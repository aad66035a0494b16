"""Recordings of terminals in asciicast's second version: a line of JSON for each event.

The first line is an object that describes the recording; every other one is
``[seconds, code, data]``: ``o`` is output, ``r`` a new size as ``COLSxROWS``,
``m`` a marker. What was typed is not recorded. A recording that was brought to
an end has a marker that begins with :data:`END` as its last line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

VERSION = 2
MEDIA_TYPE = "application/x-asciicast"
END = "end: "
OWN = "openclawmu"  # the member of the header that is ours; players pass over it


class Code(StrEnum):
    OUTPUT = "o"
    RESIZE = "r"
    MARKER = "m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    columns: int
    rows: int
    timestamp: int  # seconds since 1970
    title: str = ""
    program: str = ""
    own: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    seconds: float
    code: str
    data: str


def encode_header(header: Header) -> bytes:
    members: dict[str, Any] = {
        "version": VERSION,
        "width": header.columns,
        "height": header.rows,
        "timestamp": header.timestamp,
        "env": {"SHELL": header.program, "TERM": "xterm-256color"},
    }
    if header.title:
        members["title"] = header.title
    if header.own:
        members[OWN] = dict(header.own)
    return msgspec.json.encode(members) + b"\n"


def encode_event(seconds: float, code: Code, data: str) -> bytes:
    # Microseconds: no player is finer, and a float of all digits is twice as long.
    return b'[%.6f,"%b",%b]\n' % (seconds, code.value.encode(), msgspec.json.encode(data))


def encode_size(seconds: float, columns: int, rows: int) -> bytes:
    return encode_event(seconds, Code.RESIZE, f"{columns}x{rows}")


def encode_end(seconds: float, reason: str) -> bytes:
    return encode_event(seconds, Code.MARKER, END + reason)


def read_header(line: bytes) -> Header | None:
    """The header in the first line of a recording, None if it is none."""
    try:
        value = msgspec.json.decode(line, type=_Header)
    except msgspec.MsgspecError:
        return None
    if value.version != VERSION:
        return None
    return Header(
        columns=value.width,
        rows=value.height,
        timestamp=int(value.timestamp),
        title=value.title,
        program=value.env.get("SHELL", ""),
        own=value.openclawmu,
    )


def read_event(line: bytes) -> Event | None:
    """The event in a line, None if there is none: the last may be cut off."""
    try:
        seconds, code, data = msgspec.json.decode(line, type=tuple[float, str, str])
    except msgspec.MsgspecError:
        return None
    return Event(seconds, code, data)


def end_reason(event: Event | None) -> str | None:
    """Why a recording ended whose last event this is; None if it was cut off."""
    if event is None or event.code != Code.MARKER or not event.data.startswith(END):
        return None
    return event.data.removeprefix(END)


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    width: int
    height: int
    timestamp: float = 0
    title: str = ""
    env: dict[str, str] = {}
    openclawmu: dict[str, str] | None = None
