"""Terminals where no sandbox is: those of tenants that a test calls awake."""

from appliance.model.errors import TenantUnknown
from appliance.services.audit import AuditTrail
from appliance.services.terminals.parts import TerminalParts, TerminalTenant
from appliance.services.terminals.recordings import Recordings, Roots
from appliance.services.terminals.terminals import Terminals
from appliance.storage.paths import TenantRoot
from tests.fakes.sandboxes import FakeSandboxes
from tests.services.tenancy import NOW, FakeAudit


class NoRoots:
    """Nobody has a directory."""

    def tenant_root(self, tenant: str) -> TenantRoot:
        raise TenantUnknown("there is no such tenant")


def terminals_of(
    *awake: TerminalTenant, roots: Roots | None = None, audit: AuditTrail | None = None
) -> Terminals:
    async def wake(tenant: str) -> TerminalTenant:
        for each in awake:
            if each.id == tenant:
                return each
        raise TenantUnknown("there is no such tenant")

    trail = audit or FakeAudit()
    parts = TerminalParts(
        sandboxes=FakeSandboxes(), audit=trail, clock=lambda: NOW, is_live=lambda _: True
    )
    recordings = Recordings(roots=roots or NoRoots(), audit=trail)
    return Terminals(parts, recordings=recordings, awake=lambda: awake, wake=wake)
