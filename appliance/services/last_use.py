"""When each token was last used: known at once, written down now and then.

The original rewrote its registry at every request. Here a request notes the
moment in memory; it reaches ``tenant.json`` with the next change of the
tenant, when the tenant falls asleep, or within the hour. A crash loses at most
that, and nothing depends on it but an operator's look at unused tokens.
"""

import logging
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from appliance.model.errors import ApplianceError
from appliance.model.tenants import TenantRecord
from appliance.services.token_index import TokenIndex

log = logging.getLogger(__name__)

_EVERY = 3600.0  # seconds


class Registry(Protocol):
    @property
    def index(self) -> TokenIndex: ...
    def changing(self, tenant: str) -> AbstractAsyncContextManager[TenantRecord]: ...
    async def write(self, record: TenantRecord) -> TenantRecord: ...


class LastUse:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write down what was noted, once an hour, until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(_EVERY)
            await self.flush_all()

    async def flush_all(self) -> None:
        for tenant in sorted(self._registry.index.used()):
            await self.flush(tenant)

    async def flush(self, tenant: str) -> None:
        """Write down what was noted of ``tenant``, if anything was. Raises nothing."""
        index = self._registry.index
        if tenant not in index.used():
            return
        try:
            async with self._registry.changing(tenant) as record:
                await self._registry.write(record)
        except (ApplianceError, OSError) as error:
            # It is in memory still, and the next change takes it along.
            index.forget_use(tenant)
            log.warning(
                "the last use of tokens was not written down",
                extra={"tenant": tenant, "reason": str(error)},
            )
