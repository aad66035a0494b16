from tests.transports.control.bench import Bench


async def test_a_tenant_is_created_with_its_first_token(bench: Bench) -> None:
    body = {"id": "acme", "name": "Acme", "quotas": {"cost_per_day": "5.00"}, "config": {"a": 1}}
    async with bench.admin() as client:
        response = await client.post("/v1/tenants", json=body)

    assert response.status_code == 201
    made = response.json()
    assert made["token"].startswith("tenant:acme:")
    assert made["tenant"]["quotas"] == {"cost_per_day": "5.00"}
    assert bench.tenants.overlays["acme"] == {"a": 1}


async def test_an_id_is_given_once(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        response = await client.post("/v1/tenants", json={"id": "acme"})

    assert response.status_code == 409


async def test_a_wrong_quota_is_named_with_its_path(bench: Bench) -> None:
    body = {"id": "acme", "quotas": {"tokens_per_dya": 5}}
    async with bench.admin() as client:
        response = await client.post("/v1/tenants", json=body)

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == "quotas.tokens_per_dya"
    assert "tokens_per_day" in error["remedy"]


async def test_tenants_are_listed_page_by_page(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.tenants.add(name)
    async with bench.admin() as client:
        first = (await client.get("/v1/tenants", params={"limit": 2})).json()
        cursor = first["next_cursor"]
        last = (await client.get("/v1/tenants", params={"limit": 2, "cursor": cursor})).json()

    assert [each["id"] for each in first["tenants"]] == ["a", "b"]
    assert [each["id"] for each in last["tenants"]] == ["c"]
    assert last["next_cursor"] is None
    assert last["broken"] == [{"id": "torn", "reason": "tenant.json is cut off"}]


async def test_a_page_has_a_size_that_makes_sense(bench: Bench) -> None:
    async with bench.admin() as client:
        zero = await client.get("/v1/tenants", params={"limit": 0})
        words = await client.get("/v1/tenants", params={"limit": "many"})
        twice = await client.get("/v1/tenants?limit=1&limit=2")
        unknown = await client.get("/v1/tenants?limitt=1")

    assert [r.status_code for r in (zero, words, twice, unknown)] == [422] * 4
    assert unknown.json()["errors"][0]["remedy"] == "did you mean 'limit'?"


async def test_a_record_shows_no_secret(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        response = await client.get("/v1/tenants/acme")

    assert response.json()["tokens"] == 1
    assert "sha256" not in response.text
    assert token.rpartition(":")[2] not in response.text


async def test_what_an_update_does_not_name_stays(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        named = await client.patch("/v1/tenants/acme", json={"name": "Acme"})
        body = {"disabled": True, "disabled_reason": "unpaid"}
        disabled = await client.patch("/v1/tenants/acme", json=body)

    assert named.json()["disabled"] is False
    assert disabled.json()["name"] == "Acme"
    assert disabled.json()["disabled_reason"] == "unpaid"


async def test_a_tenant_leaves_its_data_behind_unless_told_otherwise(bench: Bench) -> None:
    bench.tenants.add("acme")
    bench.tenants.add("other")
    async with bench.admin() as client:
        kept = await client.delete("/v1/tenants/acme")
        erased = await client.delete("/v1/tenants/other", params={"delete_data": "true"})

    assert kept.status_code == erased.status_code == 204
    assert kept.content == b""
    assert [verb for verb, _, _ in bench.tenants.calls] == ["delete False", "delete True"]


async def test_a_refusal_is_counted_by_its_code(bench: Bench) -> None:
    async with bench.client() as client:
        await client.get("/v1/tenants")

    text = bench.metrics.render("")[0].decode()
    assert 'openclawmu_refusals_total{code="token-rejected"} 1.0' in text
