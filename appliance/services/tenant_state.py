"""What the gateway remembers of a tenant only while it is awake.

Nothing in here is written down: after a sleep it begins anew, as it would
after a restart. What must survive has a store.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import trio

from appliance.services.approvals.pending import ApprovalBook
from appliance.services.config_writes import ConfigWrites
from appliance.services.mcp.host import McpHost
from appliance.services.node_invokes import NodeInvokes
from appliance.services.node_queues import NodeQueues
from appliance.services.presence_beacons import Beacons
from appliance.services.processes import ProcessTable
from appliance.services.responses.book import ResponseBook
from appliance.services.terminals.book import TerminalBook
from appliance.services.turns.prompt_files import PromptFiles
from appliance.storage.paired import Paired

_MOST_TEXTS = 100


@dataclass(frozen=True, slots=True)
class SystemText:
    """Something the agent is to be told when its session speaks next.

    ``session`` is the short key of the session, None for the main one.
    """

    at_ms: int
    text: str
    session: str | None = None


class TenantState:
    def __init__(self) -> None:
        # Clients compare them for being newer only; 0 would read as "none yet".
        self.presence_version = 1
        self.health_version = 1

        self.presence_changed = False
        self.presence_published_at = -inf  # Trio's clock
        self.presence_list = b"[]"
        self.presence_listed_at = -inf
        self.beacons = Beacons()

        self.heartbeats_enabled = True
        self.last_heartbeat: Mapping[str, object] | None = None
        # The newest; whoever sends more than an agent reads loses the oldest.
        self.system_texts: deque[SystemText] = deque(maxlen=_MOST_TEXTS)

        # Whatever its files do to whoever looks at them, it keeps no more threads busy.
        self.workspace_threads = trio.CapacityLimiter(2)
        self.workspace_transfers = 0  # files that are on their way in or out

        # The same for what the web does to whoever looks at it.
        self.web_fetches = trio.CapacityLimiter(8)
        self.web_lookups = trio.CapacityLimiter(4)
        self.web_readers = trio.CapacityLimiter(1)

        self.approvals = ApprovalBook()
        self.processes = ProcessTable()
        self.mcp = McpHost()
        self.config_writes = ConfigWrites()
        self.prompt_files: dict[str, PromptFiles] = {}  # by agent
        self.terminals = TerminalBook()
        self.invokes = NodeInvokes()
        self.node_queues = NodeQueues()
        self.responses = ResponseBook()

        self.paired: Paired | None = None  # what ``devices.json`` holds, once it was read
        self.pairing = trio.Lock()  # whoever changes ``devices.json``
        self.device_seen_ms: dict[str, int] = {}
