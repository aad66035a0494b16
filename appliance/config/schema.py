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
    BaseUrl,
    Bind,
    BindMount,
    Count,
    Currency,
    Headers,
    Label,
    ModelName,
    ModelOrAlias,
    Network,
    Origin,
    ProviderName,
    Seconds,
    SecretReference,
    StoreUrl,
    TemplateName,
    Variable,
)
from appliance.model.errors import FieldError, InvalidRequest
from appliance.model.money import Price, parse_amount
from appliance.model.quotas import Quotas, parse_quotas

MIB = 1024 * 1024


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping with a fixed set of keys."""


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
    awake_tenants: Annotated[int, Meta(ge=1, le=100_000)] = 100


ProviderDialect = Literal["openai", "openai-responses", "anthropic", "ollama", "embedded"]


class ProviderConfig(Section, frozen=True, kw_only=True):
    dialect: ProviderDialect
    base_url: BaseUrl | None = None
    api_key: SecretReference | None = None
    models: list[Label] = []
    headers: Headers = {}
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 64
    connect_timeout: Seconds = 10.0
    request_timeout: Seconds = 600.0
    stream_idle_timeout: Seconds = 60.0
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    model_path: AbsolutePath | None = None
    embedding_model_path: AbsolutePath | None = None
    context_tokens: Annotated[int, Meta(ge=256, le=1_048_576)] = 4096
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    idle_unload: Seconds = 300.0


class RateConfig(Section, frozen=True, kw_only=True):
    """Prices per million tokens. A class that is not named costs what its kind costs."""

    input: Amount
    output: Amount
    cache_read: Amount | None = None
    cache_write: Amount | None = None
    reasoning: Amount | None = None

    def price(self) -> Price:
        return Price(
            input=parse_amount(self.input),
            output=parse_amount(self.output),
            cache_read=parse_amount(self.cache_read or self.input),
            cache_write=parse_amount(self.cache_write or self.input),
            reasoning=parse_amount(self.reasoning or self.output),
        )


FailoverChain = Annotated[list[ModelName], Meta(min_length=1, max_length=16)]


class ModelsConfig(Section, frozen=True, kw_only=True):
    default: ModelOrAlias | None = None
    # A tenant sets these too, and whoever reads them pays for each entry.
    aliases: Annotated[dict[Alias, ModelName], Meta(max_length=1000)] = {}
    failover: Annotated[dict[ModelOrAlias, FailoverChain], Meta(max_length=1000)] = {}
    rate_card: dict[ModelName, RateConfig] = {}
    max_output_tokens: Count = 4096
    embedding: ModelOrAlias | None = None


class AgentConfig(Section, frozen=True, kw_only=True):
    name: Label | None = None
    model: ModelOrAlias | None = None
    instructions: Annotated[str, Meta(max_length=100_000)] | None = None
    max_output_tokens: Count | None = None


class SessionDefaults(Section, frozen=True, kw_only=True):
    history_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 1500


class ToolDefaults(Section, frozen=True, kw_only=True):
    """No keys yet."""


class SandboxDefaults(Section, frozen=True, kw_only=True):
    """No keys yet."""


class MemoryDefaults(Section, frozen=True, kw_only=True):
    """No keys yet."""


class Defaults(Section, frozen=True, kw_only=True):
    agents: Annotated[dict[AgentId, AgentConfig], Meta(max_length=200)] = {}
    session: SessionDefaults = SessionDefaults()
    tools: ToolDefaults = ToolDefaults()
    sandbox: SandboxDefaults = SandboxDefaults()
    memory: MemoryDefaults = MemoryDefaults()


class Billing(Section, frozen=True, kw_only=True):
    currency: Currency = "USD"


class SandboxLimits(Section, frozen=True, kw_only=True):
    cpu_percent: Count | None = None
    memory_mb: Count | None = None
    pids: Count | None = None
    disk_mb: Count | None = None


class SandboxConfig(Section, frozen=True, kw_only=True):
    backend: Literal["auto", "bubblewrap", "podman"] = "auto"
    binds: list[BindMount] = []
    limits: SandboxLimits = SandboxLimits()


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


class EgressConfig(Section, frozen=True, kw_only=True):
    allow_private: bool = False


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
