"""What a tenant holds open while it is awake: its books, its sessions, its settings."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec
import trio

from appliance.config.overlay import effective, parse_overlay
from appliance.config.schema import GatewayConfig, ProviderConfig, quota_defaults
from appliance.model.errors import ApplianceError, TenantBroken, TenantDisabled
from appliance.model.quotas import Quotas
from appliance.model.tenants import TenantRecord
from appliance.providers.base import Provider
from appliance.services.clients import ConnectedClients
from appliance.services.events import TenantEvents
from appliance.services.meter import Meter
from appliance.services.runs import RunBook
from appliance.services.tenant_state import TenantState
from appliance.services.turns.queue import TurnQueue
from appliance.storage.credentials import CredentialStore, ProviderCredential, Vault
from appliance.storage.ledger import LedgerStore
from appliance.storage.paths import TenantRoot
from appliance.storage.responses import ResponseStore
from appliance.storage.sessions import SessionStore
from appliance.tenants.runtime import Service

log = logging.getLogger(__name__)

OVERLAY = "config.yaml"
LARGEST_OVERLAY = 1024 * 1024  # bytes

Clock = Callable[[], datetime]


class OwnProvider(Provider, Protocol):
    """A provider that a tenant brought, and may take away at any time."""

    def close(self) -> None:
        """Close what is idle. Calls under way go on to their end."""


BuildProvider = Callable[[ProviderCredential], OwnProvider]


class Registry(Protocol):
    def require(self, tenant: str) -> TenantRecord: ...


class Roots(Protocol):
    def tenant_root(self, tenant: str) -> TenantRoot: ...


class TenantResources:
    """Satisfies ``tenants.runtime.Resources``."""

    def __init__(
        self,
        settings: "_Settings",
        *,
        root: TenantRoot,
        ledger: LedgerStore,
        meter: Meter,
        clock: Clock,
        load: "Callable[[TenantRoot], _Settings]",
        build_provider: "BuildProvider",
    ) -> None:
        self.root = root
        self.meter = meter
        self.turns = TurnQueue()
        self.events = TenantEvents()
        self.clients = ConnectedClients()
        self.runs = RunBook()
        self.state = TenantState()
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._load = load
        self._build_provider = build_provider
        self._own: dict[str, tuple[ProviderCredential, OwnProvider]] = {}
        self._sessions: SessionStore | None = None
        self._opening = trio.Lock()
        self._opened = trio.Event()
        self._responses: ResponseStore | None = None
        self._responses_opened = trio.Event()
        self.services: Mapping[str, Service] = {
            "ledger": _Tending(ledger.tend),
            "sessions": _Tending(self._tend_sessions),
            "responses": _Tending(self._tend_responses),
            "mcp": _Tending(self.state.mcp.run),
        }

    @property
    def record(self) -> TenantRecord:
        return self._settings.record

    @property
    def config(self) -> GatewayConfig:
        return self._settings.config

    def provider_key(self, provider: str) -> str | None:
        """The tenant's own key for a provider of the gateway, None to use the gateway's.

        A key that was given for another address never goes to this one, and
        the tenant's calls not out on the operator's key instead: it is empty.
        """
        credential = self._settings.credentials.get(provider)
        if credential is None or provider in self._settings.own:
            return None
        return "" if _has_own_address(credential) else credential.api_key

    def own_provider(self, provider: str) -> Provider | None:
        """A provider at an address that this tenant gave; built when it is first asked for."""
        credential = self._settings.own.get(provider)
        if credential is None:
            return None
        if provider not in self._own:
            self._own[provider] = (credential, self._build_provider(credential))
        return self._own[provider][1]

    def refresh(self) -> None:
        """Read the record, the overlay and the keys again; a bad one changes nothing.

        Three small files, so it is done in the loop. Raises what opening raises.
        """
        settings = self._load(self.root)
        self.meter.limits = settings.limits
        self.meter.assumed_output = settings.config.models.max_output_tokens
        self._settings = settings
        self._drop_own()
        self.state.mcp.use(settings.config)

    def _drop_own(self) -> None:
        """Close providers that were taken away or changed.

        A tenant that is never idle would keep a connection for each otherwise,
        and it may change them as often as it likes.
        """
        for name, (credential, provider) in list(self._own.items()):
            if self._settings.own.get(name) != credential:
                del self._own[name]
                provider.close()

    async def sessions(self) -> SessionStore:
        """The session store, opened on first use."""
        if self._sessions is not None:
            return self._sessions
        async with self._opening:
            if self._sessions is None:
                self._sessions = await SessionStore.open(self.root, now=self._clock())
                self._opened.set()
            return self._sessions

    async def _tend_sessions(self) -> None:
        await self._opened.wait()
        await (await self.sessions()).tend()

    async def responses(self) -> ResponseStore:
        """The store of responses and conversations, opened on first use."""
        if self._responses is not None:
            return self._responses
        async with self._opening:
            if self._responses is None:
                self._responses = await ResponseStore.open(self.root, now=self._clock())
                self._responses_opened.set()
            return self._responses

    async def _tend_responses(self) -> None:
        await self._responses_opened.wait()
        await (await self.responses()).tend()

    async def close(self) -> None:
        """Close all of it, whatever fails on the way. Not cancellable."""
        with trio.CancelScope(shield=True):
            async with AsyncExitStack() as stack:
                for _, provider in self._own.values():
                    stack.push_async_callback(provider.aclose)
                stack.push_async_callback(self._ledger.close)
                if self._sessions is not None:
                    stack.push_async_callback(self._sessions.close)
                if self._responses is not None:
                    stack.push_async_callback(self._responses.close)


class _Settings:
    """What a tenant's files say, read together."""

    def __init__(
        self,
        record: TenantRecord,
        config: GatewayConfig,
        credentials: Mapping[str, ProviderCredential],
    ) -> None:
        self.record = record
        self.credentials = credentials
        # The gateway's provider of a name wins: a tenant adds, it replaces nothing.
        self.own = {
            name: credential
            for name, credential in credentials.items()
            if _has_own_address(credential) and name not in config.providers
        }
        self.config = _with_own_providers(config, self.own)

    @property
    def limits(self) -> Quotas:
        return self.record.limits(quota_defaults(self.config))


