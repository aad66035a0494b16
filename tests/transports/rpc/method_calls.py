"""Calls one method as the dispatcher would, without a connection."""

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from appliance.tenants.runtime import TenantRuntime
from appliance.transports.rpc.dispatch import encode
from appliance.transports.rpc.method import Answer, Method, MethodCall
from appliance.transports.rpc.reading import read_params
from appliance.transports.rpc.services import RpcServices
from tests.fakes.awake import FakeAwake, FakeClient


class Methods:
    """``services`` holds what the methods under test use, and nothing else."""

    def __init__(self, methods: Iterable[Method], services: object) -> None:
        self.methods = {method.name: method for method in methods}
        self._services = cast("RpcServices", services)

    async def call(
        self, tenant: FakeAwake, client: FakeClient, name: str, params: object = None
    ) -> Any:
        """The answer, as the client reads it."""
        method = self.methods[name]
        early: list[Answer] = []
        call: MethodCall[Any] = MethodCall(
            method,
            read_params(method.params, params, method=name),
            client.caller,
            client,
            cast("TenantRuntime", tenant),
            self._services,
            early.append,
        )
        if method.inline is not None:
            answer: Answer = method.inline(call)
        else:
            assert method.handler is not None
            answer = await method.handler(call)
        assert early in ([], [answer]), "what was answered early is the answer"
        return msgspec.json.decode(encode(answer))
