"""The way out of a tenant's sandboxes: its rules, within the operator's, and its credentials."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from appliance.config.schema import GatewayConfig
from appliance.model.errors import ApplianceError
from appliance.sandboxes.base import EgressDoor
from appliance.sandboxes.egress_settings import EgressRecord, EgressSettings
from appliance.sandboxes.forwarding import EGRESS_ENVIRONMENT, forwarding
from appliance.storage.credentials import CredentialStore, Vault
from appliance.storage.paths import TenantRoot

log = logging.getLogger(__name__)


class Doors(Protocol):
    """``EgressProxy``."""

    def open(
        self, settings: EgressSettings, note: Callable[[EgressRecord], None]
    ) -> AbstractAsyncContextManager[EgressDoor]: ...


class TenantWithEgress(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def root(self) -> TenantRoot: ...
    @property
    def config(self) -> GatewayConfig: ...


@dataclass(slots=True)
class Egress:
    """What a sandbox with a way out is started with. ``used_bytes`` grows, both ways."""

    door: EgressDoor | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    wrap: Callable[[Sequence[str]], Sequence[str]] = tuple
    used_bytes: int = 0


class SandboxEgress:
    def __init__(self, doors: Doors, *, vault: Vault) -> None:
        self._doors = doors
        self._vault = vault

    @asynccontextmanager
    async def open(
        self, tenant: TenantWithEgress, *, sandbox: str, run_id: str
    ) -> AsyncIterator[Egress]:
        """The way out for one sandbox, as long as this is open; none where no rule allows any.

        Raises ``SandboxFailed`` and ``SandboxUnavailable``.
        """
        settings = EgressSettings.of(
            tenant.config.egress, credentials=lambda name: self._secret(tenant, name)
        )
        egress = Egress()
        if settings.rules.is_empty:
            yield egress
            return

        def note(record: EgressRecord) -> None:
            egress.used_bytes += record.sent_bytes + record.received_bytes
            log.info("egress", extra=_facts(tenant.id, sandbox, run_id, record))

        async with self._doors.open(settings, note) as door:
            egress.door = door
            egress.environment = EGRESS_ENVIRONMENT
            egress.wrap = forwarding
            yield egress

    def _secret(self, tenant: TenantWithEgress, name: str) -> str | None:
        """One small file, read where it is needed so that a changed key is used at once."""
        try:
            found = CredentialStore(tenant.root, self._vault).get(name)
        except ApplianceError as error:
            log.warning(
                "a credential of an egress rule cannot be used",
                extra={"tenant": tenant.id, "credential": name, "reason": error.detail},
            )
            return None
        return None if found is None else found.api_key


def _facts(tenant: str, sandbox: str, run_id: str, record: EgressRecord) -> dict[str, object]:
    return {
        "tenant": tenant,
        "sandbox": sandbox,
        "run": run_id,
        "host": record.host,
        "port": record.port,
        "sent_bytes": record.sent_bytes,
        "received_bytes": record.received_bytes,
        "verdict": record.verdict.value,
        "reason": record.reason,
    }
