"""Awake tenants with connections, on real directories, and nobody who supervises them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from appliance.model.callers import ActorKind, Caller
from appliance.model.operator_scopes import EVERYTHING, OperatorScope, Role
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope
from appliance.services.clients import ClientInfo, ConnectedClients
from appliance.services.events import Event, TenantEvents
from appliance.services.tenant_state import TenantState
from appliance.storage.paths import TenantRoot
from tests.services.tenancy import NOW


@dataclass(eq=False)
class FakeClient:
    """Satisfies ``services.clients.Client``."""

    id: str
    caller: Caller
    role: Role = Role.OPERATOR
    scopes: frozenset[OperatorScope] = EVERYTHING
    info: ClientInfo = field(default_factory=lambda: ClientInfo(id="cli", mode="cli"))
    device_id: str | None = None
    node_id: str | None = None
    protocol: int = 3
    connected_at: datetime = NOW
    watches_sessions: bool = False
    watched_sessions: set[str] = field(default_factory=set)
    is_leaving: bool = False
    buffered: int = 0
    sent: list[tuple[str, Any]] = field(default_factory=list)
    dropped: tuple[int, str] | None = None

    def send_event(self, name: str, payload: object) -> bool:
        if not self.is_leaving:
            told = msgspec.json.decode(payload) if isinstance(payload, bytes) else payload
            self.sent.append((name, msgspec.to_builtins(told)))
        return not self.is_leaving

    def drop(self, code: int, reason: str) -> None:
        self.dropped = (code, reason)


class FakeAwake:
    """Satisfies what services and methods ask of a tenant; notes its events."""

    def __init__(self, root: TenantRoot) -> None:
        self.id = root.tenant
        self.root = root
        self.state = TenantState()
        self.clients = ConnectedClients()
        self.events = TenantEvents()
        self.record = TenantRecord(root.tenant, "Acme & Sons", NOW)
        self.told: list[Event] = []
        self._listening = self.events.subscribed(self)
        self._listening.__enter__()

    def deliver(self, event: Event) -> None:
        self.told.append(event)

    def heard(self, name: str) -> list[Mapping[str, Any]]:
        """The payloads of the events called ``name``."""
        return [msgspec.json.decode(event.payload) for event in self.told if event.name == name]

    def connect(self, client: FakeClient) -> FakeClient:
        self.clients.add(client)
        return client

    def node(self, node_id: str = "phone", *commands: str, **said: Any) -> FakeClient:
        """A connected node that offers ``commands``."""
        info = ClientInfo(
            id="node-host", mode="node", commands=commands, **{"display_name": node_id, **said}
        )
        client = FakeClient(
            id=f"conn-{self.id}-{node_id}-{len(self.clients)}",
            caller=someone(self.id),
            role=Role.NODE,
            scopes=frozenset(),
            info=info,
            node_id=node_id,
        )
        return self.connect(client)

    def asleep_and_awake(self) -> "FakeAwake":
        """The same tenant as it wakes again: only what is on disk is left."""
        return FakeAwake(self.root)


def someone(tenant: str, *scopes: Scope) -> Caller:
    return Caller(
        ActorKind.TENANT,
        "tok_1",
        tenant,
        frozenset(scopes or {Scope.FULL}),
        request_id="req_1",
        ip="198.51.100.7",
    )