def _has_own_address(credential: ProviderCredential) -> bool:
    return credential.dialect is not None or credential.base_url is not None


def _with_own_providers(
    config: GatewayConfig, own: Mapping[str, ProviderCredential]
) -> GatewayConfig:
    if not own:
        return config
    added = {name: provider_config(credential) for name, credential in own.items()}
    return msgspec.structs.replace(config, providers={**config.providers, **added})


def provider_config(credential: ProviderCredential) -> ProviderConfig:
    """The config section that a tenant's own provider would have."""
    return msgspec.convert(
        {"dialect": credential.dialect or "openai", "base_url": credential.base_url},
        ProviderConfig,
    )


class _Tending:
    """Something of the tenant's that runs on the side; it never keeps the tenant awake."""

    keeps_awake = False

    def __init__(self, tend: Callable[[], Awaitable[None]]) -> None:
        self._tend = tend

    async def run(self) -> None:
        await self._tend()


class TenantOpener:
    """Opens tenants for the supervisor; satisfies ``tenants.directory.OpenTenant``."""

    def __init__(
        self,
        *,
        registry: Registry,
        roots: Roots,
        vault: Vault,
        config: Callable[[], GatewayConfig],
        build_provider: BuildProvider,
        clock: Clock,
    ) -> None:
        self._build_provider = build_provider
        self._registry = registry
        self._roots = roots
        self._vault = vault
        self._config = config
        self._clock = clock

    @asynccontextmanager
    async def __call__(self, tenant: str) -> AsyncIterator[TenantResources]:
        """Raises ``TenantUnknown``, ``TenantDisabled`` or ``TenantBroken``."""
        load = partial(self._load, tenant)
        root = self._roots.tenant_root(tenant)
        try:
            settings = load(root)
            ledger = await LedgerStore.open(root)
            try:
                meter = await Meter.open(
                    ledger,
                    limits=settings.limits,
                    clock=self._clock,
                    currency=settings.config.billing.currency,
                    assumed_output=settings.config.models.max_output_tokens,
                )
            except BaseException:
                with trio.CancelScope(shield=True):
                    await ledger.close()
                raise
            resources = TenantResources(
                settings,
                root=root,
                ledger=ledger,
                meter=meter,
                clock=self._clock,
                load=load,
                build_provider=self._build_provider,
            )
            try:
                yield resources
            finally:
                await resources.close()
        finally:
            root.close()

    def _load(self, tenant: str, root: TenantRoot) -> _Settings:
        record = self._registry.require(tenant)
        if record.disabled:
            raise TenantDisabled("the tenant is disabled")
        return _Settings(record, self._effective(root), self._credentials(root))

    def _effective(self, root: TenantRoot) -> GatewayConfig:
        try:
            text = root.read_bytes(OVERLAY, limit=LARGEST_OVERLAY).decode()
        except FileNotFoundError:
            return self._config()
        except UnicodeDecodeError:
            raise TenantBroken(f"the tenant's {OVERLAY} is not UTF-8") from None
        except ApplianceError as error:  # too large, or no plain file; not the caller's request
            raise TenantBroken(f"the tenant's {OVERLAY} cannot be read: {error.detail}") from error
        try:
            return effective(self._config(), parse_overlay(text, name=OVERLAY))
        except ApplianceError as error:
            raise TenantBroken(f"the tenant's {OVERLAY} cannot be used: {error.detail}") from error

    def _credentials(self, root: TenantRoot) -> dict[str, ProviderCredential]:
        store = CredentialStore(root, self._vault)
        found: dict[str, ProviderCredential] = {}
        for entry in store.list():
            try:
                credential = store.get(entry.provider)
            except ApplianceError as error:
                # Without its own key the tenant's calls would go out on the
                # operator's: fail closed for that provider, serve the rest.
                log.error(  # noqa: TRY400 - an expected failure, its text says it all
                    "a tenant's own key cannot be used",
                    extra={"provider": entry.provider, "reason": error.detail},
                )
                found[entry.provider] = ProviderCredential(
                    entry.provider, entry.dialect, entry.base_url, api_key=""
                )
            else:
                if credential is not None:
                    found[entry.provider] = credential
        return found
