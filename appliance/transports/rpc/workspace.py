"""``workspace.*`` and ``agents.workspace.*``: the files of an agent, without the agent.

Changing them takes what ``agents.files.set`` takes: whoever writes an agent's
files decides what it is told and what it runs.
"""

import base64
import binascii

import msgspec
import trio

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.model.workspace_paths import cursor_of, name_of
from appliance.services.workspace_contents import Condition, OpenFile
from appliance.transports.rpc.method import Method, MethodCall
from appliance.transports.rpc.workspace_shapes import (
    LARGEST_PUT,
    LARGEST_READ,
    AgentsWorkspaceGetParams,
    AgentsWorkspaceGetResult,
    AgentsWorkspaceListParams,
    AgentsWorkspaceListResult,
    DeleteParams,
    DoneResult,
    Encoding,
    EntryResult,
    EntryView,
    FullEntryView,
    GetParams,
    GetResult,
    ListParams,
    ListResult,
    MkdirParams,
    MoveParams,
    PutParams,
    WorkspaceFileView,
)

_MS = 1_000_000  # nanoseconds
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
)
_TEXTS = {"md": "text/markdown", "json": "application/json", "csv": "text/csv"}


async def agents_list(call: MethodCall[AgentsWorkspaceListParams]) -> AgentsWorkspaceListResult:
    params = call.params
    path, page = await call.services.workspaces.list(
        call.awake,
        params.agent_id,
        params.path,
        limit=params.limit,
        skip=params.offset,
        plain=True,
    )
    result = AgentsWorkspaceListResult(
        agent_id=params.agent_id,
        path=path,
        entries=[EntryView.of(path, entry) for entry in page.entries],
        total_entries=page.total,
        offset=params.offset,
    )
    if not path:
        return result
    return msgspec.structs.replace(result, parent_path=path.rpartition("/")[0])


