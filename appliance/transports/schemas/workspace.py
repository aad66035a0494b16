"""What the routes of a workspace's files take and return."""

from datetime import datetime
from typing import Annotated, Self

from msgspec import Meta

from appliance.model.periods import from_ns
from appliance.model.workspace_paths import is_text, printable
from appliance.storage.workspace_entries import Entry, EntryKind
from appliance.transports.schemas.base import Cursor, PageSize, Query, View

PathText = Annotated[
    str, Meta(max_length=4096, description="Relative to the workspace, or below /workspace.")
]


class ListQuery(Query, frozen=True):
    path: PathText = ""
    limit: PageSize = 200
    cursor: Cursor | None = None


class FileQuery(Query, frozen=True):
    path: PathText


class DeleteQuery(Query, frozen=True):
    path: PathText
    recursive: Annotated[bool, Meta(description="A directory with all that is in it.")] = False


class FileEntry(View, frozen=True):
    """``unnameable``: the name is not UTF-8, so it is shown and cannot be asked for."""

    path: str
    name: str
    kind: EntryKind
    modified_at: datetime
    size: int | None = None
    etag: str | None = None
    unnameable: bool = False

    @classmethod
    def of(cls, folder: str, entry: Entry) -> Self:
        has_text = is_text(entry.name)
        name = entry.name if has_text else printable(entry.name)
        return cls(
            path=f"{folder}/{name}" if folder else name,
            name=name,
            kind=entry.kind,
            modified_at=from_ns(entry.modified_ns),
            size=entry.size if entry.kind is EntryKind.FILE else None,
            etag=entry.etag or None,
            unnameable=not has_text,
        )


class FileList(View, frozen=True):
    path: str
    entries: list[FileEntry]
    next_cursor: str | None = None
