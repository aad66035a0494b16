"""``hello-ok``: what a client may call and hear, and how things stand."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import msgspec
import trio

from appliance.config.schema import GatewayConfig
from appliance.model.chat_attachments import LARGEST_IMAGE
from appliance.model.errors import Unavailable
from appliance.model.periods import to_ms
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.protocols.connect import (
    AttachmentPolicy,
    Features,
    HelloAuth,
    HelloOk,
    Policy,
    Server,
    SessionDefaults,
    Snapshot,
    SnapshotVersion,
)
from appliance.services.device_credentials import DeviceCredentials
from appliance.services.nodes import NodeService
from appliance.services.presence import Presence
from appliance.services.session_policy import SessionPolicy
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.rpc.method import Method
from appliance.transports.websocket.connection import Connection
from appliance.transports.websocket.handshake import Admitted

EVENTS = (
    "agent",
    "chat",
    "config.changed",
    "connect.challenge",
    "device.pair.requested",
    "device.pair.resolved",
    "events.gap",
    "events.lag",
    "exec.approval.requested",
    "exec.approval.resolved",
    "health",
    "node.invoke.request",
    "node.pair.requested",
    "node.pair.resolved",
    "presence",
    "session.message",
    "sessions.changed",
    "shutdown",
    "terminal.exit",
    "terminal.notice",
    "terminal.output",
    "terminal.resized",
    "terminal.support",
    "tick",
    "voicewake.changed",
)
"""Every event that this release sends."""

CAPABILITIES = ("published-model-catalog",)
"""Promises that newer clients ask for before they use what depends on them."""

_HEALTH_EVERY = 60.0  # seconds


class HealthSnapshots(Protocol):
    async def health(self, tenant: TenantRuntime, /) -> bytes: ...
    def health_nowait(self, tenant: TenantRuntime, /) -> bytes:
        """Raises ``Unavailable`` before the first :meth:`health` of the tenant."""


class Hello:
    def __init__(
        self,
        *,
        config: Callable[[], GatewayConfig],
        devices: DeviceCredentials,
        nodes: NodeService,
        presence: Presence,
        policy: SessionPolicy,
        health: HealthSnapshots,
        version: str,
        clock: Callable[[], datetime],
        started_at: datetime,
    ) -> None:
        self._config = config
        self._devices = devices
        self._nodes = nodes
        self._presence = presence
        self._policy = policy
        self._health = health
        self._version = version
        self._clock = clock
        self._started_at = started_at
        self._method_lists: dict[int, tuple[object, msgspec.Raw]] = {}
        self._health_due: WeakKeyDictionary[TenantRuntime, float] = WeakKeyDictionary()

    async def prepare(
        self, connection: Connection, admitted: Admitted, tenant: TenantRuntime | None
    ) -> bytes:
        """The greeting of ``connection``, encoded."""
        admission = admitted.admission
        limits = self._config().server.websocket
        auth: dict[str, Any] = {"role": admission.role, "scopes": sorted(admission.scopes)}
        snapshot = self._gateway_snapshot()
        if tenant is not None:
            snapshot = await self._tenant_snapshot(tenant)
            if admission.device_id is not None:
                issued = await self._devices.seen(
                    tenant,
                    admission.caller,
                    device_id=admission.device_id,
                    public_key=admitted.public_key,
                    client=admission.info,
                    role=admission.role,
                    scopes=admission.scopes,
                )
                if issued is not None:
                    auth |= {"device_token": issued.text, "issued_at_ms": issued.issued_at_ms}
        hello = HelloOk(
            protocol=connection.protocol,
            server=Server(version=self._version, conn_id=connection.id),
            features=Features(
                methods=self._methods(connection),
                events=EVENTS,
                capabilities=CAPABILITIES,
            ),
            snapshot=snapshot,
            auth=HelloAuth(**auth),
            policy=Policy(
                max_payload=limits.max_frame_bytes,
                max_buffered_bytes=limits.max_buffered_bytes,
                tick_interval_ms=round(limits.tick_interval * 1000),
                attachments=AttachmentPolicy(
                    max_bytes=LARGEST_IMAGE, max_image_bytes=LARGEST_IMAGE
                ),
            ),
        )
        return msgspec.json.encode(hello)

    def arrived(self, connection: Connection, tenant: TenantRuntime) -> None:
        self._presence.touch(tenant)

    def left(self, connection: Connection, tenant: TenantRuntime) -> None:
        self._nodes.commands.connection_closed(tenant, connection)
        self._presence.touch(tenant)

    def publish_due(self, tenant: TenantRuntime) -> None:
        """Tell who came and went in the last second, and once a minute how things stand."""
        self._presence.publish_due(tenant)
        now = trio.current_time()
        due = self._health_due.setdefault(tenant, now + _HEALTH_EVERY)
        if now < due:
            return
        self._health_due[tenant] = now + _HEALTH_EVERY
        try:
            health = self._health.health_nowait(tenant)
        except Unavailable:
            return  # nobody has asked for it yet, so nobody waits for news
        tenant.state.health_version += 1
        tenant.events.publish(
            "health",
            health,
            droppable=True,
            state_version=self._presence.state_version(tenant),
            kept=False,
        )

    def _methods(self, connection: Connection) -> Any:
        """Encoded once for all connections with the same rights."""
        table = connection.methods
        known = self._method_lists.get(id(table))
        if known is None:
            names = sorted(name for name, method in table.items() if _is_shown(method))
            known = (table, msgspec.Raw(msgspec.json.encode(names)))
            self._method_lists[id(table)] = known
        return known[1]

    def _gateway_snapshot(self) -> Snapshot:
        return Snapshot(
            presence=[],
            health={"ok": True, "ts": to_ms(self._clock())},
            state_version=SnapshotVersion(presence=1, health=1),
            uptime_ms=self._uptime_ms(),
            auth_mode="token",
        )

    async def _tenant_snapshot(self, tenant: TenantRuntime) -> Snapshot:
        health = await self._health.health(tenant)
        session = tenant.config.defaults.session
        return Snapshot(
            presence=msgspec.Raw(self._presence.snapshot(tenant)),
            health=msgspec.Raw(health),
            state_version=SnapshotVersion(
                presence=tenant.state.presence_version, health=tenant.state.health_version
            ),
            uptime_ms=self._uptime_ms(),
            session_defaults=SessionDefaults(
                default_agent_id=DEFAULT_AGENT,
                main_key=session.main_key,
                main_session_key=self._policy.main_key(tenant).short,
                scope=session.scope,
            ),
            auth_mode="token",
        )

    def _uptime_ms(self) -> int:
        return to_ms(self._clock()) - to_ms(self._started_at)


def _is_shown(method: Method) -> bool:
    return not method.hidden
