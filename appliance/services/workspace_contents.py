"""The files of a tenant's workspaces, for the tenant itself: without an agent, over its API.

What is written here is what agents read as their instructions and run as
their programs, so it takes the same right as an agent's own files do.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import trio

from appliance.model.callers import Caller
from appliance.model.errors import DiskFull, PreconditionFailed, RateLimited, TooLarge
from appliance.model.tokens import Scope
from appliance.model.workspace_paths import file_path, printable, relative_path
from appliance.services.audit import AuditTrail
from appliance.services.sandboxes.disk_watch import FLOOR_BYTES
from appliance.services.workspace_access import (
    WorkspaceTenant,
    failures_told,
    in_workspace,
    replace,
)
from appliance.storage.workspace import Workspace
from appliance.storage.workspace_entries import (
    Entry,
    NewFile,
    Page,
    describe,
    list_page,
    remove,
)

T = TypeVar("T")

GIB = 1024**3
LARGEST = 16 * GIB  # bytes of one file; quotas are usually less
MOST_TRANSFERS = 16  # of a tenant at once
PIECE = 256 * 1024
_REMOVAL_SECONDS = 45.0


class Agents(Protocol):
    """``AgentService``, as far as it is needed here."""

    def require(self, tenant: WorkspaceTenant, agent: str, /) -> object:
        """Raise ``NotFound`` if there is no such agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What must be in a place before it is changed; by default anything may."""

    etag: str | None = None  # just this
    exists: bool | None = None

    def require(self, entry: Entry | None) -> None:
        """Raise :exc:`PreconditionFailed`."""
        if self.etag is not None and (entry is None or entry.etag != self.etag):
            raise PreconditionFailed("the file changed since it was read; read it again")
        if self.exists is True and entry is None:
            raise PreconditionFailed("there is no such file")
        if self.exists is False and entry is not None:
            raise PreconditionFailed("there is such a file already")


ANYTHING = Condition()


@dataclass(frozen=True, slots=True)
class Written:
    path: str
    entry: Entry
    created: bool


class OpenFile:
    """A file that is being read, as it was when it was opened."""

    def __init__(self, tenant: WorkspaceTenant, fd: int, path: str) -> None:
        self._tenant = tenant
        self._fd = fd
        self.path = path
        self.entry = Entry.of(path.rpartition("/")[2], os.fstat(fd))

    async def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end, which may have moved."""
        return await trio.to_thread.run_sync(
            os.pread, self._fd, size, offset, limiter=self._tenant.state.workspace_threads
        )


