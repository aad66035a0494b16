"""One authorised request on its way to its handler and back."""

import logging
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Protocol

import msgspec

from appliance.model.ids import new_id
from appliance.protocols.gateway import WireError
from appliance.services.clients import Client
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.problems import find_expected
from appliance.transports.rpc.failures import error_of
from appliance.transports.rpc.method import Answer, Method, MethodCall, Params, Raw
from appliance.transports.rpc.reading import read_params
from appliance.transports.rpc.services import RpcServices

log = logging.getLogger(__name__)


class AccessLog(Protocol):
    def write(self, event: str, **fields: object) -> None: ...


class MethodCounts:
    """How often each method was called and how that ended. Plain integers: this is the hot path."""

    def __init__(self) -> None:
        self.by_method: dict[tuple[str, str], int] = {}

    def note(self, method: str, outcome: str) -> None:
        key = (method, outcome)
        self.by_method[key] = self.by_method.get(key, 0) + 1


class Dispatcher:
    """Turns a request into an answer, or into the error that its client is told."""

    def __init__(
        self, services: RpcServices, *, counts: MethodCounts, access_log: AccessLog
    ) -> None:
        self._services = services
        self._counts = counts
        self._log = access_log

    def answer_at_once(
        self, method: Method, raw: object, client: Client, tenant: TenantRuntime | None
    ) -> bytes | WireError:
        """Run an inline method; it never waits."""
        try:
            call = self._call(method, raw, client, tenant, client.caller.request_id, _no_respond)
            payload = encode(method.inline(call))  # type: ignore[misc]  # inline methods have one
        except Exception as exc:  # noqa: BLE001 - the transport's edge: every failure becomes an answer
            return self._failed(method, exc, client, client.caller.request_id)
        self._counts.note(method.name, "ok")
        return payload

    async def answer(
        self,
        method: Method,
        raw: object,
        client: Client,
        tenant: TenantRuntime | None,
        respond: Callable[[Answer], None],
    ) -> bytes | WireError:
        """Run a method to its end. Cancelled, it ends the method too."""
        request_id = new_id("req")
        began = perf_counter()
        outcome = "cancelled"
        try:
            call = self._call(method, raw, client, tenant, request_id, respond)
            answer = await method.handler(call)  # type: ignore[misc]  # it has one: the table says so
            payload = encode(answer)
            outcome = "ok"
            self._counts.note(method.name, "ok")
        except Exception as exc:  # noqa: BLE001 - the transport's edge: every failure becomes an answer
            error = self._failed(method, exc, client, request_id)
            outcome = error.code
            return error
        finally:
            self._log.write(
                "request",
                tenant=client.caller.tenant,
                request_id=request_id,
                method=method.name,
                connection=client.id,
                outcome=outcome,
                ms=round((perf_counter() - began) * 1000, 2),
            )
        return payload

    def _call(
        self,
        method: Method,
        raw: object,
        client: Client,
        tenant: TenantRuntime | None,
        request_id: str,
        respond: Callable[[Answer], None],
    ) -> MethodCall[Params]:
        params = read_params(method.params, raw, method=method.name)
        caller = client.caller
        if caller.request_id != request_id:
            caller = replace(caller, request_id=request_id)
        return MethodCall(method, params, caller, client, tenant, self._services, respond)

    def _failed(
        self, method: Method, exc: BaseException, client: Client, request_id: str
    ) -> WireError:
        expected = find_expected(exc)
        self._counts.note(method.name, "error" if expected is None else expected.code)
        return error_of(exc, protocol=client.protocol, request_id=request_id)


def encode(answer: Answer) -> bytes:
    if isinstance(answer, Raw):
        return answer.json
    return msgspec.json.encode(answer)


def _no_respond(_: Answer) -> None:
    raise RuntimeError("an inline method answers once")
