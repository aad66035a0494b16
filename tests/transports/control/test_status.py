from appliance.transports.health import Readiness
from tests.transports.control.bench import Bench


async def test_an_admin_sees_the_whole_gateway(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        status = (await client.get("/v1/status")).json()

    assert status["uptime_seconds"] == 300
    assert status["tenants"]["known"] == 1
    assert status["sandbox"]["running"] == 0
    assert set(status["sandbox"]) >= {"available", "backend", "limits", "problem", "warnings"}
    assert status["tenants"]["broken"] == {"torn": "tenant.json is cut off"}


async def test_a_tenant_sees_where_it_stands_and_nothing_else(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        status = (await client.get("/v1/status")).json()

    assert status["tenant"] == "acme"
    quota = status["quotas"]["cost_per_day"]
    assert (quota["limit"], quota["used"], quota["remaining"]) == ("5.00", "1.00", "4.00")
    assert "torn" not in repr(status)


async def test_the_gateway_is_alive_whatever_else_is_broken(bench: Bench) -> None:
    bench.readiness = Readiness(("starting",), (), 0.0)
    async with bench.client() as client:
        alive = await client.get("/healthz")
        ready = await client.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["starting"]


async def test_a_ready_gateway_shows_how_late_its_loop_runs(bench: Bench) -> None:
    async with bench.client() as client:
        response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json()["loop_lag_ms"] == 1.5


async def test_metrics_come_in_the_format_asked_for(bench: Bench) -> None:
    async with bench.admin() as client:
        plain = await client.get("/metrics")
        headers = {"accept": "application/openmetrics-text; version=1.0.0"}
        openmetrics = await client.get("/metrics", headers=headers)

    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
