"""Every key of ``config.yaml``.

The structs are the only validation of shape; :mod:`appliance.config.rules`
holds what must be true between keys, ``docs/configuration.md`` explains each
key. Durations are seconds. A value that has lived in here never changes: a
reload makes a new config.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from appliance.config.fields import (
    AbsolutePath,
    AdminKeyHash,
    AgentId,
    Alias,
    Amount,
    Avatar,
    BaseUrl,
    Bind,
    Command,
    Count,
    Currency,
    Emoji,
    Headers,
    Label,
    MainKey,
    ModelName,
    ModelOrAlias,
    Network,
    Origin,
    Peer,
    ProviderName,
    Seconds,
    SecondsOrNone,
    SecretReference,
    StoreUrl,
    TemplateName,
    TimeZone,
    Variable,
)
from appliance.config.guardrail_schema import Guardrails
from appliance.config.model_schema import (
    ApiKeyConfig,
    BalancedModels,
    ModelTimeouts,
    ResponseCacheConfig,
)
from appliance.config.response_schema import ResponsesDefaults
from appliance.config.sandbox_schema import EgressConfig, SandboxConfig, SandboxDefaults
from appliance.config.section import Section as Section
from appliance.config.tool_schema import ToolDefaults, ToolRules
from appliance.model.errors import FieldError, InvalidRequest
from appliance.model.money import Price, parse_amount
from appliance.model.quotas import Quotas, parse_quotas

KIB = 1024
MIB = 1024 * KIB
EMBEDDED_CONTEXT = 4096  # tokens


def quota_problems(raw: object, path: str) -> list[FieldError]:
    """What is wrong with a ``quotas`` mapping, all of it."""
    if not isinstance(raw, Mapping):
        return [FieldError(path, "expected a mapping of quotas", "see the list of quota keys")]
    try:
        parse_quotas(raw, path=path)
    except InvalidRequest as exc:
        return list(exc.fields)
    return []


QuotaMap = Annotated[dict[str, Any], Meta(extra={"problems": quota_problems})]


class AdminKeyConfig(Section, frozen=True, kw_only=True):
    label: Label
    hash: AdminKeyHash


class TlsConfig(Section, frozen=True, kw_only=True):
    cert: AbsolutePath
    key: AbsolutePath


class WebSocketConfig(Section, frozen=True, kw_only=True):
    """What one client, one tenant and all of them together may hold on to."""

    max_connections_per_tenant: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    max_frame_bytes: Annotated[int, Meta(ge=64 * KIB, le=1024 * MIB)] = 25 * MIB
    max_frame_bytes_before_auth: Annotated[int, Meta(ge=4 * KIB, le=MIB)] = 64 * KIB
    max_in_flight: Annotated[int, Meta(ge=1, le=10_000)] = 64
    max_buffered_bytes: Annotated[int, Meta(ge=64 * KIB, le=1024 * MIB)] = 8 * MIB
    max_buffered_bytes_per_tenant: Annotated[int, Meta(ge=64 * KIB, le=16 * 1024 * MIB)] = 64 * MIB
    handshake_timeout: Seconds = 15.0
    tick_interval: Seconds = 30.0
    login_failures_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    login_lockout: SecondsOrNone = 300.0


class ServerConfig(Section, frozen=True, kw_only=True):
    bind: Bind = "127.0.0.1:18789"
    admin_keys: list[AdminKeyConfig] = []
    behind_proxy: bool = False
    trusted_proxies: list[Network] = []
    tls: TlsConfig | None = None
    control_plane_token: SecretReference | None = None
    allowed_origins: list[Origin] = []
    max_body_bytes: Annotated[int, Meta(ge=1024, le=1024 * MIB)] = 20 * MIB
    max_control_body_bytes: Annotated[int, Meta(ge=1024, le=64 * MIB)] = MIB
    body_timeout: Seconds = 30.0
    keep_alive_timeout: Seconds = 75.0
    sse_keepalive: Seconds = 15.0
    drain_timeout: Seconds = 20.0
    hibernate_after: Seconds = 300.0
    response_cache_bytes: Annotated[int, Meta(ge=0, le=64 * 1024 * MIB)] = 64 * MIB
    awake_tenants: Annotated[int, Meta(ge=1, le=100_000)] = 100
    websocket: WebSocketConfig = WebSocketConfig()


ProviderDialect = Literal["openai", "openai-responses", "anthropic", "ollama", "embedded"]


class ProviderConfig(Section, frozen=True, kw_only=True):
    dialect: ProviderDialect
    base_url: BaseUrl | None = None
    api_key: SecretReference | None = None
    api_keys: Annotated[list[ApiKeyConfig], Meta(max_length=100)] = []
    models: list[Label] = []
    headers: Headers = {}
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 64
    connect_timeout: Seconds = 10.0
    request_timeout: Seconds = 600.0
    stream_idle_timeout: Seconds = 60.0
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    extras: bool = False
    model_path: AbsolutePath | None = None
    embedding_model_path: AbsolutePath | None = None
    context_tokens: Annotated[int, Meta(ge=256, le=16_777_216)] | None = None
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    idle_unload: Seconds = 300.0

    @property
    def embedded_context(self) -> int:
        """Tokens of context that a model which runs beside the gateway is started with."""
        return self.context_tokens or EMBEDDED_CONTEXT


class RateConfig(Section, frozen=True, kw_only=True):
    """Prices per million tokens, and per thousand searches.

    A class of tokens that is not named costs what its kind costs.
    """

    input: Amount
    output: Amount
    cache_read: Amount | None = None
    cache_write: Amount | None = None
    reasoning: Amount | None = None
    input_audio: Amount | None = None
    output_audio: Amount | None = None
    web_search: Amount | None = None

    def price(self) -> Price:
        return Price(
            input=parse_amount(self.input),
            output=parse_amount(self.output),
            cache_read=parse_amount(self.cache_read or self.input),
            cache_write=parse_amount(self.cache_write or self.input),
            reasoning=parse_amount(self.reasoning or self.output),
            input_audio=_amount(self.input_audio),
            output_audio=_amount(self.output_audio),
            web_search=_amount(self.web_search),
        )

    def surcharges(self) -> frozenset[str]:
        """What else than text has a price."""
        named = {
            name: getattr(self, name) for name in ("input_audio", "output_audio", "web_search")
        }
        return frozenset(name for name, price in named.items() if price is not None)


def _amount(text: str | None) -> int | None:
    return None if text is None else parse_amount(text)


FailoverChain = Annotated[list[ModelName], Meta(min_length=1, max_length=16)]


class ModelsConfig(Section, frozen=True, kw_only=True):
    default: ModelOrAlias | None = None
    # A tenant sets these too, and whoever reads them pays for each entry.
    aliases: Annotated[dict[Alias, ModelName], Meta(max_length=1000)] = {}
    failover: Annotated[dict[ModelOrAlias, FailoverChain], Meta(max_length=1000)] = {}
    balance: Annotated[dict[Alias, BalancedModels], Meta(max_length=1000)] = {}
    timeouts: Annotated[dict[ModelOrAlias, ModelTimeouts], Meta(max_length=1000)] = {}
    rate_card: dict[ModelName, RateConfig] = {}
    max_output_tokens: Count = 4096
    embedding: ModelOrAlias | None = None


class AgentConfig(Section, frozen=True, kw_only=True):
    name: Label | None = None
    model: ModelOrAlias | None = None
    instructions: Annotated[str, Meta(max_length=100_000)] | None = None
    max_output_tokens: Count | None = None
    emoji: Emoji | None = None
    avatar: Avatar | None = None
    theme: Label | None = None
    tools: ToolRules | None = None  # on top of defaults.tools


class SessionReset(Section, frozen=True, kw_only=True):
    mode: Literal["daily", "idle", "off"] = "daily"
    at_hour: Annotated[int, Meta(ge=0, le=23)] | None = 4
    idle_minutes: Annotated[int, Meta(ge=1, le=5_256_000)] | None = None


class ResetByType(Section, frozen=True, kw_only=True):
    direct: SessionReset | None = None
    group: SessionReset | None = None
    thread: SessionReset | None = None


class SendMatch(Section, frozen=True, kw_only=True):
    channel: Label | None = None
    chat_type: Literal["direct", "group", "channel"] | None = None
    key_prefix: Label | None = None


class SendRule(Section, frozen=True, kw_only=True):
    action: Literal["allow", "deny"]
    match: SendMatch = SendMatch()


class SendPolicy(Section, frozen=True, kw_only=True):
    default: Literal["allow", "deny"] = "allow"
    rules: Annotated[list[SendRule], Meta(max_length=200)] = []


QueueMode = Literal["steer", "followup", "collect", "interrupt", "steer-backlog"]


class SessionQueue(Section, frozen=True, kw_only=True):
    mode: QueueMode = "collect"
    debounce_ms: Annotated[int, Meta(ge=0, le=600_000)] = 1000
    cap: Annotated[int, Meta(ge=1, le=1000)] = 20
    drop: Literal["old", "new", "summarize"] = "summarize"
    by_channel: Annotated[dict[Label, QueueMode], Meta(max_length=200)] = {}


class SessionCompaction(Section, frozen=True, kw_only=True):
    enabled: bool = True
    reserve_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 16_384
    keep_recent_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 20_000
    instructions: Annotated[str, Meta(max_length=10_000)] | None = None


class SessionDefaults(Section, frozen=True, kw_only=True):
    scope: Literal["per-sender", "global"] = "per-sender"
    dm_scope: Literal["main", "per-peer", "per-channel-peer", "per-account-channel-peer"] = "main"
    main_key: MainKey = "main"
    identity_links: Annotated[
        dict[Label, Annotated[list[Peer], Meta(max_length=100)]], Meta(max_length=1000)
    ] = {}
    reset: SessionReset = SessionReset()
    reset_by_type: ResetByType = ResetByType()
    reset_by_channel: Annotated[dict[Label, SessionReset], Meta(max_length=200)] = {}
    reset_triggers: Annotated[list[Command], Meta(max_length=50)] = msgspec.field(
        default_factory=lambda: ["/new", "/reset"]
    )
    timezone: TimeZone | None = None
    send_policy: SendPolicy = SendPolicy()
    queue: SessionQueue = SessionQueue()
    compaction: SessionCompaction = SessionCompaction()
    history_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    max_sessions: Annotated[int, Meta(ge=1, le=100_000)] = 500
    agent_timeout: SecondsOrNone = 600.0


class MemoryDefaults(Section, frozen=True, kw_only=True):
    """No keys yet."""


class Defaults(Section, frozen=True, kw_only=True):
    agents: Annotated[dict[AgentId, AgentConfig], Meta(max_length=200)] = {}
    session: SessionDefaults = SessionDefaults()
    tools: ToolDefaults = ToolDefaults()
    sandbox: SandboxDefaults = SandboxDefaults()
    memory: MemoryDefaults = MemoryDefaults()
    guardrails: Guardrails = []
    response_cache: ResponseCacheConfig = ResponseCacheConfig()
    responses: ResponsesDefaults = ResponsesDefaults()


class Billing(Section, frozen=True, kw_only=True):
    currency: Currency = "USD"


class BackupStore(Section, frozen=True, kw_only=True):
    url: StoreUrl
    endpoint: BaseUrl | None = None
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None


class BackupConfig(Section, frozen=True, kw_only=True):
    store: BackupStore | None = None


class ChannelLimits(Section, frozen=True, kw_only=True):
    inbound_per_minute: Count = 600
    max_attachment_bytes: Count = 20 * MIB


class ChannelsConfig(Section, frozen=True, kw_only=True):
    limits: ChannelLimits = ChannelLimits()


class LoggingConfig(Section, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    access: bool = True


class MetricsConfig(Section, frozen=True, kw_only=True):
    per_tenant: bool = False


class Template(Section, frozen=True, kw_only=True):
    name: Label | None = None
    quotas: QuotaMap = {}
    config: dict[str, Any] = {}


class GatewayConfig(Section, frozen=True, kw_only=True):
    server: ServerConfig = ServerConfig()
    providers: dict[ProviderName, ProviderConfig] = {}
    models: ModelsConfig = ModelsConfig()
    defaults: Defaults = Defaults()
    guardrails: Guardrails = []
    quotas: QuotaMap = {}
    billing: Billing = Billing()
    sandbox: SandboxConfig = SandboxConfig()
    backup: BackupConfig = BackupConfig()
    channels: ChannelsConfig = ChannelsConfig()
    egress: EgressConfig = EgressConfig()
    logging: LoggingConfig = LoggingConfig()
    metrics: MetricsConfig = MetricsConfig()
    templates: dict[TemplateName, Template] = {}
    env: dict[Variable, str] = {}
    meta: dict[str, Any] = {}


def quota_defaults(config: GatewayConfig) -> Quotas:
    """The limits of a tenant for whom nothing else was set."""
    return Quotas().merged(parse_quotas(config.quotas))


def builtins(config: msgspec.Struct) -> dict[str, Any]:
    """``config`` as plain mappings, lists and scalars."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    return plain
