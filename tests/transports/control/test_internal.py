from tests.transports.control.bench import CONTROL_PLANE_TOKEN, Bench

PATH = "/internal/v1/tenants/acme"


async def test_the_original_control_plane_finds_its_routes(bench: Bench) -> None:
    async with bench.client(x_control_plane_token=CONTROL_PLANE_TOKEN) as client:
        missing = await client.get(PATH)
        made = await client.post(PATH, json={"displayName": "Acme"})
        again = await client.post(PATH)
        shown = await client.get(PATH)
        gone = await client.delete(PATH)

    assert missing.status_code == 404
    assert made.status_code == 201
    assert made.json()["token"].startswith("tenant:acme:")
    assert again.status_code == 409
    assert shown.json()["displayName"] == "Acme"
    assert gone.json() == {"id": "acme", "deleted": True, "dataDeleted": False}


async def test_its_status_tells_of_the_machine(bench: Bench) -> None:
    async with bench.client(x_control_plane_token=CONTROL_PLANE_TOKEN) as client:
        status = (await client.get("/internal/v1/status")).json()

    assert status["multiTenant"] is True
    assert status["metrics"]["memoryTotalBytes"] > 0
    assert status["metrics"]["uptimeSeconds"] == 300


async def test_a_malformed_escape_is_no_fault_of_ours(bench: Bench) -> None:
    async with bench.admin() as client:
        response = await client.get("/internal/v1/tenants/%zz")

    assert response.status_code == 404
