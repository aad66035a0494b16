from appliance.model.quotas import QUOTA_KEYS
from tests.transports.control.bench import Bench

PATH = "/v1/tenants/acme/quotas"


async def test_every_limit_in_force_is_shown(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        response = await client.get(PATH)

    assert tuple(response.json()) == QUOTA_KEYS
    assert response.json()["requests_per_minute"] == 600
    assert response.json()["cost_per_day"] is None


async def test_limits_are_replaced_as_a_whole(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        await client.put(PATH, json={"terminals": 3})
        response = await client.put(
            PATH, json={"cost_per_day": "5.00", "requests_per_minute": None}
        )

    assert response.json()["cost_per_day"] == "5.00"
    assert response.json()["requests_per_minute"] is None
    assert response.json()["terminals"] is None


async def test_every_wrong_limit_is_named(bench: Bench) -> None:
    bench.tenants.add("acme")
    body = {"cost_per_day": 1.5, "tokens_per_dya": 1, "terminals": -1, "channels": True}
    async with bench.admin() as client:
        response = await client.put(PATH, json=body)

    assert response.status_code == 422
    fields = {error["field"] for error in response.json()["errors"]}
    assert fields == set(body)
