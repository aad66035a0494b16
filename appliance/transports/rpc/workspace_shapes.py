"""What the methods of an agent's workspace take and return."""

from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from appliance.model.session_keys import DEFAULT_AGENT
from appliance.model.workspace_paths import is_text, printable
from appliance.storage.workspace_entries import Entry, EntryKind
from appliance.transports.rpc.fields import AgentIdText
from appliance.transports.rpc.method import Params, Result

MIB = 1024 * 1024
LARGEST_READ = 4 * MIB  # bytes of one answer
LARGEST_PUT = 16 * MIB  # bytes of one request
_MS = 1_000_000  # nanoseconds

PathText = Annotated[
    str, Meta(max_length=4096, description="Relative to the workspace, or below /workspace.")
]
FilePath = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        description="Relative to the workspace, or below /workspace.",
    ),
]
Tag = Annotated[str, Meta(min_length=1, max_length=128, description="A file's etag.")]
Encoding = Literal["utf8", "base64"]


class OfAgent(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText = DEFAULT_AGENT


class AgentsWorkspaceListParams(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText
    path: PathText = ""
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class AgentsWorkspaceGetParams(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText
    path: FilePath


class ListParams(OfAgent, frozen=True, kw_only=True):
    path: PathText = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    cursor: Annotated[str, Meta(max_length=512)] | None = None


class GetParams(OfAgent, frozen=True, kw_only=True):
    path: FilePath
    offset: Annotated[int, Meta(ge=0, description="The first byte.")] = 0
    limit: Annotated[int, Meta(ge=1, le=LARGEST_READ, description="Bytes.")] = LARGEST_READ
    encoding: Annotated[Encoding, Meta(description="By default utf8 for what is UTF-8.")] | None = (
        None
    )


class PutParams(OfAgent, frozen=True, kw_only=True):
    path: FilePath
    content: Annotated[str, Meta(max_length=LARGEST_PUT * 4 // 3 + 4)]
    encoding: Encoding = "base64"
    if_match: Tag | None = None
    create: Annotated[bool, Meta(description="Refused if there is such a file.")] = False


class DeleteParams(OfAgent, frozen=True, kw_only=True):
    path: FilePath
    recursive: Annotated[bool, Meta(description="A directory with all that is in it.")] = False
    if_match: Tag | None = None


class MkdirParams(OfAgent, frozen=True, kw_only=True):
    path: FilePath


class MoveParams(OfAgent, frozen=True, kw_only=True):
    from_: FilePath = msgspec.field(name="from")
    to: FilePath
    overwrite: Annotated[bool, Meta(description="A file that is there already.")] = False


class EntryView(Result, frozen=True, kw_only=True):
    """As the original has it; only files and directories."""

    path: str
    name: str
    kind: Literal["file", "directory"]
    size: int | None = None
    updated_at_ms: int | None = None

    @classmethod
    def of(cls, folder: str, entry: Entry) -> Self:
        is_file = entry.kind is EntryKind.FILE
        return cls(
            path=joined(folder, entry.name),
            name=entry.name,
            kind="file" if is_file else "directory",
            size=entry.size if is_file else None,
            updated_at_ms=max(0, entry.modified_ns // _MS),
        )


class AgentsWorkspaceListResult(Result, frozen=True, kw_only=True, omit_defaults=False):
    agent_id: str
    path: str
    entries: list[EntryView]
    total_entries: int
    offset: int
    parent_path: str | msgspec.UnsetType = msgspec.UNSET


class WorkspaceFileView(Result, frozen=True, kw_only=True):
    path: str
    name: str
    size: int
    updated_at_ms: int
    mime_type: str
    encoding: Encoding
    content: str


class AgentsWorkspaceGetResult(Result, frozen=True, kw_only=True):
    agent_id: str
    file: WorkspaceFileView


class FullEntryView(Result, frozen=True, kw_only=True):
    path: str
    name: str
    kind: EntryKind
    updated_at_ms: int
    size: int | None = None
    etag: str | None = None
    unnameable: Annotated[
        bool, Meta(description="Its name is not UTF-8: it is shown, and can be used by nobody.")
    ] = False

    @classmethod
    def of(cls, folder: str, entry: Entry) -> Self:
        is_file = entry.kind is EntryKind.FILE
        has_text = is_text(entry.name)
        name = entry.name if has_text else printable(entry.name)
        return cls(
            path=joined(folder, name),
            name=name,
            kind=entry.kind,
            updated_at_ms=max(0, entry.modified_ns // _MS),
            size=entry.size if is_file else None,
            etag=entry.etag or None,
            unnameable=not has_text,
        )


class ListResult(Result, frozen=True, kw_only=True):
    agent_id: str
    path: str
    entries: list[FullEntryView]
    next_cursor: str | None = None


class GetResult(Result, frozen=True, kw_only=True):
    agent_id: str
    path: str
    size: int
    updated_at_ms: int
    etag: str
    mime_type: str
    encoding: Encoding
    content: str
    offset: Annotated[int, Meta(description="Where the content begins.")]
    length: Annotated[int, Meta(description="Bytes of the content.")]
    has_more: bool


class EntryResult(Result, frozen=True, kw_only=True):
    ok: bool
    agent_id: str
    entry: FullEntryView
    created: bool | None = None


class DoneResult(Result, frozen=True, kw_only=True):
    ok: bool
    agent_id: str
    path: str


def joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
