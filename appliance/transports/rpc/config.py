"""``config.*``: a tenant's own settings, on top of the gateway's.

What a tenant is shown holds nothing that is the operator's: no secret, no
address, no path. A change holds at once; nothing is ever restarted.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio

from appliance.config.json_schema import find_schema, overlay_schema, ui_hints
from appliance.config.json_text import parse_json_text
from appliance.config.overlay import public_view
from appliance.config.patching import apply_patch
from appliance.config.redaction import REDACTED, redacted, restored
from appliance.config.schema import builtins
from appliance.model.errors import (
    AdminOnlyKey,
    ApplianceError,
    ConfigInvalid,
    FieldError,
    Forbidden,
    InvalidRequest,
    PreconditionFailed,
)
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ns
from appliance.model.tokens import Scope
from appliance.services.tenant_config import NO_FILE, ConfigDocument
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.rpc.config_shapes import (
    ConfigApplied,
    ConfigApplyParams,
    ConfigIssue,
    ConfigPatchParams,
    ConfigSchemaLookupParams,
    ConfigSchemaLookupResult,
    ConfigSchemaResult,
    ConfigSetParams,
    ConfigSnapshot,
    ConfigWritten,
    SchemaChild,
)
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Params, Who

_MILLISECOND = 1_000_000  # ns
_HOT = "hot"
Change = Callable[[Mapping[str, Any]], object]


async def get(call: MethodCall[NoParams]) -> ConfigSnapshot:
    tenant = call.tenant
    if tenant is None:
        return _gateway_snapshot(call)
    try:
        document = await call.services.tenants.config(call.caller, tenant.id)
    except (ConfigInvalid, AdminOnlyKey) as exc:
        return await _damaged(call, tenant, exc)
    overlay = redacted(document.overlay)
    effective = redacted(document.effective_public)
    return ConfigSnapshot(
        path=path_of(tenant),
        exists=document.exists,
        raw=_text(overlay) if document.exists else None,
        parsed=overlay,
        resolved=effective,
        valid=True,
        config=effective,
        hash=document.etag,
        applied_config_hash=document.etag,
        issues=[],
        warnings=[],
        legacy_issues=[],
    )


async def replace(call: MethodCall[ConfigSetParams]) -> ConfigWritten:
    document = await _replace(call, call.params)
    return ConfigWritten(**_written(call, document))


async def apply(call: MethodCall[ConfigApplyParams]) -> ConfigApplied:
    _note_write(call)
    _check_session(call, call.params)
    document = await _replace(call, call.params)
    return ConfigApplied(**_written(call, document), restart=None, sentinel=None)


async def patch(call: MethodCall[ConfigPatchParams]) -> ConfigApplied:
    params = call.params
    _note_write(call)
    _check_session(call, params)
    changes = parse_json_text(params.raw)
    if not isinstance(changes, dict):
        raise InvalidRequest("config.patch raw must be an object")

    def change(overlay: Mapping[str, Any]) -> object:
        merged = apply_patch(overlay, changes, replace_paths=params.replace_paths)
        return restored(merged, overlay)

    document = await _change(call, params.base_hash, change)
    return ConfigApplied(**_written(call, document), restart=None, sentinel=None)


async def schema(call: MethodCall[NoParams]) -> ConfigSchemaResult:
    return ConfigSchemaResult(
        schema=overlay_schema(),
        ui_hints=ui_hints(),
        version=call.services.version,
        generated_at=call.services.clock().isoformat(),
    )


async def lookup(call: MethodCall[ConfigSchemaLookupParams]) -> ConfigSchemaLookupResult:
    path = call.params.path
    found = find_schema(path)
    if found is None:
        raise InvalidRequest("config schema path not found")
    hint_path, at = found
    return ConfigSchemaLookupResult(
        path=path,
        schema={key: value for key, value in at.items() if key not in {"properties", "items"}},
        reload_kind=_HOT,
        hint=ui_hints().get(hint_path),
        hint_path=hint_path or None,
        children=list(_children(path, hint_path, at)),
    )


def path_of(tenant: TenantRuntime) -> str:
    """What a tenant's settings are called; where they are is nobody's business."""
    return f"tenant:{tenant.id}"


def announce(call: MethodCall[Any], version: str) -> None:
    """Tell the tenant's clients that its settings changed."""
    payload = {
        "path": path_of(call.awake),
        "hash": version,
        "ts": to_ns(call.services.clock()) // _MILLISECOND,
    }
    call.awake.events.publish("config.changed", payload)


# -- writing -----------------------------------------------------------------


async def _replace(call: MethodCall[Any], params: ConfigSetParams) -> ConfigDocument:
    value = parse_json_text(params.raw)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{call.method.name} raw must be an object")
    if REDACTED in json.dumps(value):
        return await _change(call, params.base_hash, partial(restored, value))
    # Without a look at what is stored, so that a damaged file can be replaced.
    tenant, version = await _expected(call, params.base_hash)
    with _in_clients_words():
        return await call.services.tenants.put_config(
            call.caller, tenant.id, value, if_match=version
        )


async def _change(call: MethodCall[Any], base_hash: str | None, change: Change) -> ConfigDocument:
    tenant, version = await _expected(call, base_hash)
    with _in_clients_words():
        return await call.services.tenants.change_config(
            call.caller, tenant.id, change, if_match=version
        )


