"""What the methods are given to work with. Nothing in it is global."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from appliance.config.schema import GatewayConfig
from appliance.model.spending import Standing
from appliance.services.agents import AgentService
from appliance.services.approvals.approvals import Approvals
from appliance.services.audit import Audit
from appliance.services.chat import ChatService
from appliance.services.devices import DeviceService
from appliance.services.logs import LogBook
from appliance.services.nodes import NodeService
from appliance.services.presence import Presence
from appliance.services.resources import ResourceMonitor
from appliance.services.routing import CatalogueEntry, Router
from appliance.services.sandboxes.sandboxes import Sandboxes
from appliance.services.session_usage import SessionUsage
from appliance.services.sessions import SessionService
from appliance.services.snapshots import Snapshots
from appliance.services.tenants import TenantService
from appliance.services.terminals.terminals import Terminals
from appliance.services.tools.invocations import ToolInvocations
from appliance.services.usage_reports import UsageReports
from appliance.services.voicewake import VoiceWake
from appliance.services.workspace_contents import WorkspaceContents
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.control.collaborators import GatewayFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcServices:
    agents: AgentService
    approvals: Approvals
    audit: Audit
    chat: ChatService
    devices: DeviceService
    logs: LogBook
    nodes: NodeService
    presence: Presence
    resources: ResourceMonitor
    router: Router
    sandboxes: Sandboxes
    session_usage: SessionUsage
    sessions: SessionService
    snapshots: Snapshots
    tenants: TenantService
    terminals: Terminals
    tools: ToolInvocations
    usage: UsageReports
    voicewake: VoiceWake
    workspaces: WorkspaceContents
    config: Callable[[], GatewayConfig]
    catalogue: Callable[[TenantRuntime], Awaitable[Sequence[CatalogueEntry]]]
    clock: Callable[[], datetime]
    facts: Callable[[], GatewayFacts]
    standing: Callable[[str], Awaitable[Standing]]
    version: str
