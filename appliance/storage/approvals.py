"""``approvals.json``: what a tenant's agents may run unseen, and lasting answers that were given.

One small file, read and replaced whole. A file that cannot be read is left as
it is and never written over: forgetting a revocation would let something run.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from appliance.model.errors import ApplianceError, TenantBroken, TooLarge

FILE = "approvals.json"
SCHEMA_VERSION = 1
# The oldest release that may still read what we write, as its SCHEMA_VERSION.
COMPAT_VERSION = 1
LARGEST = 2 * 1024 * 1024  # bytes

MOST_GRANTS = 500
MOST_ENTRIES = 2_000  # of all allow-lists together
MOST_AGENTS = 200

SecurityName = Literal["deny", "allowlist", "full"]
AskName = Literal["off", "on-miss", "always"]
Pattern = Annotated[str, Meta(min_length=1, max_length=4_096)]
_Text = Annotated[str, Meta(max_length=100_000)]


class _Shared(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename="camel",
):
    """As OpenClaw's clients know it, so the same on disk and on the wire."""


class AllowEntry(_Shared, frozen=True, kw_only=True):
    """``last…`` are kept for the clients that write them."""

    pattern: Pattern
    id: Annotated[str, Meta(max_length=128)] | None = None
    source: Literal["allow-always"] | None = None
    command_text: _Text | None = None
    last_used_at: float | None = None
    last_used_command: _Text | None = None
    last_resolved_path: _Text | None = None


class PolicyDefaults(_Shared, frozen=True, kw_only=True):
    """``auto_allow_skills`` is kept and means nothing here: skills bring no programs."""

    security: SecurityName | None = None
    ask: AskName | None = None
    ask_fallback: SecurityName | None = None
    auto_allow_skills: bool | None = None


class AgentPolicy(PolicyDefaults, frozen=True, kw_only=True):
    allowlist: tuple[AllowEntry, ...] = ()


class PolicyFile(_Shared, frozen=True, kw_only=True, omit_defaults=False):
    """``agents`` are by id; ``*`` is all of them."""

    version: Literal[1] = 1
    defaults: PolicyDefaults = PolicyDefaults()
    agents: Mapping[str, AgentPolicy] = {}

    @property
    def hash(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that lasts: a ``pattern`` that is allowed, or one exact order by its ``digest``.

    ``agent`` may do it, nobody else. A grant that was taken back is kept for a
    while, to be seen.
    """

    id: str
    approval_id: str
    agent: str
    command: str  # for people: the pattern, or the whole line
    pattern: str = ""
    digest: str = ""
    directory: str | None = None
    created_at_ms: int
    granted_by: str
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    revoked_by: str | None = None
    last_used_at_ms: int | None = None
    use_count: int = 0

    def holds(self, agent: str, now_ms: int) -> bool:
        is_over = self.expires_at_ms is not None and self.expires_at_ms <= now_ms
        return self.agent == agent and self.revoked_at_ms is None and not is_over


class StoredApprovals(msgspec.Struct, frozen=True, kw_only=True):
    """``policy`` is None until somebody sets one."""

    policy: PolicyFile | None = None
    grants: tuple[Grant, ...] = ()


class Files(Protocol):
    """The part of a confined directory that is needed here."""

    def read_bytes(self, relative: str, *, limit: int) -> bytes: ...
    def write_atomic(self, relative: str, data: bytes, *, mode: int = 0o600) -> None: ...


class ApprovalStore:
    """The file of one tenant. Methods block: call them in a thread."""

    def __init__(self, root: Files) -> None:
        """``root`` is the tenant's directory."""
        self._root = root

    def load(self) -> StoredApprovals:
        """What is stored, nothing where there is no file.

        Raises :exc:`TenantBroken` for a file that cannot be used.
        """
        data = self._read()
        return StoredApprovals() if data is None else _parsed(data)

    def save(self, stored: StoredApprovals) -> None:
        """Replace all of it; when this returns it is on disk.

        Raises :exc:`TooLarge`, :exc:`DiskFull`, and :exc:`TenantBroken` rather
        than replace a file that cannot be read.
        """
        _require_room(stored)
        before = self._read()
        content = {
            "schema_version": SCHEMA_VERSION,
            "compat_version": COMPAT_VERSION,
            **({} if before is None else _newer_keys(before)),
            **msgspec.to_builtins(stored),
        }
        data = msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
        if len(data) > LARGEST:
            raise TooLarge(f"the approvals exceed {LARGEST} bytes; remove some", limit=LARGEST)
        self._root.write_atomic(FILE, data)

    def _read(self) -> bytes | None:
        try:
            return self._root.read_bytes(FILE, limit=LARGEST)
        except FileNotFoundError:
            return None
        except ApplianceError as error:
            raise TenantBroken(error.detail) from error
        except OSError as error:
            raise TenantBroken(f"{FILE} cannot be read: {error.strerror}") from error


class _StrictGrant(Grant, frozen=True, forbid_unknown_fields=True):
    pass


class _File(StoredApprovals, frozen=True, kw_only=True):
    schema_version: int
    compat_version: int


class _Strict(_File, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as this release writes it: a misspelt ``revoked_at_ms`` would revoke nothing."""

    grants: tuple[_StrictGrant, ...] = ()


def _parsed(data: bytes) -> StoredApprovals:
    try:
        file = msgspec.json.decode(data, type=_File)
        if file.compat_version > SCHEMA_VERSION:
            raise ValueError("it was written by a newer release that says we may not")
        if file.schema_version <= SCHEMA_VERSION:
            msgspec.json.decode(data, type=_Strict)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise TenantBroken(f"{FILE} cannot be used: {error}") from error
    return StoredApprovals(policy=file.policy, grants=file.grants)


def _newer_keys(before: bytes) -> dict[str, msgspec.Raw]:
    """What a newer release wrote beside ours, its versions included, to be kept."""
    _parsed(before)
    keys = msgspec.json.decode(before, type=dict[str, msgspec.Raw])
    is_newer = msgspec.json.decode(keys["schema_version"], type=int) > SCHEMA_VERSION
    return keys if is_newer else {}


def _require_room(stored: StoredApprovals) -> None:
    agents = {} if stored.policy is None else stored.policy.agents
    entries = sum(len(agent.allowlist) for agent in agents.values())
    for number, most, things in (
        (len(stored.grants), MOST_GRANTS, "lasting answers"),
        (len(agents), MOST_AGENTS, "agents in the approvals"),
        (entries, MOST_ENTRIES, "allow-list entries"),
    ):
        if number > most:
            raise TooLarge(f"a tenant has at most {most} {things}; remove some", limit=most)
