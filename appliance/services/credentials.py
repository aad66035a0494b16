"""A tenant's own keys for model providers: set, list, forget. A key never comes out again.

Two kinds. For a provider of the gateway the tenant brings a key only; where it
is sent is the operator's choice. A provider of the tenant's own needs a
dialect and an address too, and that address must be a public one: the gateway
stands inside the operator's network and would fetch for the tenant what the
tenant cannot reach.
"""

import ipaddress
import re
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import trio

from appliance.config.fields import check_base_url, check_provider_name
from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest
from appliance.model.spelling import nearest
from appliance.model.tokens import Scope
from appliance.services.audit import AuditTrail
from appliance.storage.credentials import (
    CredentialStore,
    ProviderCredential,
    ProviderEntry,
    Vault,
)
from appliance.storage.paths import TenantRoot

DIALECTS = ("openai", "openai-responses", "anthropic", "ollama")
_HAS_A_HOME = frozenset({"openai", "openai-responses", "anthropic"})  # a base URL of its own
_KEY = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)

T = TypeVar("T")


class TenantRoots(Protocol):
    def tenant_root(self, tenant: str) -> TenantRoot: ...


class Running(Protocol):
    def refresh(self, tenant: str) -> None: ...


class ProviderKeys:
    """Raises ``Forbidden``, ``ScopeMissing`` and ``TenantUnknown`` throughout."""

    def __init__(
        self,
        state: TenantRoots,
        vault: Vault,
        *,
        audit: AuditTrail,
        running: Running,
        config: Callable[[], GatewayConfig],
    ) -> None:
        self._state = state
        self._vault = vault
        self._audit = audit
        self._running = running
        self._config = config

    async def list(self, caller: Caller, tenant_id: str) -> list[ProviderEntry]:
        """The providers for which ``tenant_id`` has a key (admin; tenant ``read``)."""
        caller.require_access(tenant_id, Scope.READ)
        return await self._in_store(tenant_id, CredentialStore.list)

    async def put(
        self,
        caller: Caller,
        tenant_id: str,
        provider: str,
        *,
        api_key: str,
        dialect: str | None = None,
        base_url: str | None = None,
    ) -> ProviderEntry:
        """Set or replace a key (admin; tenant ``manage``).

        Raises ``InvalidRequest`` naming the field, and ``AuditUnavailable``.
        """
        caller.require_access(tenant_id, Scope.MANAGE)
        _check_name(provider)
        if _KEY.fullmatch(api_key) is None:
            raise InvalidRequest.at("api_key", "must be printable ASCII text without spaces")
        self._check_address(provider, dialect, base_url)
        credential = ProviderCredential(provider, dialect, base_url, api_key)
        details = {"dialect": dialect, "base_url": base_url}
        async with self._audit.action(
            caller, "credential.set", tenant=tenant_id, target=provider, details=details
        ):
            await self._in_store(tenant_id, lambda store: store.set(credential))
            self._running.refresh(tenant_id)
        return ProviderEntry(provider, dialect, base_url)

    async def delete(self, caller: Caller, tenant_id: str, provider: str) -> None:
        """Forget a key (admin; tenant ``manage``). Raises ``NotFound``, ``AuditUnavailable``."""
        caller.require_access(tenant_id, Scope.MANAGE)
        _check_name(provider)
        async with self._audit.action(
            caller, "credential.delete", tenant=tenant_id, target=provider
        ):
            await self._in_store(tenant_id, lambda store: store.delete(provider))
            self._running.refresh(tenant_id)

    async def _in_store(self, tenant_id: str, work: Callable[[CredentialStore], T]) -> T:
        return await trio.to_thread.run_sync(partial(self._with_store, tenant_id, work))

    def _with_store(self, tenant_id: str, work: Callable[[CredentialStore], T]) -> T:
        with self._state.tenant_root(tenant_id) as root:
            return work(CredentialStore(root, self._vault))

    def _check_address(self, provider: str, dialect: str | None, base_url: str | None) -> None:
        config = self._config()
        if provider in config.providers:
            if dialect is not None or base_url is not None:
                raise InvalidRequest.at(
                    "base_url" if base_url is not None else "dialect",
                    f"{provider!r} is a provider of this gateway, which knows where it is",
                    "send the key alone, or choose another name for a provider of your own",
                )
            return
        if dialect not in DIALECTS:
            near = nearest(dialect or "", DIALECTS)
            raise InvalidRequest.at(
                "dialect",
                f"must be one of {', '.join(DIALECTS)} for a provider of your own",
                f"did you mean {near!r}?" if near else "",
            )
        if base_url is not None:
            _check_own_url(base_url, allow_private=config.egress.allow_private)
        elif dialect not in _HAS_A_HOME:
            raise InvalidRequest.at(
                "base_url", f"dialect {dialect} has no usual address", "name it"
            )


def _check_name(provider: str) -> None:
    try:
        check_provider_name(provider)
    except ValueError as exc:
        raise InvalidRequest.at("provider", str(exc)) from None


def _check_own_url(base_url: str, *, allow_private: bool) -> None:
    """Refuse early what the connection would refuse: it checks every address it resolves."""
    try:
        check_base_url(base_url)
    except ValueError as exc:
        raise InvalidRequest.at("base_url", str(exc)) from None
    if allow_private:
        return
    parts = urlsplit(base_url)
    if parts.scheme != "https":
        raise InvalidRequest.at("base_url", "the key would travel in clear", "use https://")
    if not _may_be_public(parts.hostname or ""):
        raise InvalidRequest.at("base_url", "is not a public address")


def _may_be_public(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name without a dot, or under one of these, is somebody's own network.
        name = host.rstrip(".").lower()
        return "." in name and not name.endswith((".localhost", ".local", ".internal"))
    return address.is_global and not address.is_multicast
