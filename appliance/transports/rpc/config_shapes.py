"""What ``config.*`` take and return."""

from typing import Annotated, Any

from msgspec import Meta, field

from appliance.transports.rpc.fields import SessionKeyText
from appliance.transports.rpc.method import Params, Result

# Longer than any text that is accepted, so that whoever exceeds it is told the limit in bytes.
RawText = Annotated[str, Meta(max_length=1_000_000, description="JSON or JSON5.")]
Hash = Annotated[str, Meta(max_length=128, description="The hash that config.get returned.")]


class ConfigSetParams(Params, frozen=True, kw_only=True):
    raw: RawText
    base_hash: Hash | None = None


class Delivery(Params, frozen=True, kw_only=True):
    """Where to tell of a restart; there is none here."""

    channel: str | None = None
    to: str | None = None
    account_id: str | None = None
    thread_id: str | int | None = None


class ConfigApplyParams(ConfigSetParams, frozen=True, kw_only=True):
    """All but the first two are about a restart, which a change does not need here."""

    session_key: SessionKeyText | None = None
    delivery_context: Delivery | None = None
    note: Annotated[str, Meta(max_length=10_000)] | None = None
    restart_delay_ms: Annotated[int, Meta(ge=0)] | None = None


class ConfigPatchParams(ConfigApplyParams, frozen=True, kw_only=True):
    replace_paths: Annotated[
        list[Annotated[str, Meta(max_length=1024)]],
        Meta(max_length=256, description="Lists to replace rather than merge by id, as a.b.c."),
    ] = field(default_factory=list)


class ConfigSchemaLookupParams(Params, frozen=True, kw_only=True):
    path: Annotated[str, Meta(min_length=1, max_length=1024, description="Such as a.b.*.c.")]


class ConfigIssue(Result, frozen=True, kw_only=True):
    path: str
    message: str


class ConfigSnapshot(Result, frozen=True, kw_only=True):
    path: Annotated[str, Meta(description="A name, not a path.")]
    exists: bool
    raw: Annotated[str | None, Meta(description="The tenant's own settings as JSON.")]
    parsed: dict[str, Any]
    resolved: dict[str, Any]
    valid: bool
    config: Annotated[dict[str, Any], Meta(description="What holds, the gateway's included.")]
    hash: str
    applied_config_hash: str
    issues: list[ConfigIssue]
    warnings: list[ConfigIssue]
    legacy_issues: list[ConfigIssue]


class ConfigWritten(Result, frozen=True, kw_only=True):
    ok: bool
    path: str
    hash: str
    config: dict[str, Any]


class ConfigApplied(ConfigWritten, frozen=True, kw_only=True):
    restart: None  # the change holds already
    sentinel: None


class ConfigSchemaResult(Result, frozen=True, kw_only=True):
    schema: dict[str, Any]
    ui_hints: dict[str, Any]
    version: str
    generated_at: str


class SchemaChild(Result, frozen=True, kw_only=True):
    key: str
    path: str
    type: str | None = None
    required: bool
    has_children: bool
    reload_kind: str
    hint: dict[str, Any] | None = None
    hint_path: str | None = None


class ConfigSchemaLookupResult(Result, frozen=True, kw_only=True):
    path: str
    schema: dict[str, Any]
    reload_kind: str
    hint: dict[str, Any] | None = None
    hint_path: str | None = None
    children: list[SchemaChild] = field(default_factory=list)