class WorkspaceContents:
    """Methods raise ``NotFound``, ``InvalidRequest``, ``PathRefused`` and what they say besides."""

    def __init__(self, *, agents: Agents, audit: AuditTrail) -> None:
        self._agents = agents
        self._audit = audit

    # Looking

    async def list(
        self,
        tenant: WorkspaceTenant,
        agent: str,
        path: str,
        *,
        limit: int,
        after: str = "",
        skip: int = 0,
        plain: bool = False,
    ) -> tuple[str, Page]:
        """The directory's path as we call it, and a page of it; see :func:`list_page`."""
        self._agents.require(tenant, agent)
        relative = relative_path(path)

        def work(workspace: Workspace) -> Page:
            return list_page(workspace, relative, limit=limit, after=after, skip=skip, plain=plain)

        return relative, await in_workspace(tenant, agent, work, about=relative)

    @asynccontextmanager
    async def opened(
        self, tenant: WorkspaceTenant, agent: str, path: str
    ) -> AsyncIterator[OpenFile]:
        """Open a file for reading. Raises :exc:`RateLimited` for too many at once."""
        self._agents.require(tenant, agent)
        relative = file_path(path)
        with _transfer(tenant):
            fd = await in_workspace(
                tenant, agent, lambda workspace: workspace.open_file(relative), about=relative
            )
            try:
                yield OpenFile(tenant, fd, relative)
            finally:
                os.close(fd)

    # Changing

    async def receive(
        self,
        tenant: WorkspaceTenant,
        caller: Caller,
        agent: str,
        path: str,
        next_piece: Callable[[], Awaitable[bytes]],
        *,
        size: int | None,
        condition: Condition = ANYTHING,
    ) -> Written:
        """As :meth:`write`, of a file that comes in pieces; an empty one is the end.

        Nobody sees it before it is whole. ``size`` is what was announced. Raises
        what ``next_piece`` raises, and ``RateLimited`` for too many at once.
        """
        relative = self._permitted(tenant, caller, agent, path)
        with _transfer(tenant):
            begin = partial(_begin, relative=relative, size=size, condition=condition)
            new, before = await in_workspace(tenant, agent, begin, about=relative)
            try:
                while piece := await next_piece():
                    await _in_thread(tenant, partial(_write, new, piece), relative)
                # What was there may have changed while the new content came.
                commit = partial(new.commit, condition.require)
                async with self._audited(
                    tenant, caller, "workspace.write", agent, relative, new.size
                ):
                    entry = await _in_thread(tenant, commit, relative)
            finally:
                with trio.CancelScope(shield=True):
                    await _in_thread(tenant, new.close, relative)
        return Written(relative, entry, created=before is None)

    async def write(
        self,
        tenant: WorkspaceTenant,
        caller: Caller,
        agent: str,
        path: str,
        data: bytes,
        *,
        condition: Condition = ANYTHING,
    ) -> Written:
        """Replace a file, or make it with the directories above it.

        Raises :exc:`PreconditionFailed`, ``QuotaExceeded`` and ``DiskFull``.
        """
        relative = self._permitted(tenant, caller, agent, path)
        before: list[Entry | None] = []

        def require(entry: Entry | None) -> None:
            condition.require(entry)
            before.append(entry)

        work = partial(replace, relative=relative, data=data, require=require)
        async with self._audited(tenant, caller, "workspace.write", agent, relative, len(data)):
            entry = await in_workspace(tenant, agent, work, about=relative)
        return Written(relative, entry, created=before[0] is None)

    async def delete(
        self,
        tenant: WorkspaceTenant,
        caller: Caller,
        agent: str,
        path: str,
        *,
        recursive: bool = False,
        etag: str | None = None,
    ) -> None:
        """Raises ``AlreadyExists`` for a directory that is not empty."""
        relative = self._permitted(tenant, caller, agent, path)
        work = partial(
            remove, relative=relative, recursive=recursive, etag=etag, seconds=_REMOVAL_SECONDS
        )
        async with self._audited(tenant, caller, "workspace.delete", agent, relative):
            await in_workspace(tenant, agent, work, about=relative)

    async def mkdir(
        self, tenant: WorkspaceTenant, caller: Caller, agent: str, path: str
    ) -> tuple[str, Entry]:
        """Make a directory, and those above it; one that is there stays."""
        relative = self._permitted(tenant, caller, agent, path)

        def work(workspace: Workspace) -> Entry:
            workspace.mkdir(relative)
            return describe(workspace, relative)

        async with self._audited(tenant, caller, "workspace.mkdir", agent, relative):
            return relative, await in_workspace(tenant, agent, work, about=relative)

    async def move(
        self,
        tenant: WorkspaceTenant,
        caller: Caller,
        agent: str,
        path: str,
        target: str,
        *,
        overwrite: bool = False,
    ) -> tuple[str, Entry]:
        """Move a file or directory. ``overwrite``: a file that is there already."""
        old = self._permitted(tenant, caller, agent, path)
        new = file_path(target, field="to")

        def work(workspace: Workspace) -> Entry:
            if not overwrite and workspace.exists(new):
                raise FileExistsError
            folder = new.rpartition("/")[0]
            if folder and workspace.exists(old):
                workspace.mkdir(folder)
            workspace.rename(old, new)
            return describe(workspace, new)

        about = f"{old} or {new}"
        async with self._audited(tenant, caller, "workspace.move", agent, f"{old} -> {new}"):
            return new, await in_workspace(tenant, agent, work, about=about)

    def _audited(
        self,
        tenant: WorkspaceTenant,
        caller: Caller,
        action: str,
        agent: str,
        what: str,
        size: int | None = None,
    ) -> AbstractAsyncContextManager[None]:
        details = {} if size is None else {"bytes": size}
        target = printable(f"{agent}/{what}")
        return self._audit.action(caller, action, tenant=tenant.id, target=target, details=details)

    def _permitted(self, tenant: WorkspaceTenant, caller: Caller, agent: str, path: str) -> str:
        caller.require_access(tenant.id, Scope.MANAGE)
        self._agents.require(tenant, agent)
        return file_path(path)


@contextmanager
def _transfer(tenant: WorkspaceTenant) -> Iterator[None]:
    if tenant.state.workspace_transfers >= MOST_TRANSFERS:
        raise RateLimited(
            f"{MOST_TRANSFERS} files are on their way already; wait for one to end", retry_after=1
        )
    tenant.state.workspace_transfers += 1
    try:
        yield
    finally:
        tenant.state.workspace_transfers -= 1


async def _in_thread(tenant: WorkspaceTenant, work: Callable[[], T], about: str) -> T:
    with failures_told(about):
        return await trio.to_thread.run_sync(work, limiter=tenant.state.workspace_threads)


def _begin(
    workspace: Workspace, *, relative: str, size: int | None, condition: Condition
) -> tuple[NewFile, Entry | None]:
    """A new file and what is in its place now, if what can be known of it now allows it."""
    _require_size(size or 0)
    workspace.room.require(size or 0)
    try:
        there = describe(workspace, relative)
    except FileNotFoundError:
        there = None
    condition.require(there)
    folder = relative.rpartition("/")[0]
    if folder:
        workspace.mkdir(folder)
    return NewFile(workspace, relative), there


def _write(new: NewFile, data: bytes) -> None:
    _require_size(new.size + len(data))
    if new.free_bytes() - len(data) < FLOOR_BYTES:
        raise DiskFull("there is no space left on the gateway's disk")
    new.write(data)


def _require_size(size: int) -> None:
    if size > LARGEST:
        raise TooLarge(f"a file has at most {LARGEST} bytes", limit_bytes=LARGEST)
