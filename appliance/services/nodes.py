"""A tenant's nodes: machines and phones that do things when they are asked.

A node belongs to the tenant whose token it connected with, and is known by the
key it proved to hold or by the name it gives itself. Nobody but its tenant
sees it, and an unknown node looks like another tenant's.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from appliance.model.callers import Caller
from appliance.model.errors import NotFound
from appliance.model.ids import new_id
from appliance.model.operator_scopes import Role
from appliance.model.periods import to_ms
from appliance.model.tokens import digest, stored_digest
from appliance.services import pairing
from appliance.services.audit import AuditTrail
from appliance.services.clients import Client
from appliance.services.events import Audience
from appliance.services.node_commands import NodeCommands
from appliance.services.paired_devices import without
from appliance.services.pairing import TenantWithPairings
from appliance.services.pairing_events import NodePairRequested, NodePairResolved
from appliance.services.tokens import parse_label
from appliance.storage.paired import MOST_NODES, Device, Node, Paired, PairRequest

_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
LONGEST_NAME = 64  # characters
_NOTHING = stored_digest(bytes(32))


@dataclass(frozen=True, slots=True)
class KnownNode:
    """What is known of a node: its pairing, the device it is, its connection; one at least."""

    id: str
    node: Node | None
    device: Device | None
    client: Client | None

    @property
    def name(self) -> str | None:
        """What its tenant calls it, else what it calls itself."""
        said = None if self.client is None else self.client.info.display_name
        for paired in (self.node and self.node.display_name, self.device and self.device.label):
            if paired:
                return paired
        return said or (None if self.device is None else self.device.display_name)


class NodeService:
    def __init__(self, *, audit: AuditTrail, clock: Callable[[], datetime]) -> None:
        self.commands = NodeCommands(clock=clock)
        self._audit = audit
        self._clock = clock

    async def list(self, tenant: TenantWithPairings) -> list[KnownNode]:
        """Those connected first, each group by name."""
        nodes = _known(await pairing.read(tenant), tenant)
        return sorted(
            nodes.values(), key=lambda n: (n.client is None, (n.name or n.id).casefold(), n.id)
        )

    async def require(self, tenant: TenantWithPairings, node_id: str) -> KnownNode:
        """Raises :exc:`NotFound`."""
        node = _known(await pairing.read(tenant), tenant).get(node_id)
        if node is None:
            raise _unknown_node()
        return node

    async def ask(
        self, tenant: TenantWithPairings, request: PairRequest
    ) -> tuple[PairRequest, bool]:
        """Ask those who may pair to pair a node; whether this is a new request.

        ``request`` needs no id and no time. The same question again is the
        same request.
        """
        now_ms = self.now_ms()
        async with pairing.changing(tenant) as file:
            for known in pairing.live_requests(file.current, "node", now_ms):
                if known.subject_id == request.subject_id:
                    same = replace(request, request_id=known.request_id, ts=known.ts)
                    if replace(same, is_repair=known.is_repair) == known:
                        return known, False
            request = replace(
                request,
                request_id=new_id("pair"),
                ts=now_ms,
                is_repair=request.subject_id in file.current.nodes,
            )
            requests = pairing.with_request(file.current, request, now_ms)
            await file.save(replace(file.current, requests=requests))
            asked = NodePairRequested.of(request)
            tenant.events.publish("node.pair.requested", asked, audience=Audience.PAIRING)
        return request, True

    async def pairings(
        self, tenant: TenantWithPairings
    ) -> tuple[tuple[PairRequest, ...], tuple[Node, ...]]:
        """What waits for a decision, and the nodes that were paired, the latest first."""
        paired = await pairing.read(tenant)
        nodes = sorted(paired.nodes.values(), key=lambda n: n.approved_at_ms, reverse=True)
        return pairing.live_requests(paired, "node", self.now_ms()), tuple(nodes)

    async def approve(
        self, tenant: TenantWithPairings, caller: Caller, request_id: str
    ) -> tuple[Node, str]:
        """Pair a node; return it and its token, which is shown once and kept nowhere."""
        async with pairing.changing(tenant) as file:
            request = self._request(file.current, request_id)
            before = file.current.nodes.get(request.subject_id)
            text = secrets.token_urlsafe(32)
            node = self._paired(before, request, text)
            async with self._audit.action(
                caller,
                "node.pair",
                tenant=tenant.id,
                target=node.node_id,
                details={"request": request_id, "commands": node.commands},
            ):
                requests = pairing.without_request(file.current, request_id)
                nodes = _with_node(file.current, node)
                await file.save(replace(file.current, nodes=nodes, requests=requests))
            self._tell(tenant, request_id, node.node_id, "approved")
        return node, text

    async def reject(
        self, tenant: TenantWithPairings, caller: Caller, request_id: str
    ) -> PairRequest:
        """Raises :exc:`NotFound`."""
        async with pairing.changing(tenant) as file:
            request = self._request(file.current, request_id)
            async with self._audit.action(
                caller, "node.pair.reject", tenant=tenant.id, target=request.subject_id
            ):
                requests = pairing.without_request(file.current, request_id)
                await file.save(replace(file.current, requests=requests))
            self._tell(tenant, request_id, request.subject_id, "rejected")
        return request

    async def remove(self, tenant: TenantWithPairings, caller: Caller, node_id: str) -> None:
        """Forget a node and end its connections.

        A device that is a node and more than that stays a device.
        """
        async with pairing.changing(tenant) as file:
            known = _known(file.current, tenant).get(node_id)
            if known is None or (known.node is None and known.device is None):
                raise _unknown_node()
            async with self._audit.action(caller, "node.unpair", tenant=tenant.id, target=node_id):
                await file.save(_without_node(file.current, node_id))
                tenant.state.node_queues.forget(node_id)
                for client in tenant.clients:
                    if client.node_id == node_id:
                        client.drop(_POLICY_VIOLATION, "node removed")
            self._tell(tenant, "", node_id, "removed")

    async def rename(
        self, tenant: TenantWithPairings, caller: Caller, node_id: str, name: str
    ) -> str:
        """Raises :exc:`NotFound` for a node that is not paired."""
        name = parse_label(name, field="displayName", longest=LONGEST_NAME)
        async with pairing.changing(tenant) as file:
            paired = file.current
            known = _known(paired, tenant).get(node_id)
            if known is None or (known.node is None and known.device is None):
                raise _unknown_node()
            if known.node is not None:
                node = replace(known.node, display_name=name or None)
                paired = replace(paired, nodes={**paired.nodes, node_id: node})
            elif known.device is not None:
                device = replace(known.device, label=name or None)
                paired = replace(paired, devices={**paired.devices, node_id: device})
            async with self._audit.action(caller, "node.rename", tenant=tenant.id, target=node_id):
                await file.save(paired)
        return name

    async def verify(self, tenant: TenantWithPairings, node_id: str, text: str) -> Node | None:
        """The node, if ``text`` is its token; None, for whatever reason it is not."""
        node = (await pairing.read(tenant)).nodes.get(node_id)
        held = _NOTHING if node is None or node.token_hash is None else node.token_hash
        matches = hmac.compare_digest(stored_digest(digest(text)), held)
        return node if matches else None

    def now_ms(self) -> int:
        return to_ms(self._clock())

    def _paired(self, before: Node | None, request: PairRequest, text: str) -> Node:
        now_ms = self.now_ms()
        return Node(
            node_id=request.subject_id,
            display_name=request.display_name,
            platform=request.platform,
            version=request.version,
            device_family=request.device_family,
            model_identifier=request.model_identifier,
            caps=request.caps,
            commands=request.commands,
            token_hash=stored_digest(digest(text)),
            created_at_ms=now_ms if before is None else before.created_at_ms,
            approved_at_ms=now_ms,
        )

    def _request(self, paired: Paired, request_id: str) -> PairRequest:
        for request in pairing.live_requests(paired, "node", self.now_ms()):
            if request.request_id == request_id:
                return request
        raise NotFound("unknown requestId")

    def _tell(
        self, tenant: TenantWithPairings, request_id: str, node_id: str, decision: str
    ) -> None:
        resolved = NodePairResolved(
            request_id=request_id, node_id=node_id, decision=decision, ts=self.now_ms()
        )
        tenant.events.publish("node.pair.resolved", resolved, audience=Audience.PAIRING)


def _known(paired: Paired, tenant: TenantWithPairings) -> dict[str, KnownNode]:
    devices = {d.device_id: d for d in paired.devices.values() if Role.NODE.value in d.roles}
    clients = {c.node_id: c for c in tenant.clients if c.node_id is not None}
    return {
        node_id: KnownNode(
            node_id, paired.nodes.get(node_id), devices.get(node_id), clients.get(node_id)
        )
        for node_id in {*paired.nodes, *devices, *clients}
    }


def _with_node(paired: Paired, node: Node) -> dict[str, Node]:
    """A full list loses the node that was paired first."""
    nodes = dict(paired.nodes)
    if node.node_id not in nodes and len(nodes) >= MOST_NODES:
        del nodes[min(nodes.values(), key=lambda n: n.approved_at_ms).node_id]
    nodes[node.node_id] = node
    return nodes


def _without_node(paired: Paired, node_id: str) -> Paired:
    devices = dict(paired.devices)
    device = devices.get(node_id)
    if device is not None:
        roles = tuple(role for role in device.roles if role != Role.NODE.value)
        if roles:
            tokens = without(device.tokens, Role.NODE.value)
            devices[node_id] = replace(device, roles=roles, tokens=tokens)
        else:
            del devices[node_id]
    requests = tuple(r for r in paired.requests if (r.kind, r.subject_id) != ("node", node_id))
    return Paired(
        devices=devices,
        nodes=without(paired.nodes, node_id),
        requests=requests,
        triggers=paired.triggers,
    )


# Another tenant's node is an unknown one: the answer does not even repeat the id.
def _unknown_node() -> NotFound:
    return NotFound("unknown nodeId")
