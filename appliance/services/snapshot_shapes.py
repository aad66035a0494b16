"""The answers to ``health`` and ``status``, member for member as OpenClaw's clients read them.

Where those tell a path of the host, ours tell a name: ``tenant:<id>``.
"""

from collections.abc import Mapping, Sequence

import msgspec


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every member is sent, whatever it is: clients read them unasked."""


class Heartbeat(Shape, frozen=True, kw_only=True):
    """What runs on a heartbeat; nothing does in this release."""

    enabled: bool = False
    every: str = "disabled"
    every_ms: int | None = None
    prompt: str = ""
    target: str = "none"
    ack_max_chars: int = 0


class RecentSession(Shape, frozen=True, kw_only=True):
    key: str
    updated_at: int
    age: int  # ms


class SessionSummary(Shape, frozen=True, kw_only=True):
    path: str
    count: int
    recent: Sequence[RecentSession] = ()


class AgentHealth(Shape, frozen=True, kw_only=True):
    agent_id: str
    name: str
    is_default: bool
    heartbeat: Heartbeat
    sessions: SessionSummary


class SandboxHealth(Shape, frozen=True, kw_only=True):
    """What isolates commands; ``problem`` is why nothing is run, "" if it is."""

    available: bool
    backend: str
    limits: str
    problem: str


class GatewayHealth(Shape, frozen=True, kw_only=True):
    """The gateway itself, for admins."""

    version: str
    started_at: int
    uptime_ms: int
    tenants: int
    tenants_disabled: int
    tenants_awake: int
    tenants_broken: Mapping[str, str]
    disk_free_bytes: int
    config_problem: str | None
    providers: Sequence[str]
    sandbox: SandboxHealth


class Health(Shape, frozen=True, kw_only=True):
    ok: bool
    ts: int
    duration_ms: int
    channels: Mapping[str, object] = {}
    channel_order: Sequence[str] = ()
    channel_labels: Mapping[str, str] = {}
    heartbeat_seconds: int = 0
    default_agent_id: str
    agents: Sequence[AgentHealth]
    sessions: SessionSummary
    gateway: GatewayHealth | msgspec.UnsetType = msgspec.UNSET


class AgentHeartbeat(Shape, frozen=True, kw_only=True):
    agent_id: str
    enabled: bool = False
    every: str = "disabled"
    every_ms: int | None = None


class Heartbeats(Shape, frozen=True, kw_only=True):
    default_agent_id: str
    agents: Sequence[AgentHeartbeat] = ()


class SessionLine(Shape, frozen=True, kw_only=True):
    agent_id: str
    key: str
    kind: str
    session_id: str
    updated_at: int
    age: int  # ms
    system_sent: bool
    input_tokens: int
    output_tokens: int
    cache_read: int
    cache_write: int
    total_tokens: int
    total_tokens_fresh: bool
    remaining_tokens: int
    percent_used: int
    model: str
    context_tokens: int
    flags: Sequence[str]
    aborted_last_run: bool


class SessionDefaults(Shape, frozen=True, kw_only=True):
    model: str | None
    context_tokens: int | None


class AgentSessions(Shape, frozen=True, kw_only=True):
    agent_id: str
    path: str
    count: int
    recent: Sequence[SessionLine]


class StatusSessions(Shape, frozen=True, kw_only=True):
    paths: Sequence[str]
    count: int
    defaults: SessionDefaults
    recent: Sequence[SessionLine] = ()
    by_agent: Sequence[AgentSessions] = ()


class NamedAgent(Shape, frozen=True, kw_only=True):
    id: str
    name: str


class ProjectedAgents(Shape, frozen=True, kw_only=True):
    default_id: str | None
    ownership: str | None = None
    selection_required: bool = False
    rows: Sequence[NamedAgent] = ()


class CliProjection(Shape, frozen=True, kw_only=True):
    """What a command line that has no config of ours wants to know of it."""

    agents: ProjectedAgents


class Status(Shape, frozen=True, kw_only=True):
    runtime_version: str
    heartbeat: Heartbeats
    channel_summary: Sequence[str] = ()
    queued_system_events: Sequence[str] = ()
    sessions: StatusSessions
    cli_projection: CliProjection | msgspec.UnsetType = msgspec.UNSET
    gateway: GatewayHealth | msgspec.UnsetType = msgspec.UNSET
