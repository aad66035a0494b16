"""The parts behind the WebSocket: the methods' services, and the door itself."""

import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import trio

import appliance
from appliance.cli.tool_parts import build_tools
from appliance.config.schema import GatewayConfig
from appliance.log import LineWriter
from appliance.model.spending import Standing
from appliance.services.access import Access
from appliance.services.agents import AgentService
from appliance.services.approvals.approvals import Approvals
from appliance.services.audit import Audit
from appliance.services.chat import ChatService
from appliance.services.chat_commands import ChatCommands
from appliance.services.chat_notes import ChatNotes
from appliance.services.chat_turns import ChatTurns
from appliance.services.compaction import Compactor
from appliance.services.devices import DeviceService
from appliance.services.disk_usage import DiskSizes
from appliance.services.logs import LogBook
from appliance.services.machine import Machine
from appliance.services.model_calls import ModelCalls
from appliance.services.nodes import NodeService
from appliance.services.presence import Presence
from appliance.services.registry import TenantRegistry
from appliance.services.resources import Activity, ResourceMonitor
from appliance.services.routing import CatalogueEntry, Router
from appliance.services.sandboxes.sandboxes import Sandboxes
from appliance.services.session_policy import SessionPolicy, gateway_zone
from appliance.services.session_usage import SessionUsage
from appliance.services.sessions import SessionService
from appliance.services.snapshots import Snapshots
from appliance.services.tenants import TenantService
from appliance.services.terminals.terminals import Terminals
from appliance.services.token_index import TokenIndex
from appliance.services.tools.invocations import ToolInvocations
from appliance.services.tools.toolbox import Toolbox
from appliance.services.turns.turns import Turns
from appliance.services.usage_reports import UsageReports
from appliance.services.voicewake import VoiceWake
from appliance.services.workspace_contents import WorkspaceContents
from appliance.storage.state import StateDirectory
from appliance.tenants.directory import Supervisor
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.callers import Peers
from appliance.transports.control.collaborators import GatewayFacts
from appliance.transports.metrics import Metrics
from appliance.transports.rpc.dispatch import Dispatcher, MethodCounts
from appliance.transports.rpc.permissions import Permissions
from appliance.transports.rpc.services import RpcServices
from appliance.transports.rpc.table import METHODS
from appliance.transports.websocket.connection import Connection
from appliance.transports.websocket.device_tokens import DeviceTokenDoor
from appliance.transports.websocket.door import DoorParts, WebSocketDoor
from appliance.transports.websocket.handshake import Handshake
from appliance.transports.websocket.hello import Hello
from appliance.transports.websocket.throttle import LoginThrottle

# Databases, providers and HTTP need some while every client has one.
_KEPT_DESCRIPTORS = 256

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What the rest of the gateway has built already."""

    state: StateDirectory
    config: Callable[[], GatewayConfig]
    clock: Clock
    log: LineWriter
    access: Access
    index: TokenIndex
    audit: Audit
    registry: TenantRegistry
    supervisor: Supervisor
    tenants: TenantService
    usage: UsageReports
    router: Router
    calls: ModelCalls
    turns: Turns
    terminals: Terminals
    toolbox: Toolbox
    sandboxes: Sandboxes
    disk_sizes: DiskSizes
    approvals: Approvals
    metrics: Metrics
    peers: Callable[[], Peers]
    facts: Callable[[], GatewayFacts]
    standing: Callable[[str], Awaitable[Standing]]
    catalogue: Callable[[TenantRuntime], Awaitable[Sequence[CatalogueEntry]]]
    started_at: datetime


class WebSocketParts:
    """The WebSocket door and what is behind it, wired up."""

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self.policy = SessionPolicy(local_zone=gateway_zone())
        self.resources = ResourceMonitor(
            Machine(base.state.path),
            base.disk_sizes,
            tenants=base.tenants,
            usage=base.usage,
            activity=self._activity,
            sandboxes=lambda: len(base.sandboxes.starts),
            clock=base.clock,
        )
        self.logs = LogBook()
        base.log.listen(self.logs.take)
        self.services = self._build_services()
        self.counts = MethodCounts()
        self.permissions = Permissions(METHODS)
        self.door = self._build_door()

    def _build_services(self) -> RpcServices:
        base = self._base
        compactor = Compactor(base.calls, clock=base.clock)
        chat = ChatService(
            ChatTurns(base.turns, compactor, clock=base.clock),
            ChatCommands(base.router, clock=base.clock),
            ChatNotes(clock=base.clock),
            self.policy,
            clock=base.clock,
        )
        sessions = SessionService(
            policy=self.policy, router=base.router, compaction=compactor, clock=base.clock
        )
        agents = AgentService(base.tenants, gateway=base.config, audit=base.audit)
        base.toolbox.add(
            *build_tools(
                sandboxes=base.sandboxes,
                approvals=base.approvals,
                chat=chat,
                listings=sessions.listing,
                clock=base.clock,
            )
        )
        return RpcServices(
            agents=agents,
            approvals=base.approvals,
            audit=base.audit,
            chat=chat,
            devices=DeviceService(base.index, audit=base.audit, clock=base.clock),
            logs=self.logs,
            nodes=NodeService(audit=base.audit, clock=base.clock),
            presence=Presence(version=appliance.__version__, clock=base.clock),
            resources=self.resources,
            router=base.router,
            sandboxes=base.sandboxes,
            session_usage=SessionUsage(currency=lambda: base.config().billing.currency),
            sessions=sessions,
            snapshots=Snapshots(
                router=base.router,
                facts=base.facts,
                clock=base.clock,
                version=appliance.__version__,
            ),
            tenants=base.tenants,
            terminals=base.terminals,
            tools=ToolInvocations(base.toolbox, gate=base.approvals, clock=base.clock),
            usage=base.usage,
            voicewake=VoiceWake(audit=base.audit),
            workspaces=WorkspaceContents(agents=agents, audit=base.audit),
            config=base.config,
            catalogue=base.catalogue,
            clock=base.clock,
            facts=base.facts,
            standing=base.standing,
            version=appliance.__version__,
        )

    def _build_door(self) -> WebSocketDoor:
        base = self._base
        dispatcher = Dispatcher(self.services, counts=self.counts, access_log=base.log)
        return WebSocketDoor(
            DoorParts(
                config=base.config,
                access=base.access,
                holds=base.registry.__contains__,
                peers=base.peers,
                supervisor=base.supervisor,
                handshake=Handshake(
                    access=base.access,
                    device_tokens=DeviceTokenDoor(
                        self.services.devices,
                        base.supervisor,
                        holds=base.registry.__contains__,
                    ),
                    throttle=LoginThrottle(clock=trio.current_time),
                    config=base.config,
                    clock=base.clock,
                ),
                hello=Hello(
                    config=base.config,
                    devices=self.services.devices.credentials,
                    nodes=self.services.nodes,
                    presence=self.services.presence,
                    policy=self.policy,
                    health=self.services.snapshots,
                    version=appliance.__version__,
                    clock=base.clock,
                    started_at=base.started_at,
                ),
                connect=partial(
                    Connection,
                    dispatcher=dispatcher,
                    permissions=self.permissions,
                    limits=lambda: base.config().server.websocket,
                ),
                clock=base.clock,
                counts=base.metrics,
                most_connections=_descriptors() - _KEPT_DESCRIPTORS,
            )
        )

    def _activity(self) -> Mapping[str, Activity]:
        found = {}
        for tenant in self._base.supervisor.awake_tenants:
            found[tenant.id] = Activity(runs=len(tenant.runs), connections=len(tenant.clients))
        return found


def _descriptors() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
