"""Whether heartbeats run for a tenant, and how the last one went.

The runs themselves are not part of this release; a client may look, and may
switch them off for as long as the tenant is awake.
"""

from collections.abc import Mapping
from typing import Protocol

from appliance.services.tenant_state import TenantState


class TenantWithHeartbeats(Protocol):
    @property
    def state(self) -> TenantState: ...


def last_heartbeat(tenant: TenantWithHeartbeats) -> Mapping[str, object] | None:
    """What the ``heartbeat`` event said, None if there was none yet."""
    return tenant.state.last_heartbeat


def set_heartbeats(tenant: TenantWithHeartbeats, *, enabled: bool) -> None:
    tenant.state.heartbeats_enabled = enabled
