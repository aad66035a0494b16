"""``read``, ``write``, ``edit`` and ``ls``: the files of an agent's workspace.

The gateway itself reads and writes them, since a sandbox for each would cost
more than the work. What a sandbox put there is hostile: see ``storage.workspace``.
"""

import os
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from appliance.model.errors import PreconditionFailed, TooLarge
from appliance.model.text_edits import MOST_EDITS, Edit, EditRefused, Replacement, apply_edits
from appliance.model.workspace_paths import file_path, printable, relative_path
from appliance.sandboxes.base import Access
from appliance.services.tools.arguments import forgiving
from appliance.services.tools.base import (
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)
from appliance.services.tools.file_reading import (
    MOST_BYTES,
    MOST_LINES,
    Picture,
    TextWindow,
    read_window,
)
from appliance.services.workspace_access import in_workspace, replace
from appliance.storage.workspace import Workspace
from appliance.storage.workspace_entries import Entry, EntryKind, etag_of, list_page

KIB = 1024
MIB = 1024 * KIB
LARGEST_EDITED = 8 * MIB  # bytes
MOST_LISTED = 5000
_LISTED = 500
_MOST_SHOWN = 20  # replacements in the details

PathText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        description="Relative to the workspace, or below /workspace.",
    ),
]


class ReadParams(ToolParams, frozen=True, kw_only=True):
    path: PathText
    offset: Annotated[int, Meta(ge=1, description="The first line, counted from 1.")] = 1
    limit: Annotated[int, Meta(ge=1, description=f"Lines; at most {MOST_LINES}.")] = MOST_LINES


class WriteParams(ToolParams, frozen=True, kw_only=True):
    path: PathText
    content: str


class EditPiece(ToolParams, frozen=True, kw_only=True):
    old_text: Annotated[str, Meta(min_length=1)]
    new_text: str


Pieces = Annotated[
    list[EditPiece],
    Meta(
        min_length=1,
        max_length=MOST_EDITS,
        description="Several at once; each is matched against the file as it was.",
    ),
]


class EditParams(ToolParams, frozen=True, kw_only=True):
    path: PathText
    old_text: (
        Annotated[str, Meta(description="Must occur exactly once, spaces included.")] | UnsetType
    ) = UNSET
    new_text: str | UnsetType = UNSET
    replace_all: Annotated[bool, Meta(description="Each occurrence, not the only one.")] = False
    edits: Pieces | UnsetType = UNSET


class LsParams(ToolParams, frozen=True, kw_only=True):
    path: PathText = "."
    limit: Annotated[int, Meta(ge=1, le=MOST_LISTED)] = _LISTED


def require_access(call: ToolCall, *, writing: bool = False) -> None:
    """Raise :exc:`ToolFailed` where ``defaults.sandbox.workspace`` does not let tools do this."""
    access = Access(call.tenant.config.defaults.sandbox.workspace)
    if access is Access.NONE:
        raise ToolFailed("agents have no workspace here (defaults.sandbox.workspace is none)")
    if writing and access is not Access.WRITE:
        raise ToolFailed("the workspace is read-only (defaults.sandbox.workspace is ro)")


# -- read --------------------------------------------------------------------


async def read(call: ToolCall, params: ReadParams) -> ToolResult:
    require_access(call)
    path = file_path(params.path)

    def work(workspace: Workspace) -> TextWindow | Picture:
        return read_window(
            workspace,
            path,
            first=params.offset,
            lines=params.limit,
            with_picture=call.model_reads_pictures,
        )

    try:
        found = await in_workspace(call.tenant, call.key.agent, work, about=path)
    except ToolFailed as problem:
        raise ToolFailed(f"{printable(path)}: {problem}") from problem
    if isinstance(found, Picture):
        return _picture(path, found)
    details = {
        "path": path,
        "size": found.size,
        "firstLine": found.first,
        "lastLine": found.last,
        "totalLines": found.total,
    }
    text = f"{found.text}{_notice(found)}" or "(the file is empty)"
    return ToolResult(text=text, details=details, untrusted=Source.FILE)


def _picture(path: str, found: Picture) -> ToolResult:
    details = {"path": path, "size": found.size, "mimeType": found.mime}
    text = f"{printable(path)} is a picture ({found.mime}, {found.size} bytes)"
    if not found.parts:
        return ToolResult(text=f"{text}; this model does not read pictures", details=details)
    return ToolResult(text=text, parts=found.parts, details=details, untrusted=Source.FILE)


def _notice(found: TextWindow) -> str:
    """What the model is told of the rest; nothing if there is none."""
    if found.is_cut:
        return (
            f"\n\n[Line {found.first} is longer than {MOST_BYTES // KIB} KB and is cut here; "
            "see the rest with exec.]"
        )
    if found.total is not None and found.last >= found.total:
        return ""
    total = "more than can be counted" if found.total is None else str(found.total)
    gap = "" if found.text.endswith("\n") else "\n"
    return (
        f"{gap}\n[Lines {found.first} to {found.last} of {total}; "
        f"go on with offset {found.last + 1}.]"
    )


# -- write -------------------------------------------------------------------


async def write(call: ToolCall, params: WriteParams) -> ToolResult:
    require_access(call, writing=True)
    path = file_path(params.path)
    data = params.content.encode(errors="replace")
    before: list[Entry | None] = []
    await in_workspace(
        call.tenant,
        call.key.agent,
        lambda workspace: replace(workspace, path, data, before.append),
        about=path,
    )
    done = "Replaced" if before[0] is not None else "Wrote"
    details = {"path": path, "size": len(data), "created": before[0] is None}
    return ToolResult(text=f"{done} {printable(path)} ({len(data)} bytes)", details=details)


