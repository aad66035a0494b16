"""The files that make an agent what it is, in its part of the tenant's workspace.

The tenant's sandboxes write into the same place, so nothing in it is trusted:
names are ours, links are not followed, what is no plain file is not touched.
"""

import hashlib
import stat
from dataclasses import dataclass
from datetime import UTC, datetime

from appliance.model.errors import (
    ApplianceError,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    TooLarge,
)
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.services.workspaces import TenantWithWorkspaces, open_workspace, workspace_of
from appliance.storage.paths import ConfinedDirectory, PathRefused

# In the order in which the model is given them.
NAMES = (
    "AGENTS.md",
    "SOUL.md",
    "TOOLS.md",
    "IDENTITY.md",
    "USER.md",
    "HEARTBEAT.md",
    "BOOTSTRAP.md",
    "MEMORY.md",
)
LARGEST = 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceFile:
    """``content`` and ``digest`` (hexadecimal SHA-256) are None in a listing."""

    name: str
    missing: bool = True
    size: int | None = None
    updated_at: datetime | None = None
    content: str | None = None
    digest: str | None = None


def require_name(name: str) -> str:
    if name not in NAMES:
        raise InvalidRequest(f'unsupported file "{name[:80]}"; there are {", ".join(NAMES)}')
    return name


def list_files(root: ConfinedDirectory, agent: str) -> tuple[WorkspaceFile, ...]:
    """Every file an agent may have. Blocks."""
    return tuple(_describe(root, agent, name) for name in NAMES)


def read_file(root: ConfinedDirectory, agent: str, name: str) -> WorkspaceFile:
    """One file with its content. Blocks; raises ``PathRefused`` and ``TooLarge``."""
    try:
        data = root.read_bytes(f"{workspace_of(agent)}/{name}", limit=LARGEST)
    except FileNotFoundError:
        return WorkspaceFile(name=name)
    except PermissionError as exc:
        raise PathRefused(f"{name} is closed by its mode") from exc
    return _with_content(_describe(root, agent, name), data)


def write_file(
    tenant: TenantWithWorkspaces, agent: str, name: str, content: str, *, expected: str | None
) -> WorkspaceFile:
    """Replace one file, durably, so that the agent's sandboxes may read and change it. Blocks.

    ``expected`` is the digest of what the caller thinks it replaces. Raises
    ``PreconditionFailed``, ``PathRefused``, ``TooLarge``, ``QuotaExceeded`` and ``DiskFull``.
    """
    data = content.encode()
    if len(data) > LARGEST:
        raise TooLarge(
            f"{name} would have {len(data)} bytes; the limit is {LARGEST}", limit=LARGEST
        )
    root = tenant.root
    if expected is not None and expected.lower() != read_file(root, agent, name).digest:
        raise PreconditionFailed(f'agent file "{name}" changed since it was read; read it again')
    with open_workspace(tenant, agent) as workspace:
        workspace.write_atomic(name, data)
    return _with_content(_describe(root, agent, name), data)


def remove_files(root: ConfinedDirectory, agent: str) -> None:
    """Remove all that an agent other than the first has. Blocks."""
    if agent == DEFAULT_AGENT:
        raise NotFound("the first agent's files are the tenant's")
    try:
        root.remove_tree(workspace_of(agent))
    except FileNotFoundError:
        return


def read_text(root: ConfinedDirectory, agent: str, name: str, *, limit: int) -> str:
    """The content of a file if it can be read at all, else nothing. Blocks."""
    try:
        data = root.read_bytes(f"{workspace_of(agent)}/{name}", limit=limit)
    except (OSError, ApplianceError):
        return ""
    return data.decode(errors="replace")


def _describe(root: ConfinedDirectory, agent: str, name: str) -> WorkspaceFile:
    try:
        found = root.stat(f"{workspace_of(agent)}/{name}")
    except (FileNotFoundError, PermissionError, PathRefused):
        return WorkspaceFile(name=name)
    if not stat.S_ISREG(found.st_mode):
        return WorkspaceFile(name=name)
    updated = datetime.fromtimestamp(found.st_mtime, UTC)
    return WorkspaceFile(name=name, missing=False, size=found.st_size, updated_at=updated)


def _with_content(file: WorkspaceFile, data: bytes) -> WorkspaceFile:
    return WorkspaceFile(
        name=file.name,
        missing=False,
        size=len(data),
        updated_at=file.updated_at,
        content=data.decode(errors="replace"),
        digest=hashlib.sha256(data).hexdigest(),
    )
