"""Working in a workspace from the gateway: in which thread, and what is said of failures.

Everything a tenant's files can do to us (a directory without end, a slow disk)
takes at most a few threads, which are its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

import trio

from appliance.model.errors import AlreadyExists, NotFound, Unavailable
from appliance.model.workspace_paths import printable
from appliance.services.tenant_state import TenantState
from appliance.services.workspaces import TenantWithWorkspaces, open_workspace
from appliance.storage.workspace import Workspace
from appliance.storage.workspace_entries import NOT_EMPTY, Entry, NewFile

T = TypeVar("T")


class WorkspaceTenant(TenantWithWorkspaces, Protocol):
    """A running tenant, as far as its files need it."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> TenantState: ...


async def in_workspace(
    tenant: WorkspaceTenant, agent: str, work: Callable[[Workspace], T], *, about: str = ""
) -> T:
    """Do ``work``, which blocks, in the workspace of ``agent``.

    Raises what ``work`` raises; what the operating system says of ``about``, a
    path, becomes :exc:`NotFound`, :exc:`AlreadyExists` or :exc:`Unavailable`.
    Cancelled, it waits for the end of ``work`` all the same.
    """
    return await trio.to_thread.run_sync(
        partial(_work, tenant, agent, work, about), limiter=tenant.state.workspace_threads
    )


def replace(
    workspace: Workspace,
    relative: str,
    data: bytes,
    require: Callable[[Entry | None], None] = lambda _: None,
) -> Entry:
    """Make ``data`` the content of a file, durably, with the directories above it. Blocks.

    ``require`` may refuse what is there; see :meth:`NewFile.commit`.
    """
    folder = relative.rpartition("/")[0]
    if folder:
        workspace.mkdir(folder)
    with NewFile(workspace, relative) as new:
        new.write(data)
        return new.commit(require)


@contextmanager
def failures_told(about: str) -> Iterator[None]:
    """Turn what the operating system says of ``about`` into what its owner can act on."""
    shown = printable(about) or "the workspace"
    try:
        yield
    except FileNotFoundError as exc:
        raise NotFound(f"{shown} does not exist") from exc
    except FileExistsError as exc:
        reason = exc.strerror if exc.strerror == NOT_EMPTY else "exists already"
        raise AlreadyExists(f"{shown} {reason}") from exc
    except OSError as exc:
        raise Unavailable(f"{shown} cannot be used: {exc.strerror}") from exc


def _work(tenant: WorkspaceTenant, agent: str, work: Callable[[Workspace], T], about: str) -> T:
    with failures_told(about), open_workspace(tenant, agent) as workspace:
        return work(workspace)
