"""``GET /v1/models``: what a tenant may name, in OpenAI's shape."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, cast

import msgspec
import pytest
import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import ApplianceError, TenantDisabled, TokenRejected
from appliance.model.tokens import Scope
from appliance.services.routing import CatalogueEntry
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.callers import ACCEPTED_AT, Presented
from appliance.transports.openai_api.answers import Answer
from appliance.transports.openai_api.failures import Failure, failure_of
from appliance.transports.openai_api.models import ModelsRoute

SINCE = datetime(2026, 11, 21, tzinfo=UTC)
ENTRIES = [
    CatalogueEntry("openclaw", "openclaw"),
    CatalogueEntry("stub/mock", "stub"),
    CatalogueEntry("stub/org/a model", "stub"),
]


@dataclass
class FakeDoor:
    caller: Caller | ApplianceError
    config: GatewayConfig = field(default_factory=GatewayConfig)
    noted: list[tuple[Caller | None, int]] = field(default_factory=list)

    def admit(self, scope: dict[str, Any], presented: Presented) -> Caller:
        if isinstance(self.caller, ApplianceError):
            raise self.caller
        return self.caller

    def refuse(self, error: Exception, *, request_id: str) -> Failure:
        return failure_of(error, request_id=request_id)

    def note(self, scope: dict[str, Any], caller: Caller | None, answer: Answer) -> None:
        self.noted.append((caller, answer.status))


@dataclass
class FakeTenants:
    failure: Exception | None = None
    asked: list[str] = field(default_factory=list)

    async def runtime(self, tenant_id: str) -> TenantRuntime:
        await trio.lowlevel.checkpoint()
        self.asked.append(tenant_id)
        if self.failure is not None:
            raise self.failure
        return cast("TenantRuntime", object())


async def list_models(runtime: TenantRuntime) -> Sequence[CatalogueEntry]:
    await trio.lowlevel.checkpoint()
    return ENTRIES


def tenant(*scopes: Scope) -> Caller:
    return Caller(ActorKind.TENANT, "tok_1", "acme", frozenset(scopes))


@dataclass
class Asked:
    status: int
    headers: dict[bytes, bytes]
    body: Any
    door: FakeDoor
    tenants: FakeTenants


async def ask(
    path: str = "/v1/models",
    *,
    method: str = "GET",
    caller: Caller | ApplianceError | None = None,
    failure: Exception | None = None,
) -> Asked:
    door, tenants = FakeDoor(caller or tenant(Scope.FULL)), FakeTenants(failure)
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        messages.append(message)

    route = ModelsRoute(door, tenants, list_models, SINCE)
    scope = {"method": method, "path": path, "headers": [], ACCEPTED_AT: perf_counter()}
    await route(scope, trio.sleep_forever, send)

    start, end = messages
    assert not end["more_body"]
    headers = dict(start["headers"])
    assert headers[b"content-length"] == b"%d" % len(end["body"])
    return Asked(start["status"], headers, msgspec.json.decode(end["body"]), door, tenants)


def model(name: str, owner: str) -> dict[str, object]:
    created = int(SINCE.timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/"])
async def test_the_list_is_in_the_catalogues_order(path: str) -> None:
    answer = await ask(path)

    assert answer.status == 200
    assert answer.headers[b"content-type"] == b"application/json"
    assert answer.body == {"object": "list", "data": [model(e.id, e.owned_by) for e in ENTRIES]}
    assert answer.tenants.asked == ["acme"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("openclaw", "openclaw"),
        ("stub/mock", "stub/mock"),
        ("stub%2Fmock", "stub/mock"),
        ("stub%2Forg%2fa%20model", "stub/org/a model"),
    ],
)
async def test_one_model_is_found_however_its_slash_is_written(written: str, name: str) -> None:
    answer = await ask(f"/v1/models/{written}")

    assert answer.body["id"] == name


@pytest.mark.parametrize("name", ["nobody", "stub", "stub/", "STUB/mock", "x" * 10_000, "%ff"])
async def test_an_unknown_model_is_a_404_of_bounded_length(name: str) -> None:
    answer = await ask(f"/v1/models/{name}")

    assert answer.status == 404
    assert answer.body["error"]["code"] == "model_not_found"
    assert len(answer.body["error"]["message"]) < 300


@pytest.mark.parametrize("scope", [Scope.CHAT, Scope.READ, Scope.MANAGE, Scope.FULL])
async def test_whoever_may_chat_or_look_may_list(scope: Scope) -> None:
    assert (await ask(caller=tenant(scope))).status == 200


async def test_a_token_for_terminals_only_may_not() -> None:
    answer = await ask(caller=tenant(Scope.TERMINAL))

    assert answer.status == 403
    assert answer.tenants.asked == []


async def test_an_admin_names_the_tenant() -> None:
    at_large = Caller(ActorKind.ADMIN, "first", None)
    acting = Caller(ActorKind.ADMIN_ON_BEHALF, "first", "acme")

    assert (await ask(caller=at_large)).status == 403
    assert (await ask(caller=acting)).status == 200


@pytest.mark.parametrize("method", ["POST", "DELETE", "NONSENSE"])
async def test_other_methods_are_told_which_is_right(method: str) -> None:
    answer = await ask(method=method)

    assert answer.status == 405
    assert answer.headers[b"allow"] == b"GET, HEAD"


@pytest.mark.parametrize(
    ("caller", "failure", "status"),
    [(TokenRejected(), None, 401), (None, TenantDisabled("x"), 409), (None, ValueError("x"), 500)],
)
async def test_a_failure_is_answered_and_noted(
    caller: ApplianceError | None, failure: Exception | None, status: int
) -> None:
    answer = await ask(caller=caller, failure=failure)

    assert answer.status == status
    assert [noted for _, noted in answer.door.noted] == [status]


async def test_each_answer_is_noted_once() -> None:
    answer = await ask()

    assert answer.door.noted == [(tenant(Scope.FULL), 200)]