async def _expected(call: MethodCall[Any], base_hash: str | None) -> tuple[TenantRuntime, str]:
    """The version that is to be replaced; whoever replaces something has to have seen it."""
    tenant = _require_tenant(call)
    if base_hash:
        return tenant, base_hash
    if await call.services.tenants.config_version(call.caller, tenant.id) != NO_FILE:
        raise InvalidRequest("config base hash required; re-run config.get and retry")
    return tenant, NO_FILE


def _require_tenant(call: MethodCall[Any]) -> TenantRuntime:
    if call.tenant is None:
        raise Forbidden(
            "the gateway's own config is the file config.yaml; edit that, or connect at"
            " /t/<id>/ws to change a tenant's"
        )
    return call.tenant


def _note_write(call: MethodCall[Any]) -> None:
    client = f"{call.caller.credential}|{call.caller.ip}"
    _require_tenant(call).state.config_writes.note(
        client, method=call.method.name, now=trio.current_time()
    )


def _check_session(call: MethodCall[Any], params: ConfigApplyParams) -> None:
    if params.session_key is not None:
        call.session_key(params.session_key)


def _written(call: MethodCall[Any], document: ConfigDocument) -> dict[str, Any]:
    announce(call, document.etag)
    return {
        "ok": True,
        "path": path_of(call.awake),
        "hash": document.etag,
        "config": redacted(document.effective_public),
    }


@contextmanager
def _in_clients_words() -> Iterator[None]:
    """Failures as OpenClaw's clients know them."""
    try:
        yield
    except PreconditionFailed:
        reason = "config changed since last load; re-run config.get and retry"
        raise InvalidRequest(reason, fields=[FieldError("baseHash", "is not current")]) from None
    except ConfigInvalid as exc:
        told = "; ".join(f"at {_pointer(each)}: {each.reason}" for each in exc.fields[:20])
        raise ConfigInvalid(f"invalid config: {told or exc.detail}", fields=exc.fields) from None


def _pointer(error: FieldError) -> str:
    return "/" + error.field.replace("[", "/").replace("]", "").replace(".", "/")


# -- showing -----------------------------------------------------------------


def _gateway_snapshot(call: MethodCall[Any]) -> ConfigSnapshot:
    """For an admin at large: all of the gateway's config but the secrets."""
    config = redacted(builtins(call.services.config()))
    text = _text(config)
    version = hashlib.sha256(text.encode()).hexdigest()[:32]
    return ConfigSnapshot(
        path="gateway",
        exists=True,
        raw=text,
        parsed=config,
        resolved=config,
        valid=True,
        config=config,
        hash=version,
        applied_config_hash=version,
        issues=[],
        warnings=[],
        legacy_issues=[],
    )


async def _damaged(
    call: MethodCall[Any], tenant: TenantRuntime, problem: ApplianceError
) -> ConfigSnapshot:
    """Somebody edited the file by hand; what held before still does."""
    version = await call.services.tenants.config_version(call.caller, tenant.id)
    running = redacted(public_view(tenant.config))
    fields = problem.fields or (FieldError("", problem.detail),)
    return ConfigSnapshot(
        path=path_of(tenant),
        exists=True,
        raw=None,
        parsed={},
        resolved=running,
        valid=False,
        config=running,
        hash=version,
        applied_config_hash="",
        issues=[ConfigIssue(path=each.field, message=each.reason) for each in fields],
        warnings=[],
        legacy_issues=[],
    )


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _children(path: str, hint_path: str, at: Mapping[str, Any]) -> Iterator[SchemaChild]:
    members = dict(at.get("properties", {}))
    for name in ("additionalProperties", "items"):
        if isinstance(at.get(name), dict):
            members["*"] = at[name]
    for key, below in members.items():
        hint = f"{hint_path}.{key}" if hint_path else key
        yield SchemaChild(
            key=key,
            path=key if path == "." else f"{path}.{key}",
            type=below.get("type"),
            required=key in at.get("required", ()),
            has_children=any(
                isinstance(below.get(name), dict)
                for name in ("properties", "additionalProperties", "items")
            ),
            reload_kind=_HOT,
            hint=ui_hints().get(hint),
            hint_path=hint,
        )


def _method(name: str, summary: str, **more: Any) -> Method:
    return Method(name=name, summary=summary, who=Who.ANYONE, **more)


def _write(name: str, summary: str, params: type[Params], result: Any, handler: Any) -> Method:
    return _method(
        name,
        summary,
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=params,
        result=result,
        handler=handler,
        audited="config.write",
    )


METHODS: tuple[Method, ...] = (
    _method(
        "config.get",
        "Show the settings and their hash, without secrets",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        result=ConfigSnapshot,
        handler=get,
    ),
    _write("config.set", "Replace the settings", ConfigSetParams, ConfigWritten, replace),
    _write("config.apply", "As config.set", ConfigApplyParams, ConfigApplied, apply),
    _write("config.patch", "Change the settings named", ConfigPatchParams, ConfigApplied, patch),
    _method(
        "config.schema",
        "Describe the settings as JSON Schema",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        result=ConfigSchemaResult,
        handler=schema,
    ),
    _method(
        "config.schema.lookup",
        "Describe one setting and what is below it",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=ConfigSchemaLookupParams,
        result=ConfigSchemaLookupResult,
        handler=lookup,
    ),
)
