"""A part of a text file, or a picture, as a model can read it. Everything blocks."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from appliance.model.chat_attachments import LARGEST_IMAGE, Part, image_parts
from appliance.model.pictures import picture_type
from appliance.services.tools.base import ToolFailed
from appliance.storage.workspace import Workspace

KIB = 1024
MIB = 1024 * KIB
MOST_LINES = 2000
MOST_BYTES = 50 * KIB
MOST_SCANNED = 64 * MIB  # bytes that are looked through to find and to count lines
_SNIFFED = 8 * KIB
_PIECE = 256 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class TextWindow:
    """Lines ``first`` to ``last`` of a file. ``total`` is None where nobody counted to the end."""

    text: str
    first: int
    last: int
    total: int | None
    size: int
    is_cut: bool  # the last line goes on


@dataclass(frozen=True, slots=True)
class Picture:
    mime: str
    size: int
    parts: tuple[Part, ...]  # empty if it was not wanted


def read_window(
    workspace: Workspace,
    relative: str,
    *,
    first: int = 1,
    lines: int = MOST_LINES,
    with_picture: bool = True,
) -> TextWindow | Picture:
    """Raises :exc:`ToolFailed` for what is neither text nor a picture, or does not go so far."""
    with os.fdopen(workspace.open_file(relative), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        head = os.pread(file.fileno(), _SNIFFED, 0)
        if (mime := picture_type(head)) is not None:
            return _read_picture(file, mime, size, wanted=with_picture)
        if b"\0" in head:
            raise ToolFailed(
                f"it is a binary file of {size} bytes, which cannot be shown as text; "
                "look at it with exec (file, xxd, strings) if you must"
            )
        return _read_text(file, size, first, min(lines, MOST_LINES))


def _read_text(file: BinaryIO, size: int, first: int, lines: int) -> TextWindow:
    skip = first - 1
    found = bytearray()
    breaks = 0  # line breaks so far
    scanned = 0
    last_byte = b"\n"
    for piece in _pieces(file):
        here = piece.count(b"\n")
        if len(found) <= MOST_BYTES and breaks + here >= skip:
            # What lies behind the limit is dropped below; a piece more does not matter.
            found += piece[_after(piece, skip - breaks) :]
        breaks += here
        last_byte = piece[-1:]
        scanned += len(piece)
    ended = not os.pread(file.fileno(), 1, scanned)
    total = breaks + (last_byte != b"\n")
    if first > max(total, 1):
        reach = (
            f"it has {total} lines" if ended else f"its first {MOST_SCANNED // MIB} MB end before"
        )
        raise ToolFailed(f"there is no line {first}: {reach}")
    shown, is_cut = _window(bytes(found), lines)
    count = shown.count(b"\n") + (not shown.endswith(b"\n") and bool(shown))
    return TextWindow(
        text=_decoded(shown),
        first=first,
        last=first + max(count, 1) - 1,
        total=total if ended else None,
        size=size,
        is_cut=is_cut,
    )


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    left = MOST_SCANNED
    while left > 0 and (piece := file.read(min(_PIECE, left))):
        left -= len(piece)
        yield piece


def _after(piece: bytes, breaks: int) -> int:
    """Where in ``piece`` the line after so many line breaks begins."""
    at = 0
    for _ in range(breaks):
        at = piece.index(b"\n", at) + 1
    return at


def _window(found: bytes, lines: int) -> tuple[bytes, bool]:
    """The first ``lines`` lines of at most ``MOST_BYTES`` bytes; whether the last is cut."""
    kept = found[:MOST_BYTES]
    end = 0
    for _ in range(lines):
        at = kept.find(b"\n", end)
        if at < 0:
            break
        end = at + 1
    else:
        return kept[:end], False
    if len(found) <= MOST_BYTES:
        return kept, False
    # The line that does not fit any more is left for the next window, unless it is the first.
    return (kept[:end], False) if end else (kept, True)


def _decoded(shown: bytes) -> str:
    text = shown.decode(errors="replace").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\0", "\ufffd")


def _read_picture(file: BinaryIO, mime: str, size: int, *, wanted: bool) -> Picture:
    if not wanted:
        return Picture(mime, size, ())
    data = bytearray()
    while piece := file.read(LARGEST_IMAGE + 1 - len(data)):
        data += piece
    if len(data) > LARGEST_IMAGE:
        raise ToolFailed(
            f"the picture has {size} bytes, and at most {LARGEST_IMAGE} can be shown; "
            "make it smaller first"
        )
    content = base64.b64encode(data).decode()
    return Picture(mime, size, tuple(image_parts([{"mimeType": mime, "content": content}])))
