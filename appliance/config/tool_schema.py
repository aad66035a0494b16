"""The keys of ``config.yaml`` about what agents may do."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from appliance.config.fields import (
    Amount,
    BaseUrl,
    Headers,
    Label,
    ProviderName,
    Seconds,
    SecondsOrNone,
    ServerName,
    ToolPattern,
    Variable,
)
from appliance.config.section import Section

KIB = 1024
MIB = 1024 * KIB

Profile = Literal["minimal", "coding", "messaging", "full"]
Patterns = Annotated[list[ToolPattern], Meta(max_length=500)]
NOT_OVER_HTTP = (
    "sessions_spawn", "sessions_send", "exec", "process", "write", "edit", "apply_patch",
    "group:mcp",
)  # fmt: skip
Argument = Annotated[str, Meta(max_length=32_768)]


class ToolRules(Section, frozen=True, kw_only=True):
    """Which tools may be used: those of the profile and of ``allow``, without those of ``deny``."""

    profile: Profile | None = None
    allow: Patterns | None = None
    deny: Patterns = []


class ExecConfig(Section, frozen=True, kw_only=True):
    security: Literal["deny", "allowlist", "full"] = "full"
    ask: Literal["off", "on-miss", "always"] = "off"
    ask_fallback: Literal["deny", "allowlist", "full"] = "deny"  # where nobody can be asked
    allowlist: Annotated[list[Argument], Meta(max_length=1000)] = []
    approval_timeout: Seconds = 120.0
    timeout: Seconds = 1800.0
    yield_after: Seconds = 10.0
    max_output_bytes: Annotated[int, Meta(ge=KIB, le=64 * MIB)] = 200_000
    max_processes: Annotated[int, Meta(ge=1, le=1000)] = 16  # in the background, of a tenant


class WebFetchConfig(Section, frozen=True, kw_only=True):
    enabled: bool = True
    max_chars: Annotated[int, Meta(ge=100, le=2_000_000)] = 50_000
    max_bytes: Annotated[int, Meta(ge=KIB, le=256 * MIB)] = 4 * MIB
    timeout: Seconds = 30.0
    max_redirects: Annotated[int, Meta(ge=0, le=10)] = 3


class WebSearchConfig(Section, frozen=True, kw_only=True):
    provider: Literal["brave", "tavily", "searxng"] | None = None
    base_url: BaseUrl | None = None
    credential: ProviderName | None = None  # of the tenant's credentials
    max_results: Annotated[int, Meta(ge=1, le=20)] = 5
    timeout: Seconds = 30.0


class WebConfig(Section, frozen=True, kw_only=True):
    fetch: WebFetchConfig = WebFetchConfig()
    search: WebSearchConfig = WebSearchConfig()


class UntrustedConfig(Section, frozen=True, kw_only=True):
    """What a run needs approval for once it has read what strangers wrote."""

    needs_approval: Annotated[
        list[Literal["exec", "fetch", "send", "write"]], Meta(max_length=4)
    ] = []


class TurnLimits(Section, frozen=True, kw_only=True):
    """Of one turn of an agent."""

    max_rounds: Annotated[int, Meta(ge=1, le=1000)] = 50
    max_tool_calls: Annotated[int, Meta(ge=1, le=10_000)] = 200
    max_cost: Amount | None = None
    max_parallel: Annotated[int, Meta(ge=1, le=64)] = 8
    tool_timeout: SecondsOrNone = 1800.0
    max_result_chars: Annotated[int, Meta(ge=1000, le=10_000_000)] = 60_000
    # The same call with the same result: so often it is warned, then refused, then ended.
    repeats_warned: Annotated[int, Meta(ge=2, le=1000)] = 5
    repeats_ended: Annotated[int, Meta(ge=3, le=1000)] = 10


class SubagentConfig(Section, frozen=True, kw_only=True):
    max_depth: Annotated[int, Meta(ge=0, le=10)] = 2
    max_running: Annotated[int, Meta(ge=1, le=200)] = 8  # of a tenant
    timeout: SecondsOrNone = 1800.0
    deny: Patterns = []  # what they may not use, besides what their agent may not


class McpServerConfig(Section, frozen=True, kw_only=True):
    """One of ``command`` (run in the sandbox) and ``url`` (streamable HTTP, by egress rules)."""

    command: Annotated[list[Argument], Meta(min_length=1, max_length=200)] | None = None
    environment: Annotated[dict[Variable, Argument], Meta(max_length=100)] = {}
    url: BaseUrl | None = None
    headers: Headers = {}
    credential: ProviderName | None = None  # of the tenant's; as a bearer token, for ``url``
    enabled: bool = True
    startup_timeout: Seconds = 30.0
    call_timeout: Seconds = 120.0
    max_result_bytes: Annotated[int, Meta(ge=KIB, le=64 * MIB)] = MIB
    deny: Patterns = []  # tools of it, by its own names


class PromptConfig(Section, frozen=True, kw_only=True):
    """What of the workspace files is put before a conversation."""

    max_file_chars: Annotated[int, Meta(ge=100, le=1_000_000)] = 20_000
    max_chars: Annotated[int, Meta(ge=100, le=10_000_000)] = 150_000
    skip_bootstrap: bool = False


class ToolDefaults(Section, frozen=True, kw_only=True):
    profile: Profile = "full"
    allow: Patterns | None = None
    deny: Patterns = []
    by_channel: Annotated[dict[Label, ToolRules], Meta(max_length=200)] = {}
    # Of POST /tools/invoke, besides the rest.
    http_deny: Patterns = msgspec.field(default_factory=lambda: list(NOT_OVER_HTTP))
    exec: ExecConfig = ExecConfig()
    web: WebConfig = WebConfig()
    untrusted: UntrustedConfig = UntrustedConfig()
    limits: TurnLimits = TurnLimits()
    subagents: SubagentConfig = SubagentConfig()
    mcp: Annotated[dict[ServerName, McpServerConfig], Meta(max_length=50)] = {}
    prompt: PromptConfig = PromptConfig()
