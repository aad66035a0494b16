"""Who is there: the gateway itself, the tenant's connections, and what they said last.

A tenant sees its own connections and nothing of the machine: not its name,
not its addresses, nobody else's clients.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Protocol

import msgspec
import trio

from appliance.model.periods import to_ms
from appliance.services.clients import Client, ConnectedClients
from appliance.services.events import Audience, StateVersion, TenantEvents
from appliance.services.presence_beacons import PresenceEntry
from appliance.services.tenant_state import SystemText, TenantState

HOST = "openclawmu"
MOST_ENTRIES = 100
_INTERVAL = 1.0  # seconds between two events


class TenantWithPresence(Protocol):
    @property
    def state(self) -> TenantState: ...
    @property
    def clients(self) -> ConnectedClients: ...
    @property
    def events(self) -> TenantEvents: ...


class Presence:
    def __init__(self, *, version: str, clock: Callable[[], datetime]) -> None:
        self._version = version
        self._clock = clock
        self._started_ms = to_ms(clock())

    def entries(self, tenant: TenantWithPresence) -> list[PresenceEntry]:
        """The gateway's own row, then the newest of the others, 100 in all."""
        others = sorted(self._others(tenant), key=lambda entry: entry.ts, reverse=True)
        return [self._gateway(), *others[: MOST_ENTRIES - 1]]

    def snapshot(self, tenant: TenantWithPresence) -> bytes:
        """The same as JSON, for a greeting: at most a second old, as the event that follows tells.

        A thousand clients that come at once would otherwise each have the
        rows of all the others put in order.
        """
        state, now = tenant.state, trio.current_time()
        if now - state.presence_listed_at >= _INTERVAL:
            state.presence_listed_at = now
            state.presence_list = msgspec.json.encode(self.entries(tenant))
        return state.presence_list

    def touch(self, tenant: TenantWithPresence) -> None:
        """Somebody came, left or spoke; :meth:`publish_due` will tell."""
        tenant.state.presence_version += 1
        tenant.state.presence_changed = True

    def publish_due(self, tenant: TenantWithPresence) -> bool:
        """Publish the list if it changed, at most once a second; whether it did.

        A hundred connections that come at once are one event, not a hundred
        events of a hundred rows.
        """
        state = tenant.state
        now = trio.current_time()
        if not state.presence_changed or now - state.presence_published_at < _INTERVAL:
            return False
        state.presence_changed = False
        state.presence_published_at = now
        if not len(tenant.events):
            return False  # whoever comes gets the list with its greeting
        tenant.events.publish(
            "presence",
            {"presence": self.entries(tenant)},
            audience=Audience.READERS,
            droppable=True,
            state_version=self.state_version(tenant),
            kept=False,
        )
        return True

    def state_version(self, tenant: TenantWithPresence) -> StateVersion:
        return StateVersion(tenant.state.presence_version, tenant.state.health_version)

    def note(
        self, tenant: TenantWithPresence, entry: PresenceEntry, *, session: str | None = None
    ) -> None:
        """Take what a client said: a row of the list, and a text for the agent.

        A text that begins with ``Node:`` only says who is there.
        """
        text = entry.text or ""
        tenant.state.beacons.put(entry)
        if not text.startswith("Node:"):
            tenant.state.system_texts.append(SystemText(entry.ts, text, session))
        self.touch(tenant)

    def now_ms(self) -> int:
        return to_ms(self._clock())

    def _gateway(self) -> PresenceEntry:
        text = f"Gateway: {HOST} · app {self._version} · mode gateway · reason self"
        return PresenceEntry(
            ts=self._started_ms,
            host=HOST,
            version=self._version,
            mode="gateway",
            reason="self",
            text=text,
        )

    def _others(self, tenant: TenantWithPresence) -> Iterator[PresenceEntry]:
        connected: set[str] = set()
        for client in tenant.clients:
            entry = _of_client(client)
            connected.update(filter(None, (entry.device_id, entry.instance_id)))
            yield entry
        for beacon in tenant.state.beacons.recent(self.now_ms()):
            # A connected sender has its row; what it claims does not make a second one.
            if not connected & {beacon.device_id, beacon.instance_id}:
                yield beacon


def _of_client(client: Client) -> PresenceEntry:
    info = client.info
    host = info.display_name or info.id
    is_operators = client.caller.is_admin
    return PresenceEntry(
        ts=to_ms(client.connected_at),
        host=host,
        # Where the gateway's operator works from is not the tenant's business.
        ip=None if is_operators else client.caller.ip or None,
        version=info.version or None,
        platform=info.platform or None,
        device_family=info.device_family or None,
        model_identifier=info.model_identifier or None,
        mode=info.mode,
        reason="connect",
        text=f"Node: {host} · app {info.version or 'unknown'} · mode {info.mode} · reason connect",
        device_id=client.device_id,
        roles=(client.role.value,),
        scopes=tuple(sorted(client.scopes)) or None,
        instance_id=info.instance_id or None,
    )