# -- edit --------------------------------------------------------------------


async def edit(call: ToolCall, params: EditParams) -> ToolResult:
    require_access(call, writing=True)
    path = file_path(params.path)
    edits = _edits(params)

    def work(workspace: Workspace) -> list[Replacement]:
        data, etag = read_whole(workspace, path, limit=LARGEST_EDITED)
        if b"\0" in data:
            raise ToolFailed(f"{printable(path)} is a binary file; only text can be edited")
        text, done = apply_edits(data.decode(errors="surrogateescape"), edits)
        new = text.encode(errors="surrogateescape")
        replace(workspace, path, new, lambda entry: require_unchanged(path, entry, etag))
        return done

    try:
        done = await in_workspace(call.tenant, call.key.agent, work, about=path)
    except EditRefused as problem:
        # It may quote the file.
        text = f"{printable(path)} is unchanged: {problem}"
        return ToolResult(text=text, is_error=True, untrusted=Source.FILE)
    lines = ", ".join(str(each.line) for each in done[:_MOST_SHOWN])
    text = f"Edited {printable(path)}: {_times(len(done))} (line {lines})"
    return ToolResult(text=text, details={"path": path, "changes": _shown(done)})


def _edits(params: EditParams) -> Sequence[Edit]:
    if params.edits is not UNSET:
        if params.old_text is not UNSET or params.new_text is not UNSET:
            raise ToolFailed("give either edits, or oldText and newText")
        return [
            Edit(_plain(each.old_text), _plain(each.new_text), params.replace_all)
            for each in params.edits
        ]
    if params.old_text is UNSET or params.new_text is UNSET:
        raise ToolFailed("oldText and newText are both needed, or edits")
    return [Edit(_plain(params.old_text), _plain(params.new_text), params.replace_all)]


def _plain(text: str) -> str:
    """Without halves of surrogate pairs, which would pass for bytes of the file."""
    return text.encode(errors="replace").decode()


def _times(count: int) -> str:
    return "one replacement" if count == 1 else f"{count} replacements"


def _shown(done: Sequence[Replacement]) -> list[dict[str, object]]:
    return [
        {"line": each.line, "old": each.old[:KIB], "new": each.new[:KIB]}
        for each in done[:_MOST_SHOWN]
    ]


def read_whole(workspace: Workspace, path: str, *, limit: int) -> tuple[bytes, str]:
    """A file's content and the tag of just that content. Blocks; raises :exc:`TooLarge`."""
    fd = workspace.open_file(path)
    try:
        etag = etag_of(os.fstat(fd))
        data = bytearray()
        while piece := os.read(fd, min(MIB, limit + 1 - len(data))):
            data += piece
    finally:
        os.close(fd)
    if len(data) > limit:
        raise TooLarge(f"{printable(path)} has more than {limit} bytes", limit=limit)
    return bytes(data), etag


def require_unchanged(path: str, entry: Entry | None, etag: str) -> None:
    """Raise :exc:`PreconditionFailed` if what is there now is not what was read."""
    if entry is None or entry.etag != etag:
        raise PreconditionFailed(
            f"{printable(path)} changed while it was being changed; read it again"
        )


# -- ls ----------------------------------------------------------------------

_MARKS = {EntryKind.DIRECTORY: "/", EntryKind.LINK: "@", EntryKind.OTHER: "|", EntryKind.FILE: ""}


async def ls(call: ToolCall, params: LsParams) -> ToolResult:
    require_access(call)
    path = relative_path(params.path)
    page = await in_workspace(
        call.tenant,
        call.key.agent,
        lambda workspace: list_page(workspace, path, limit=params.limit),
        about=path,
    )
    lines = [f"{printable(entry.name)}{_MARKS[entry.kind]}" for entry in page.entries]
    if page.more:
        lines.append(f"\n[The first {len(lines)} of more; use find for some of them.]")
    details = {"path": path, "entries": len(page.entries), "more": page.more}
    text = "\n".join(lines) or "(the directory is empty)"
    return ToolResult(text=text, details=details, untrusted=Source.FILE)


def tools() -> tuple[Tool[Any], ...]:
    return (
        forgiving(
            name="read",
            group="fs",
            label="Read a file",
            description=(
                "Read a text file or a picture (PNG, JPEG, GIF, WebP) of the workspace. Of a long "
                f"text at most {MOST_LINES} lines or {MOST_BYTES // KIB} KB are shown at once; "
                "offset and limit choose others."
            ),
            params=ReadParams,
            call=read,
        ),
        forgiving(
            name="write",
            group="fs",
            label="Write a file",
            description=(
                "Write a file in the workspace, with the directories above it. "
                "What it held before is gone; use edit to change a part."
            ),
            params=WriteParams,
            call=write,
            effect=Effect.WRITE,
            is_parallel=False,
        ),
        forgiving(
            name="edit",
            group="fs",
            label="Edit a file",
            description=(
                "Replace text in a file. oldText must be in the file exactly as given, and only "
                "once; include lines around it if need be. For several changes of one file give "
                "edits, each matched against the file as it was, none touching another."
            ),
            params=EditParams,
            call=edit,
            effect=Effect.WRITE,
            is_parallel=False,
        ),
        forgiving(
            name="ls",
            group="fs",
            label="List a directory",
            description=(
                "List a directory of the workspace by name, hidden files too. "
                "/ marks directories, @ links, | what is no file."
            ),
            params=LsParams,
            call=ls,
        ),
    )
