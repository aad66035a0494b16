"""``POST /v1/embeddings`` and both lists of models, as a client sees them."""

from typing import Any

import httpx
import openai
import pytest
import trio

from tests.gateway.conftest import Gateway, Tenant
from tests.stub_provider import embedding

EMBEDDINGS = "/v1/embeddings"


@pytest.fixture
def gateway(lasting_gateway: Gateway) -> Gateway:
    return lasting_gateway


@pytest.fixture
def acme(fresh_tenant: Tenant) -> Tenant:
    return fresh_tenant


async def embed(gateway: Gateway, tenant: Tenant, **members: Any) -> httpx.Response:
    body = {"model": "stub/mock", "input": "two words", **members}
    return await gateway.http.post(EMBEDDINGS, json=body, headers=gateway.headers(tenant.token))


async def test_an_embedding_is_metered_and_priced(gateway: Gateway, acme: Tenant) -> None:
    answer = await embed(gateway, acme)

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-request-id"]
    assert answer.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": embedding.vector("two words")}],
        "model": "mock",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    usage = await gateway.usage(acme)
    assert (usage["requests"], usage["input_tokens"], usage["output_tokens"]) == (1, 2, 0)
    assert float(usage["cost"]) == pytest.approx(2 / 1_000_000)


async def test_base64_is_the_same_vector(gateway: Gateway, acme: Tenant) -> None:
    answer = await embed(gateway, acme, encoding_format="base64", input=["a", "b"])

    found = [each["embedding"] for each in answer.json()["data"]]
    assert found == [embedding.pack(embedding.vector(text)) for text in ("a", "b")]


# Unless told otherwise it asks for base64, and unpacks that.
@pytest.mark.parametrize("encoding", ["float", None])
async def test_the_official_client_reads_them(
    gateway: Gateway, acme: Tenant, encoding: Any
) -> None:
    how = {} if encoding is None else {"encoding_format": encoding}
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=acme.token)

    def ask() -> openai.types.CreateEmbeddingResponse:
        with client:
            return client.embeddings.create(
                model="stub/mock", input=["a", "b c"], dimensions=12, **how
            )

    found = await trio.to_thread.run_sync(ask)

    assert [each.index for each in found.data] == [0, 1]
    assert found.data[1].embedding == pytest.approx(embedding.vector("b c", 12), abs=1e-6)
    assert found.usage.prompt_tokens == 3


async def test_tokens_are_passed_on(gateway: Gateway, acme: Tenant) -> None:
    answer = await embed(gateway, acme, input=[[1, 2], [3]])

    assert len(answer.json()["data"]) == 2
    assert answer.json()["usage"]["prompt_tokens"] == 3


async def test_a_large_batch_is_answered(gateway: Gateway, acme: Tenant) -> None:
    answer = await embed(gateway, acme, input=["x"] * 500, dimensions=256)

    assert [each["index"] for each in answer.json()["data"]] == list(range(500))


async def test_a_chain_goes_on_to_the_provider_that_answers(gateway: Gateway, acme: Tenant) -> None:
    await gateway.configure(
        acme, {"models": {"failover": {"vectors": ["dead/x", "claude/mock", "stub/mock"]}}}
    )

    assert (await embed(gateway, acme, model="vectors")).status_code == 200


@pytest.mark.parametrize(
    ("members", "status", "param"),
    [
        ({"model": "claude/mock"}, 400, "model"),
        ({"model": "openclaw"}, 400, "model"),
        ({"model": "openclaw/pirate"}, 400, "model"),
        ({"model": "nobody/x"}, 404, "model"),
        ({"model": "dead/x"}, 503, None),
        ({"input": ""}, 400, "input"),
        ({"input": [["a"]]}, 400, "input"),
        ({"input": ["a", ""]}, 400, "input[1]"),
        ({"encoding_format": "int8"}, 400, "encoding_format"),
        ({"dimensions": -1}, 400, "dimensions"),
        ({"truncate": "END"}, 400, "truncate"),
    ],
    ids=str,
)
async def test_a_refusal_names_the_field(
    gateway: Gateway, acme: Tenant, members: dict[str, Any], status: int, param: str | None
) -> None:
    answer = await embed(gateway, acme, **members)

    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert set(error) == {"message", "type", "param", "code"}
    assert (await gateway.usage(acme))["cost"] in {"0", "0.00", "0.000000000", 0}


async def test_an_agent_means_the_model_for_embeddings(gateway: Gateway, acme: Tenant) -> None:
    await gateway.configure(acme, {"models": {"embedding": "stub/mock"}})

    assert (await embed(gateway, acme, model="openclaw")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods_are_refused(gateway: Gateway, acme: Tenant, method: str) -> None:
    answer = await gateway.http.request(method, EMBEDDINGS, headers=gateway.headers(acme.token))

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_strangers_are_told_so_first(gateway: Gateway) -> None:
    answer = await gateway.http.post(EMBEDDINGS, content=b"{", headers=gateway.headers("nobody"))

    assert answer.status_code == 401


async def test_models_are_listed_in_the_shape_of_who_asks(gateway: Gateway, acme: Tenant) -> None:
    headers = gateway.headers(acme.token)
    plain = (await gateway.http.get("/v1/models", headers=headers)).json()
    headers |= {"anthropic-version": "2023-06-01"}
    paged: list[str] = []
    while True:
        after = {"after_id": paged[-1]} if paged else {}
        answer = await gateway.http.get("/v1/models", params={"limit": 2, **after}, headers=headers)
        page = answer.json()
        paged += [entry["id"] for entry in page["data"]]
        if not page["has_more"]:
            break
    key = {"x-api-key": acme.token, "anthropic-version": "2023-06-01"}
    one = await gateway.http.get("/v1/models/stub%2Fmock", headers=key)
    none = await gateway.http.get("/v1/models/nobody", headers=key)

    assert paged == [entry["id"] for entry in plain["data"]]
    assert one.json()["type"] == "model"
    assert one.json()["id"] == "stub/mock"
    assert none.status_code == 404
    assert none.json()["error"]["type"] == "not_found_error"
