from tests.transports.control.bench import Bench


async def test_an_admin_reads_it_page_by_page(bench: Bench) -> None:
    async with bench.admin() as client:
        first = (await client.get("/v1/audit", params={"limit": 30})).json()
        before = first["next_before"]
        last = (await client.get("/v1/audit", params={"limit": 30, "before": before})).json()

    assert [first["entries"][0]["seq"], before] == [40, 11]
    assert last["entries"][-1]["seq"] == 1
    assert last["next_before"] is None
    assert first["entries"][0]["hash"] == "1" * 64


async def test_a_tenant_reads_its_own_lines_without_their_place_in_the_chain(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        response = await client.get("/v1/audit")

    line = response.json()["entries"][0]
    assert {"seq", "hash", "prev"}.isdisjoint(line)
    assert line["ip"] == ""
    assert response.json()["next_before"] is None
    assert bench.audit.asked == [("acme", 100, None)]


async def test_a_tenant_may_not_name_another(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        response = await client.get("/v1/audit", params={"tenant": "other"})

    assert response.status_code == 403
    assert bench.audit.asked == []
