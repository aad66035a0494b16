"""``GET /v1/models``: what a tenant may name, in OpenAI's shape and in Anthropic's."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any, cast

import msgspec
import pytest
import trio
from msgspec import structs

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import (
    ApplianceError,
    ModelForbidden,
    ModelUnknown,
    TenantDisabled,
    TokenRejected,
)
from appliance.model.tokens import Scope
from appliance.services.routing import CatalogueEntry, Route, Target
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.callers import ACCEPTED_AT, Presented
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.openai_api.models import (
    PATH,
    AnthropicModelsHandler,
    ByVersionHeader,
    ModelsHandler,
    Offered,
)
from appliance.transports.raw.answers import Answer
from appliance.transports.raw.exchange import RawRoute

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
    refused: list[Exception] = field(default_factory=list)

    def admit(self, scope: dict[str, Any], presented: Presented) -> Caller:
        if isinstance(self.caller, ApplianceError):
            raise self.caller
        return self.caller

    def count_refusal(self, error: Exception) -> None:
        self.refused.append(error)

    def note(
        self, scope: dict[str, Any], caller: Caller | None, answer: Answer, *, route: str
    ) -> None:
        assert route == PATH
        self.noted.append((caller, answer.status))


@dataclass
class FakeRuntime:
    """What the routes want of a tenant."""

    config: GatewayConfig
    meter: "FakeRuntime | None" = None

    def __post_init__(self) -> None:
        self.meter = self

    def rate_headers(self) -> dict[str, str]:
        return {}

    def budget_headers(self) -> dict[str, str]:
        return {}


@dataclass
class FakeTenants:
    failure: Exception | None = None
    config: GatewayConfig = field(default_factory=GatewayConfig)
    asked: list[str] = field(default_factory=list)

    async def runtime(self, tenant_id: str) -> TenantRuntime:
        await trio.lowlevel.checkpoint()
        self.asked.append(tenant_id)
        if self.failure is not None:
            raise self.failure
        return cast("TenantRuntime", FakeRuntime(self.config))


async def list_models(runtime: TenantRuntime) -> Sequence[CatalogueEntry]:
    await trio.lowlevel.checkpoint()
    return ENTRIES


class FakeNames:
    def require(self, tenant: TenantRuntime, caller: Caller, model: str, /) -> Route:
        target = Target.parse(model)
        if target is None or target.provider not in {"stub", "dear"}:
            raise ModelUnknown("nowhere")
        if target.provider == "dear":
            raise ModelForbidden("not for you")
        return Route(model, (target,))


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
    query: str = "",
    anthropic: bool | str = False,
    caller: Caller | ApplianceError | None = None,
    failure: Exception | None = None,
    config: GatewayConfig | None = None,
) -> Asked:
    door = FakeDoor(caller or tenant(Scope.FULL))
    tenants = FakeTenants(failure, config or GatewayConfig())
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        messages.append(message)

    offered = Offered(list_models, FakeNames())
    route = partial(RawRoute, door=door, tenants=tenants, form=failure_of, label=PATH)
    endpoint = ByVersionHeader(
        route(ModelsHandler(offered, SINCE)), route(AnthropicModelsHandler(offered, SINCE))
    )
    version = "2023-06-01" if anthropic is True else str(anthropic)
    scope = {
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"anthropic-version", version.encode())] if anthropic else [],
        ACCEPTED_AT: perf_counter(),
    }
    await endpoint(scope, trio.sleep_forever, send)

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


@pytest.mark.parametrize("anthropic", [False, True])
@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("openclaw:main", "openclaw"),
        ("openclaw/main", "openclaw"),
        ("openclaw/default", "openclaw"),
        ("stub/not-listed", "stub"),
    ],
)
async def test_what_may_be_asked_for_is_found_though_it_is_not_listed(
    name: str, owner: str, *, anthropic: bool
) -> None:
    answer = await ask(f"/v1/models/{name}", anthropic=anthropic)

    assert answer.body["id"] == name
    assert anthropic or answer.body["owned_by"] == owner


@pytest.mark.parametrize("name", ["openclaw:nobody", "dear/model", "stub/" + "x" * 300, "stub/%00"])
async def test_what_may_not_be_asked_for_is_not_found(name: str) -> None:
    assert (await ask(f"/v1/models/{name}")).status == 404


@pytest.mark.parametrize("name", ["openclaw", "openclaw:main"])
async def test_an_agent_whose_model_a_token_is_not_for_is_not_found(name: str) -> None:
    caller = replace(tenant(Scope.CHAT), models=("stub/*",))

    assert (await ask(f"/v1/models/{name}", caller=caller)).status == 404


async def test_a_version_there_is_not_is_refused_after_who_asks_is_known() -> None:
    unknown = await ask(anthropic="2020-01-01")
    stranger = await ask(anthropic="2020-01-01", caller=TokenRejected())

    assert (unknown.status, unknown.body["error"]["param"]) == (400, "anthropic-version")
    assert (await ask(anthropic="2026-10-21")).status == 200
    assert stranger.status == 401


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
    assert "data" not in answer.body


@pytest.mark.parametrize("anthropic", [False, True])
async def test_a_token_for_some_models_is_shown_those(*, anthropic: bool) -> None:
    caller = replace(tenant(Scope.CHAT), models=("stub/*",))

    answer = await ask(caller=caller, anthropic=anthropic, config=EMBEDDING)
    hidden = await ask("/v1/models/openclaw", caller=caller, anthropic=anthropic)

    assert [entry["id"] for entry in answer.body["data"]] == ["stub/mock", "stub/org/a model"]
    assert hidden.status == 404


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


EMBEDDING = parse_config(
    """
