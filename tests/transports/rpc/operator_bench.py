"""Methods about tenants and the gateway, called on a real tenancy without a connection."""

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import TenantDisabled, TenantUnknown
from appliance.model.spending import QuotaStanding, Standing
from appliance.model.tokens import Scope
from appliance.services.disk_usage import DiskSizes
from appliance.services.logs import LogBook
from appliance.services.resources import Activity, ResourceMonitor
from appliance.services.usage_reports import UsageReports
from appliance.transports.control.collaborators import GatewayFacts
from appliance.transports.rpc.method import Method, MethodCall, Raw
from appliance.transports.rpc.reading import read_params
from tests.services.tenancy import ADMIN, Tenancy
from tests.services.test_resources import FakeMachine

ON_BEHALF = Caller(ActorKind.ADMIN_ON_BEHALF, "first", "acme")


class OperatorBench:
    """Everything that the methods of this noun are given."""

    def __init__(self, tenancy: Tenancy, methods: Iterable[Method]) -> None:
        self.tenancy = tenancy
        self.methods: Mapping[str, Method] = {method.name: method for method in methods}
        self.woken: list[str] = []
        self.quotas: tuple[QuotaStanding, ...] = ()
        self.logs = LogBook()
        self.activity: dict[str, Activity] = {}
        usage = UsageReports(roots=tenancy.state, currency=lambda: "USD")
        self.services = SimpleNamespace(
            tenants=tenancy.tenants,
            usage=usage,
            logs=self.logs,
            clock=tenancy.clock,
            facts=self._facts,
            standing=self._standing,
            resources=ResourceMonitor(
                FakeMachine(),
                DiskSizes(tenancy.state, clock=tenancy.clock),
                tenants=tenancy.tenants,
                usage=usage,
                activity=lambda: self.activity,
                clock=tenancy.clock,
            ),
        )

    async def caller(self, tenant: str = "acme", scope: Scope = Scope.FULL) -> Caller:
        """One of the tenant, which is made unless it is there."""
        if tenant not in self.tenancy.registry:
            await self.tenancy.make(tenant)
        return await self.tenancy.caller(tenant, scope)

    async def call(
        self, name: str, params: object = None, *, caller: Caller = ADMIN, tenant: Any = None
    ) -> Any:
        """Call a method; return its payload as a client reads it."""
        method = self.methods[name]
        call = MethodCall(
            method,
            read_params(method.params, params, method=name),
            caller,
            cast("Any", None),
            tenant,
            cast("Any", self.services),
            cast("Any", None),
        )
        assert method.handler is not None
        answer = await method.handler(call)
        payload = answer.json if isinstance(answer, Raw) else msgspec.json.encode(answer)
        if method.result is not None:
            msgspec.json.decode(payload, type=method.result)  # it is what the table says
        return msgspec.json.decode(payload)

    def _facts(self) -> GatewayFacts:
        return GatewayFacts(
            started_at=self.tenancy.clock(),
            tenants_known=len(self.tenancy.registry),
            tenants_disabled=self.tenancy.registry.disabled_count,
            tenants_awake=0,
            broken={},
            disk_free_bytes=1,
            config_problem=None,
            providers=(),
        )

    async def _standing(self, tenant: str) -> Standing:
        self.woken.append(tenant)
        record = self.tenancy.registry.find_record(tenant)
        if record is None:
            raise TenantUnknown("there is no such tenant")
        if record.disabled:
            raise TenantDisabled("the tenant is disabled")
        return Standing(self.quotas)
