"""What a terminal is made with: its tenant, the services it uses, what it is to run."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from appliance.model.callers import Caller
from appliance.sandboxes.base import WORKSPACE, Sandbox, TerminalSize
from appliance.services.audit import AuditTrail
from appliance.services.clients import ConnectedClients
from appliance.services.sandboxes.sandboxes import SandboxRequest, SandboxTenant
from appliance.services.tenant_state import TenantState


class StartedWork(Protocol):
    def cancel(self) -> None: ...


class TerminalTenant(SandboxTenant, Protocol):
    """A running tenant whose terminals outlive the connections that open them."""

    @property
    def state(self) -> TenantState: ...
    @property
    def clients(self) -> ConnectedClients: ...
    def start(self, work: Callable[[], Awaitable[None]], *, caller: Caller) -> StartedWork: ...


class OpenSandboxes(Protocol):
    """``services.sandboxes.Sandboxes``, as far as terminals need it."""

    def open(
        self, tenant: SandboxTenant, request: SandboxRequest, /
    ) -> AbstractAsyncContextManager[Sandbox]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalParts:
    """What every terminal works with."""

    sandboxes: OpenSandboxes
    audit: AuditTrail
    clock: Callable[[], datetime]
    is_live: Callable[[Caller], bool]  # whether a credential still grants anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to run, and how it is to look. ``size`` fits already."""

    command: tuple[str, ...]
    size: TerminalSize
    agent: str
    title: str
    directory: str = WORKSPACE
    environment: Mapping[str, str] = field(default_factory=dict)