async def agents_get(call: MethodCall[AgentsWorkspaceGetParams]) -> AgentsWorkspaceGetResult:
    params = call.params
    contents = call.services.workspaces
    async with contents.opened(call.awake, params.agent_id, params.path) as file:
        if file.entry.size > LARGEST_READ:
            raise TooLarge(
                f"{params.path[:200]} has {file.entry.size} bytes; at most {LARGEST_READ} are "
                "shown, workspace.get reads more in pieces",
                limit_bytes=LARGEST_READ,
            )
        data = await file.read(0, LARGEST_READ)
    encoding, content = _encoded(data, None)
    entry = file.entry
    return AgentsWorkspaceGetResult(
        agent_id=params.agent_id,
        file=WorkspaceFileView(
            path=file.path,
            name=entry.name,
            size=len(data),
            updated_at_ms=max(0, entry.modified_ns // _MS),
            mime_type=_mime(file.path, data, encoding),
            encoding=encoding,
            content=content,
        ),
    )


async def list_all(call: MethodCall[ListParams]) -> ListResult:
    params = call.params
    after = "" if params.cursor is None else name_of(params.cursor)
    path, page = await call.services.workspaces.list(
        call.awake, params.agent_id, params.path, limit=params.limit, after=after
    )
    return ListResult(
        agent_id=params.agent_id,
        path=path,
        entries=[FullEntryView.of(path, entry) for entry in page.entries],
        next_cursor=cursor_of(page.entries[-1].name) if page.more and page.entries else None,
    )


async def get(call: MethodCall[GetParams]) -> GetResult:
    params = call.params
    contents = call.services.workspaces
    async with contents.opened(call.awake, params.agent_id, params.path) as file:
        data = await _read(file, params.offset, params.limit)
    encoding, content = _encoded(data, params.encoding)
    entry = file.entry
    return GetResult(
        agent_id=params.agent_id,
        path=file.path,
        size=entry.size,
        updated_at_ms=max(0, entry.modified_ns // _MS),
        etag=entry.etag,
        mime_type=_mime(file.path, data, encoding),
        encoding=encoding,
        content=content,
        offset=params.offset,
        length=len(data),
        has_more=params.offset + len(data) < entry.size,
    )


async def put(call: MethodCall[PutParams]) -> EntryResult:
    params = call.params
    if params.create and params.if_match is not None:
        raise InvalidRequest.at("create", "what is to be new matches nothing", "leave one out")
    written = await call.services.workspaces.write(
        call.awake,
        call.caller,
        params.agent_id,
        params.path,
        await trio.to_thread.run_sync(_decoded, params),
        condition=Condition(etag=params.if_match, exists=False if params.create else None),
    )
    return EntryResult(
        ok=True,
        agent_id=params.agent_id,
        entry=FullEntryView.of(written.path.rpartition("/")[0], written.entry),
        created=written.created,
    )


async def delete(call: MethodCall[DeleteParams]) -> DoneResult:
    params = call.params
    await call.services.workspaces.delete(
        call.awake,
        call.caller,
        params.agent_id,
        params.path,
        recursive=params.recursive,
        etag=params.if_match,
    )
    return DoneResult(ok=True, agent_id=params.agent_id, path=params.path)


async def mkdir(call: MethodCall[MkdirParams]) -> EntryResult:
    agent = call.params.agent_id
    path, entry = await call.services.workspaces.mkdir(
        call.awake, call.caller, agent, call.params.path
    )
    view = FullEntryView.of(path.rpartition("/")[0], entry)
    return EntryResult(ok=True, agent_id=agent, entry=view)


async def move(call: MethodCall[MoveParams]) -> EntryResult:
    params = call.params
    path, entry = await call.services.workspaces.move(
        call.awake,
        call.caller,
        params.agent_id,
        params.from_,
        params.to,
        overwrite=params.overwrite,
    )
    view = FullEntryView.of(path.rpartition("/")[0], entry)
    return EntryResult(ok=True, agent_id=params.agent_id, entry=view)


async def _read(file: OpenFile, offset: int, limit: int) -> bytes:
    data = bytearray()
    while len(data) < limit:
        piece = await file.read(offset + len(data), limit - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


def _encoded(data: bytes, wanted: Encoding | None) -> tuple[Encoding, str]:
    """As text where it is some, unless base64 is asked for."""
    if wanted != "base64":
        try:
            text = data.decode()
        except UnicodeDecodeError:
            if wanted == "utf8":
                return "utf8", data.decode(errors="replace")
        else:
            if wanted == "utf8" or "\0" not in text:
                return "utf8", text
    return "base64", base64.b64encode(data).decode()


def _decoded(params: PutParams) -> bytes:
    if params.encoding == "utf8":
        data = params.content.encode(errors="replace")
    else:
        try:
            data = base64.b64decode(params.content, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest.at("content", "is not base64") from None
    if len(data) > LARGEST_PUT:
        raise TooLarge(
            f"content has {len(data)} bytes, at most {LARGEST_PUT} go with a request; "
            "larger files go over HTTP",
            limit_bytes=LARGEST_PUT,
        )
    return data


def _mime(path: str, data: bytes, encoding: Encoding) -> str:
    if encoding == "utf8":
        return _TEXTS.get(path.rpartition(".")[2].lower(), "text/plain")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    found = (mime for magic, mime in _KINDS if data.startswith(magic))
    return next(found, "application/octet-stream")


METHODS: tuple[Method, ...] = (
    Method(
        name="agents.workspace.list",
        summary="List a directory of an agent's workspace",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=AgentsWorkspaceListParams,
        result=AgentsWorkspaceListResult,
        handler=agents_list,
    ),
    Method(
        name="agents.workspace.get",
        summary="Read a file of an agent's workspace",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=AgentsWorkspaceGetParams,
        result=AgentsWorkspaceGetResult,
        handler=agents_get,
    ),
    Method(
        name="workspace.list",
        summary="List a directory of a workspace, everything in it, page by page",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=ListParams,
        result=ListResult,
        handler=list_all,
    ),
    Method(
        name="workspace.get",
        summary="Read a file, or a part of it, as text or base64",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=GetParams,
        result=GetResult,
        handler=get,
    ),
    Method(
        name="workspace.put",
        summary="Write a file, with the directories above it",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=PutParams,
        result=EntryResult,
        handler=put,
        audited="workspace.write",
    ),
    Method(
        name="workspace.delete",
        summary="Delete a file or a directory",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=DeleteParams,
        result=DoneResult,
        handler=delete,
        audited="workspace.delete",
    ),
    Method(
        name="workspace.mkdir",
        summary="Make a directory, and those above it",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=MkdirParams,
        result=EntryResult,
        handler=mkdir,
        audited="workspace.mkdir",
    ),
    Method(
        name="workspace.move",
        summary="Move or rename a file or a directory",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=MoveParams,
        result=EntryResult,
        handler=move,
        audited="workspace.move",
    ),
)
