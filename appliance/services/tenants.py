"""What can be done with tenants: the one place that changes a tenant's record.

Every verb takes the caller first, refuses what the caller may not do, records
the change in the audit log, acts, and answers when the change is durable. A
revocation takes effect in this order: new requests are refused, the file is
durable, what runs is cancelled, and only then the caller hears of it. If the
file cannot be written, the first and the third happen all the same: whoever
revokes a token that leaked is better served by a refusal that a restart
forgets than by none.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol

import trio

from appliance.config.overlay import merge_patch
from appliance.config.schema import GatewayConfig, quota_defaults
from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest
from appliance.model.ids import new_id, parse_tenant_id
from appliance.model.quotas import parse_quotas, render_limit
from appliance.model.tenants import LONGEST_NAME, TenantRecord
from appliance.model.tokens import Scope, TokenRecord
from appliance.services import tokens as rules
from appliance.services.audit import CREATED, AuditTrail
from appliance.services.registry import TenantRegistry
from appliance.services.tenant_config import (
    FILE,
    ConfigDocument,
    Overlays,
    changed_keys,
    find_template,
    patched,
    render,
    require_version,
)
from appliance.services.tenant_results import CreatedTenant, TenantPage, TenantQuotas
from appliance.services.tokens import MintedToken

__all__ = [
    "UNSET",
    "ConfigDocument",
    "CreatedTenant",
    "MintedToken",
    "TenantPage",
    "TenantQuotas",
    "TenantService",
    "Unset",
]

_MOST_ON_A_PAGE = 1000


class Unset(Enum):
    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""What an argument is when the caller did not name it."""


class Running(Protocol):
    """What is awake, as far as a change of a record must reach it."""

    async def stop(self, tenant: str, *, reason: str) -> None: ...
    async def revoke(self, tenant: str, token_id: str, *, reason: str) -> None: ...
    def refresh(self, tenant: str) -> None: ...


class Tickets(Protocol):
    def void(self, tenant: str) -> None:
        """Forget the tickets of ``tenant``."""


