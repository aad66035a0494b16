"""The keys of ``config.yaml`` about where tools run and what they reach."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from appliance.config.fields import (
    BindMount,
    Count,
    HeaderName,
    HostPattern,
    Image,
    Label,
    Port,
    ProviderName,
    Seconds,
    SecondsOrNone,
    Variable,
)
from appliance.config.section import Section

MIB = 1024 * 1024
Text = Annotated[str, Meta(max_length=32_768)]


class SandboxLimits(Section, frozen=True, kw_only=True):
    """Of one sandbox; a tenant's quotas are of all of its own together."""

    cpu_percent: Count | None = 100  # of one core
    memory_mb: Count | None = 512
    pids: Count | None = 128
    disk_mb: Count | None = None  # in the workspaces of a tenant
    files: Annotated[int, Meta(ge=1000, le=10_000_000)] = 1_000_000  # of a tenant


class SandboxConfig(Section, frozen=True, kw_only=True):
    """The operator's."""

    backend: Literal["auto", "bubblewrap", "podman"] = "auto"
    binds: list[BindMount] = []
    limits: SandboxLimits = SandboxLimits()
    # Who sandboxes are on the host when the gateway runs as root; see docs/sandbox.md.
    uid: Annotated[int, Meta(ge=1, le=4_000_000_000)] = 60_900
    image: Image | None = None  # what Podman's sandboxes are made of


class TerminalDefaults(Section, frozen=True, kw_only=True):
    shell: Label = "/bin/bash"
    idle_timeout: SecondsOrNone = 1800.0
    max_lifetime: SecondsOrNone = 43_200.0
    detached_timeout: Seconds = 300.0  # how long it waits for somebody to come back
    scrollback_bytes: Annotated[int, Meta(ge=4096, le=16 * MIB)] = 256 * 1024
    record: bool = False
    recordings_kept: Annotated[int, Meta(ge=0, le=10_000)] = 100
    max_recording_bytes: Annotated[int, Meta(ge=4096, le=1024 * MIB)] = 16 * MIB
    support: Literal["never", "ask", "read", "write"] = "ask"  # what needs no consent
    support_limit: Seconds = 3600.0


class SandboxDefaults(Section, frozen=True, kw_only=True):
    """A tenant's own, within the operator's."""

    workspace: Literal["rw", "ro", "none"] = "rw"
    environment: Annotated[dict[Variable, Text], Meta(max_length=200)] = {}
    terminal: TerminalDefaults = TerminalDefaults()


class InjectedCredential(Section, frozen=True, kw_only=True):
    """A stored credential that is added on the way out and never shown inside."""

    name: ProviderName  # of the tenant's credentials
    header: HeaderName = "authorization"
    prefix: Annotated[str, Meta(max_length=64)] = "Bearer "


class EgressRule(Section, frozen=True, kw_only=True):
    host: HostPattern
    ports: Annotated[list[Port], Meta(min_length=1, max_length=32)] = msgspec.field(
        default_factory=lambda: [443]
    )
    methods: Annotated[list[Label], Meta(max_length=16)] | None = None  # None: all
    credential: InjectedCredential | None = None
    max_bytes: Count | None = None  # of one run, both ways


class EgressConfig(Section, frozen=True, kw_only=True):
    """What sandboxes and the gateway's own fetches for a tenant may reach."""

    allow_private: bool = False
    only: list[HostPattern] | None = None  # the operator's bound on what tenants allow
    allow: Annotated[list[EgressRule], Meta(max_length=500)] = []
    max_connections: Annotated[int, Meta(ge=1, le=1000)] = 32  # of one sandbox at once
    max_bytes: Count = 2048 * MIB  # of one sandbox, both ways
    idle_timeout: Seconds = 120.0
