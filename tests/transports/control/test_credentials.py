from tests.transports.control.bench import Bench

PATH = "/v1/tenants/acme/credentials"


async def test_a_key_goes_in_and_never_comes_out(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        put = await client.put(f"{PATH}/claude", json={"api_key": "sk-hunter2"})
        listed = await client.get(PATH)
        gone = await client.delete(f"{PATH}/claude")

    assert put.status_code == listed.status_code == 200
    assert listed.json()["credentials"][0]["provider"] == "claude"
    assert gone.status_code == 204
    assert "hunter2" not in put.text + listed.text
    assert bench.keys.kept == {}


async def test_a_key_is_needed(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        response = await client.put(f"{PATH}/claude", json={"apikey": "sk-hunter2"})

    assert response.status_code == 422
    assert "hunter2" not in response.text