class TenantService:
    """Raises ``Forbidden`` or ``ScopeMissing``, ``TenantUnknown``, ``TenantBroken``,
    ``AuditUnavailable`` and ``DiskFull`` throughout."""

    def __init__(
        self,
        registry: TenantRegistry,
        overlays: Overlays,
        *,
        running: Running,
        audit: AuditTrail,
        tickets: Tickets,
        config: Callable[[], GatewayConfig],
        clock: Callable[[], datetime],
    ) -> None:
        self._registry = registry
        self._overlays = overlays
        self._running = running
        self._audit = audit
        self._tickets = tickets
        self._config = config
        self._clock = clock

    # -- tenants ---------------------------------------------------------

    async def create(
        self,
        caller: Caller,
        *,
        tenant_id: str | None = None,
        name: str = "",
        quotas: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        template: str | None = None,
    ) -> CreatedTenant:
        """Make a tenant with one ``full`` token (admin).

        What is given goes on top of ``template``. Raises ``AlreadyExists``,
        ``InvalidRequest``, ``ConfigInvalid``, ``AdminOnlyKey``.
        """
        caller.require_admin()
        tenant = _parse_id(tenant_id)
        base = find_template(self._config(), template)
        overlay = self._overlays.check(caller, merge_patch(base.config, config or {}))
        now = self._clock()
        minted = rules.mint(tenant, label="first", scopes=frozenset({Scope.FULL}), now=now)
        record = TenantRecord(
            id=tenant,
            name=_parse_name(name or base.name or ""),
            created_at=now,
            quotas=parse_quotas({**base.quotas, **(quotas or {})}),
            tokens=(minted.token,),
        )
        files = {FILE: render(overlay)} if overlay else {}
        details = {"name": record.name, "quotas": _shown(record.quotas), "template": template}
        async with self._registry.locked(tenant):
            self._registry.require_free(tenant)
            async with self._audit.action(caller, CREATED, tenant=tenant, details=details):
                await self._registry.create(record, files)
        return CreatedTenant(record, minted.token, minted.text)

    async def list(
        self, caller: Caller, *, limit: int = 100, cursor: str | None = None, query: str = ""
    ) -> TenantPage:
        """A page of tenants in order of id (admin).

        ``cursor`` is the ``next_cursor`` of the page before; ``query`` is part
        of an id or a name.
        """
        caller.require_admin()
        limit = max(1, min(limit, _MOST_ON_A_PAGE))
        found = self._registry.find(query=query, after=cursor or "", limit=limit + 1)
        records = []
        for tenant in found[:limit]:
            # Reading a full page in one go would hold the loop for 25 ms.
            await trio.lowlevel.checkpoint()
            record = self._registry.find_record(tenant)
            if record is not None:
                records.append(record)
        cursor = found[limit - 1] if len(found) > limit else None
        return TenantPage(tuple(records), cursor, self._registry.broken)

    async def get(self, caller: Caller, tenant_id: str) -> TenantRecord:
        """The record, with the last use of each token (admin; tenant ``read``)."""
        caller.require_access(tenant_id, Scope.READ)
        return self._registry.require(tenant_id)

    async def update(
        self,
        caller: Caller,
        tenant_id: str,
        *,
        name: str | Unset = UNSET,
        disabled: bool | Unset = UNSET,
        reason: str = "",
    ) -> TenantRecord:
        """Rename, disable or enable (admin). Disabling ends everything the tenant runs."""
        caller.require_admin()
        reason = rules.parse_label(reason, field="disabled_reason", longest=LONGEST_NAME)
        wanted = UNSET if isinstance(name, Unset) else _parse_name(name)
        async with self._registry.changing(tenant_id) as record:
            if not isinstance(wanted, Unset) and wanted != record.name:
                details = {"name": wanted}
                async with self._acting(caller, "tenant.update", tenant_id, details=details):
                    record = await self._registry.write(replace(record, name=wanted))
            if disabled is True:
                return await self._disable(caller, record, reason)
            if disabled is False and record.disabled:
                async with self._acting(caller, "tenant.enable", tenant_id):
                    enabled = replace(record, disabled=False, disabled_reason="")
                    return await self._registry.write(enabled)
            return record

    async def delete(self, caller: Caller, tenant_id: str, *, delete_data: bool = False) -> None:
        """End the tenant, broken or not (admin; tenant ``full``).

        Its data moves to ``deleted/`` or, with ``delete_data``, is erased. A
        tenant created later under the same id starts with nothing of it.
        """
        caller.require_access(tenant_id, Scope.FULL)
        async with self._registry.locked(tenant_id):
            self._registry.require_held(tenant_id)
            details = {"delete_data": delete_data}
            async with self._acting(caller, "tenant.delete", tenant_id, details=details):
                self._tickets.void(tenant_id)
                self._registry.hide(tenant_id)
                await self._running.stop(tenant_id, reason="deleted")
                removed = await self._registry.remove(tenant_id)
                if delete_data:
                    await self._registry.erase(removed)

    # -- tokens ----------------------------------------------------------

    async def rotate(
        self, caller: Caller, tenant_id: str, *, grace: timedelta = timedelta()
    ) -> MintedToken:
        """One new token in place of all others (admin; tenant ``manage``).

        It is a ``full`` one, or has the caller's own scopes where those are
        fewer. The others, and what runs with them, end now or after ``grace``.
        """
        caller.require_access(tenant_id, Scope.MANAGE)
        grace = rules.parse_grace(grace)
        async with self._registry.changing(tenant_id) as record:
            now = self._clock()
            scopes = frozenset({Scope.FULL}) if caller.may(Scope.FULL) else caller.scopes
            own = caller.models
            minted = rules.mint(tenant_id, label="rotated", scopes=scopes, now=now, models=own)
            changed = rules.rotated(record, minted.token, now=now, grace=grace)
            ended = frozenset(t.id for t in record.tokens) - {t.id for t in changed.tokens}
            details = {"grace_seconds": int(grace.total_seconds()), "ended": sorted(ended)}
            target = minted.token.id
            async with self._acting(caller, "token.rotate", tenant_id, target, details):
                self._tickets.void(tenant_id)
                await self._end_tokens(changed, ended, reason="rotated")
        return minted

    async def create_token(
        self,
        caller: Caller,
        tenant_id: str,
        *,
        label: str = "",
        scopes: Iterable[Scope | str] = (Scope.FULL,),
        expires_in: timedelta | None = None,
        models: Iterable[str] = (),
    ) -> MintedToken:
        """Mint a token (admin; tenant ``manage``), never with more than the caller's own rights."""
        caller.require_access(tenant_id, Scope.MANAGE)
        wanted = rules.parse_scopes(scopes)
        rules.require_grantable(caller, wanted)
        granted = rules.grantable_models(caller, models)
        label, life = rules.parse_label(label), rules.parse_life(expires_in)
        async with self._registry.changing(tenant_id) as record:
            now = self._clock()
            minted = rules.mint(
                tenant_id, label=label, scopes=wanted, now=now, expires_in=life, models=granted
            )
            changed = rules.with_token(record, minted.token, now=now)
            end = minted.token.expires_at
            details: dict[str, object] = {"label": label, "scopes": sorted(wanted)}
            details |= {"expires_at": end, **({"models": list(granted)} if granted else {})}
            target = minted.token.id
            async with self._acting(caller, "token.mint", tenant_id, target, details):
                await self._registry.write(changed)
        return minted

    async def list_tokens(self, caller: Caller, tenant_id: str) -> tuple[TokenRecord, ...]:
        """The tokens and browser sessions (admin; tenant ``read``)."""
        return (await self.get(caller, tenant_id)).tokens

    async def revoke_token(self, caller: Caller, tenant_id: str, token_id: str) -> None:
        """End a token, the sessions it opened and what runs with them (admin; tenant ``manage``).

        Raises ``NotFound``.
        """
        caller.require_access(tenant_id, Scope.MANAGE)
        async with self._registry.changing(tenant_id) as record:
            ended = rules.family(record, token_id)
            changed = rules.without_token(record, token_id)
            async with self._acting(caller, "token.revoke", tenant_id, token_id):
                await self._end_tokens(changed, ended, reason="revoked")

    # -- quotas and config -----------------------------------------------

    async def quotas(self, caller: Caller, tenant_id: str) -> TenantQuotas:
        """The limits (admin; tenant ``read``)."""
        return self._quotas(await self.get(caller, tenant_id))

    async def put_quotas(
        self, caller: Caller, tenant_id: str, raw: Mapping[str, object]
    ) -> TenantQuotas:
        """Replace the tenant's own limits (admin). Raises ``InvalidRequest`` with field errors."""
        caller.require_admin()
        parsed = parse_quotas(raw)
        async with self._registry.changing(tenant_id) as record:
            details = {"before": _shown(record.quotas), "after": _shown(parsed)}
            async with self._acting(caller, "quota.write", tenant_id, details=details):
                record = await self._registry.write(replace(record, quotas=parsed))
                self._running.refresh(tenant_id)
        return self._quotas(record)

    async def config(self, caller: Caller, tenant_id: str) -> ConfigDocument:
        """The overlay and its effect (admin; tenant ``read``)."""
        await self.get(caller, tenant_id)
        return self._overlays.document(tenant_id)

    async def put_config(
        self, caller: Caller, tenant_id: str, raw: object, *, if_match: str | None = None
    ) -> ConfigDocument:
        """Replace the overlay (admin; tenant ``manage``).

        Raises ``PreconditionFailed``, ``ConfigInvalid``, ``AdminOnlyKey``.
        """
        caller.require_access(tenant_id, Scope.MANAGE)
        async with self._registry.changing(tenant_id):
            require_version(self._overlays.version(tenant_id), if_match)
            return await self._write_config(caller, tenant_id, raw, "config.write")

    async def patch_config(
        self, caller: Caller, tenant_id: str, patch: object, *, if_match: str | None = None
    ) -> ConfigDocument:
        """Apply a JSON merge patch (RFC 7396) to the overlay; otherwise as :meth:`put_config`."""
        change = partial(patched, patch=patch)
        return await self.change_config(caller, tenant_id, change, if_match=if_match)

    async def change_config(
        self,
        caller: Caller,
        tenant_id: str,
        change: Callable[[Mapping[str, Any]], object],
        *,
        if_match: str | None = None,
        action: str = "config.write",
        target: str = "",
    ) -> ConfigDocument:
        """Replace the overlay by what ``change`` makes of it; otherwise as :meth:`put_config`.

        Nobody else writes between the two. ``action`` and ``target`` are what
        the audit log calls it; what ``change`` raises is raised before that.
        """
        caller.require_access(tenant_id, Scope.MANAGE)
        async with self._registry.changing(tenant_id):
            now = self._overlays.document(tenant_id)
            require_version(now.etag, if_match)
            return await self._write_config(caller, tenant_id, change(now.overlay), action, target)

    async def config_version(self, caller: Caller, tenant_id: str) -> str:
        """The version of an overlay that may be damaged, so that it can be replaced."""
        await self.get(caller, tenant_id)
        return self._overlays.version(tenant_id)

    # -- for the operator's eyes and hands -------------------------------

    def broken(self) -> Mapping[str, str]:
        """The tenants whose record cannot be read, and why; for status, readiness and doctor."""
        return self._registry.broken

    async def reload(self) -> None:
        """Take up what was changed by hand in ``tenant.json`` files (SIGHUP).

        What such a change takes away ends as if it had been taken away here.
        """
        known = self._registry.tenants()
        for tenant in sorted(known | set(await self._registry.tenants_on_disk())):
            async with self._registry.locked(tenant):
                await self._reload(tenant)

    # -- how -------------------------------------------------------------

    async def _reload(self, tenant: str) -> None:
        index = self._registry.index
        before = frozenset(grant.token_id for grant in index.grants(tenant))
        record = self._registry.read_again(tenant)
        if record is None or record.disabled:
            self._tickets.void(tenant)
            await self._running.stop(tenant, reason="its record changed")
            return
        for token_id in before - {token.id for token in record.tokens}:
            await self._running.revoke(tenant, token_id, reason="its record changed")
        self._running.refresh(tenant)

    async def _disable(self, caller: Caller, record: TenantRecord, reason: str) -> TenantRecord:
        async with self._acting(caller, "tenant.disable", record.id, details={"reason": reason}):
            self._shut(record.id)
            try:
                changed = replace(record, disabled=True, disabled_reason=reason)
                return await self._registry.write(changed)
            finally:
                await self._running.stop(record.id, reason="disabled")

    async def _end_tokens(
        self, changed: TenantRecord, ended: frozenset[str], *, reason: str
    ) -> None:
        self._registry.index.drop_tokens(changed.id, ended)
        try:
            await self._registry.write(changed)
        finally:
            async with trio.open_nursery() as nursery:
                for token_id in ended:
                    revoke = partial(self._running.revoke, changed.id, token_id, reason=reason)
                    nursery.start_soon(revoke)

    def _shut(self, tenant: str) -> None:
        """Let nobody in any more."""
        self._registry.index.drop(tenant)
        self._tickets.void(tenant)

    async def _write_config(
        self, caller: Caller, tenant: str, raw: object, action: str, target: str = ""
    ) -> ConfigDocument:
        overlay = self._overlays.check(caller, raw)
        details = {"keys": changed_keys(self._overlays.find(tenant), overlay)}
        async with self._acting(caller, action, tenant, target, details):
            write = partial(self._overlays.write, tenant, overlay)
            document = await trio.to_thread.run_sync(write)
            self._running.refresh(tenant)
        return document

    def _quotas(self, record: TenantRecord) -> TenantQuotas:
        defaults = quota_defaults(self._config())
        return TenantQuotas(record.limits(defaults), record.quotas)

    def _acting(
        self,
        caller: Caller,
        action: str,
        tenant: str,
        target: str = "",
        details: Mapping[str, object] | None = None,
    ) -> AbstractAsyncContextManager[None]:
        return self._audit.action(caller, action, tenant=tenant, target=target, details=details)


def _parse_id(text: str | None) -> str:
    if text is None:
        return new_id("t").replace("_", "-")
    try:
        return parse_tenant_id(text)
    except ValueError as error:
        raise InvalidRequest.at("id", str(error)) from None


def _parse_name(text: str) -> str:
    return rules.parse_label(text, field="name", longest=LONGEST_NAME)


def _shown(quotas: Mapping[str, int | None]) -> dict[str, Any]:
    return {key: render_limit(key, value) for key, value in quotas.items()}
