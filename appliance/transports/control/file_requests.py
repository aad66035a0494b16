"""What is done for one request about the files of a workspace, once it is admitted."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import trio

from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest, PreconditionFailed
from appliance.model.workspace_paths import cursor_of, name_of
from appliance.protocols.http_ranges import (
    RangeRefused,
    Span,
    matches,
    names,
    parse_range,
    range_holds,
    tags,
)
from appliance.services.workspace_contents import PIECE, Condition, OpenFile, WorkspaceContents
from appliance.tenants.runtime import TenantRuntime
from appliance.transports import problems
from appliance.transports.bodies import ClientGone, Receive, drain
from appliance.transports.control import workspace as routes
from appliance.transports.control.file_answers import FileAnswer, attachment
from appliance.transports.control.route import Route
from appliance.transports.problems import RangeUnsatisfiable
from appliance.transports.schemas.workspace import (
    DeleteQuery,
    FileEntry,
    FileList,
    FileQuery,
    ListQuery,
)

_MOST_GATHERED = 1024 * 1024  # bytes that are written at once


class FileRequest:
    """One request that may be answered."""

    def __init__(
        self,
        route: Route,
        contents: WorkspaceContents,
        tenant: TenantRuntime,
        caller: Caller,
        agent: str,
        query: Any,
        headers: Mapping[str, str],
        body: "FileBody",
    ) -> None:
        self._route = route
        self._contents = contents
        self._tenant = tenant
        self._caller = caller
        self._agent = agent
        self._query = query
        self._headers = headers
        self._body = body

    async def answer(self, answer: FileAnswer) -> None:
        works: dict[str, Callable[[FileAnswer], Awaitable[None]]] = {
            routes.LIST.name: self._list,
            routes.DELETE.name: self._delete,
            routes.DOWNLOAD.name: self._download,
            routes.UPLOAD.name: self._upload,
        }
        work = partial(works[self._route.name], answer)
        # Whoever sends a body is noticed when it ends; a change that was begun is finished.
        left = self._body.wait_left if self._route.method == "GET" else None
        await self._tenant.perform(work, caller=self._caller, left=left)

    async def _list(self, answer: FileAnswer) -> None:
        query: ListQuery = self._query
        after = "" if query.cursor is None else name_of(query.cursor)
        path, page = await self._contents.list(
            self._tenant, self._agent, query.path, limit=query.limit, after=after
        )
        goes_on = page.more and page.entries
        await answer.view(
            FileList(
                path=path,
                entries=[FileEntry.of(path, entry) for entry in page.entries],
                next_cursor=cursor_of(page.entries[-1].name) if goes_on else None,
            )
        )

    async def _delete(self, answer: FileAnswer) -> None:
        query: DeleteQuery = self._query
        await self._contents.delete(
            self._tenant,
            self._caller,
            self._agent,
            query.path,
            recursive=query.recursive,
            etag=_wanted(self._headers.get("if-match")),
        )
        await answer.whole(204, b"")

    async def _download(self, answer: FileAnswer) -> None:
        query: FileQuery = self._query
        async with self._contents.opened(self._tenant, self._agent, query.path) as file:
            entry = file.entry
            headers = {"etag": f'"{entry.etag}"', "accept-ranges": "bytes"}
            if not matches(self._headers.get("if-match"), entry.etag):
                raise PreconditionFailed("the file is another than If-Match names")
            if names(self._headers.get("if-none-match"), entry.etag):
                await answer.whole(304, b"", headers)
                return
            span = self._span(entry.size, entry.etag)
            headers["content-disposition"] = attachment(entry.name)
            # Nothing in it may run, whatever a browser takes it for.
            headers["content-security-policy"] = "sandbox; default-src 'none'"
            if span is not None:
                headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{entry.size}"
            whole = span or Span(0, entry.size)
            await answer.begin(206 if span else 200, routes.BYTES, len(whole), headers)
            await _send(file, whole, answer)

    def _span(self, size: int, etag: str) -> Span | None:
        if not range_holds(self._headers.get("if-range"), etag):
            return None
        try:
            return parse_range(self._headers.get("range"), size)
        except RangeRefused:
            raise RangeUnsatisfiable(size) from None

    async def _upload(self, answer: FileAnswer) -> None:
        query: FileQuery = self._query
        announced = self._headers.get("content-length", "")
        written = await self._contents.receive(
            self._tenant,
            self._caller,
            self._agent,
            query.path,
            self._body.next_piece,
            size=int(announced) if announced.isdecimal() else None,
            condition=_condition(self._headers),
        )
        folder = written.path.rpartition("/")[0]
        view = FileEntry.of(folder, written.entry)
        headers = {"etag": f'"{written.entry.etag}"'}
        await answer.view(view, status=201 if written.created else 200, headers=headers)


class FileBody:
    """A request's body in pieces that are worth a thread."""

    def __init__(self, receive: Receive, patience: float) -> None:
        self._receive = receive
        self._patience = patience
        self._ended = False

    async def wait_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def drain(self) -> None:
        """Hear the sender out, for a while: else it may not read why it was refused."""
        if not self._ended:
            await drain(self._receive)

    async def next_piece(self) -> bytes:
        """Raises ``SlowBody`` and :exc:`ClientGone`; empty at the end."""
        gathered = bytearray()
        while not self._ended and len(gathered) < _MOST_GATHERED:
            with trio.move_on_after(self._patience) as limit:
                message = await self._receive()
            if limit.cancelled_caught:
                self._ended = True  # nothing more is waited for
                raise problems.slow_body()
            if message["type"] != "http.request":
                raise ClientGone("the client left before its file was complete")
            gathered += message.get("body", b"")
            self._ended = not message.get("more_body", False)
        return bytes(gathered)


async def _send(file: OpenFile, span: Span, answer: FileAnswer) -> None:
    at = span.start
    while at < span.end and not answer.is_head:
        piece = await file.read(at, min(PIECE, span.end - at))
        if not piece:
            return  # it has become shorter; the client sees that something is missing
        await answer.send(piece)
        at += len(piece)
    await answer.end()


def _wanted(header: str | None) -> str | None:
    """The bare tag an If-Match asks for; None if any will do."""
    found = tags(header)
    if not found or "*" in found:
        return None
    if len(found) > 1 or found[0].startswith("W/"):
        raise PreconditionFailed("If-Match takes the one etag that was read last")
    return found[0].strip('"')


def _condition(headers: Mapping[str, str]) -> Condition:
    etag = _wanted(headers.get("if-match"))
    exists = True if tags(headers.get("if-match")) and etag is None else None
    if unless := tags(headers.get("if-none-match")):
        if unless != ("*",):
            raise InvalidRequest.at("if-none-match", "only * is understood here")
        exists = False
    return Condition(etag=etag, exists=exists)