providers:
  stub: {dialect: openai}
  spare: {dialect: openai}
  local: {dialect: embedded}
models: {embedding: small, aliases: {small: stub/text-small}}
""",
    name="config",
)


async def test_the_models_for_embeddings_are_listed_too() -> None:
    answer = await ask(config=EMBEDDING)

    named = [entry["id"] for entry in answer.body["data"]]
    assert named == [*(entry.id for entry in ENTRIES), "small", "local/all-minilm-l6-v2"]
    assert answer.body["data"][3]["owned_by"] == "stub"


@pytest.mark.parametrize("anthropic", [False, True])
@pytest.mark.parametrize("slash", ["/", "%2F", "%2f"])
async def test_a_name_that_the_built_in_model_has_not_is_not_found(
    slash: str, *, anthropic: bool
) -> None:
    config = structs.replace(EMBEDDING, providers={"stub": EMBEDDING.providers["local"]})

    unknown = await ask(f"/v1/models/stub{slash}nobody", anthropic=anthropic, config=config)
    listed = await ask(f"/v1/models/stub{slash}mock", anthropic=anthropic, config=config)
    vectors = await ask(
        f"/v1/models/stub{slash}all-minilm-l6-v2", anthropic=anthropic, config=config
    )

    assert (unknown.status, listed.status, vectors.status) == (404, 200, 200)
    assert unknown.body["error"]["code"] == "model_not_found"


async def test_none_is_listed_twice() -> None:
    models = structs.replace(EMBEDDING.models, embedding="stub/mock")

    answer = await ask(config=structs.replace(EMBEDDING, models=models))

    assert [entry["id"] for entry in answer.body["data"]].count("stub/mock") == 1
    assert answer.body["data"][1]["id"] == "stub/mock"


async def test_anthropics_clients_get_anthropics_shape() -> None:
    answer = await ask(anthropic=True)

    assert answer.body["data"][1] == {
        "type": "model",
        "id": "stub/mock",
        "display_name": "stub/mock",
        "created_at": "2026-11-21T00:00:00Z",
    }
    assert answer.body["first_id"] == "openclaw"
    assert answer.body["last_id"] == "stub/org/a model"
    assert answer.body["has_more"] is False
    assert answer.headers[b"request-id"] == answer.headers[b"x-request-id"]


@pytest.mark.parametrize(
    ("query", "names", "has_more"),
    [
        ("limit=2", ["openclaw", "stub/mock"], True),
        ("limit=3&beta=true", ["openclaw", "stub/mock", "stub/org/a model"], False),
        ("limit=1&after_id=openclaw", ["stub/mock"], True),
        ("after_id=stub%2Fmock", ["stub/org/a model"], False),
        ("after_id=stub%2Forg%2Fa%20model", [], False),
        ("limit=1&before_id=stub/org/a+model", ["stub/mock"], True),
        ("before_id=stub/mock", ["openclaw"], False),
        ("before_id=openclaw", [], False),
    ],
)
async def test_anthropics_list_comes_in_pages(
    query: str, names: list[str], *, has_more: bool
) -> None:
    answer = await ask(anthropic=True, query=query)

    assert [entry["id"] for entry in answer.body["data"]] == names
    assert answer.body["has_more"] is has_more
    assert answer.body["first_id"] == (names[0] if names else None)
    assert answer.body["last_id"] == (names[-1] if names else None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("after_id=nobody", "after_id"),
        ("before_id=%ff%fe", "before_id"),
        ("after_id=openclaw&before_id=openclaw", "before_id"),
        ("&".join(f"q{i}=1" for i in range(50)), None),
    ],
)
async def test_a_page_that_cannot_be_is_refused_by_name(query: str, field: str | None) -> None:
    answer = await ask(anthropic=True, query=query)

    assert answer.status == 400
    assert answer.body["error"]["param"] == field


@pytest.mark.parametrize("written", ["stub/org/a model", "stub%2Forg%2Fa%20model"])
async def test_anthropics_clients_find_one_model(written: str) -> None:
    answer = await ask(f"/v1/models/{written}", anthropic=True)

    assert answer.body["type"] == "model"
    assert answer.body["id"] == "stub/org/a model"


async def test_an_unknown_model_is_a_404_for_them_too() -> None:
    assert (await ask("/v1/models/nobody", anthropic=True)).status == 404
