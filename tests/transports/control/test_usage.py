from datetime import UTC, datetime

import pytest

from tests.transports.control.bench import NOW, Bench

PATH = "/v1/tenants/acme/usage"


async def test_usage_is_the_current_month_by_default(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        response = await client.get(PATH)

    report = response.json()
    assert report["currency"] == "USD"
    assert report["rows"][0]["total_tokens"] == 35
    assert report["totals"]["cost"] == "1.50"
    assert report["unreadable"] == ["torn"]
    (asked,) = bench.usage.asked
    assert asked["tenant"] == "acme"
    assert asked["start"] == datetime(2026, 11, 1, tzinfo=UTC)
    assert asked["end"] == NOW


async def test_a_time_may_be_a_month_a_day_or_a_moment(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        params = {"from": "2026-10", "to": "2026-11-02T12:00:00+02:00", "group_by": "model"}
        response = await client.get(PATH, params=params)

    assert response.status_code == 200
    (asked,) = bench.usage.asked
    assert asked["start"] == datetime(2026, 10, 1, tzinfo=UTC)
    assert asked["end"] == datetime(2026, 11, 2, 10, tzinfo=UTC)
    assert asked["group_by"] == "model"


@pytest.mark.parametrize(
    "params",
    [
        {"from": "yesterday"},
        {"from": "2026-11-21", "to": "2026-11-20"},
        {"from": "2020-01", "granularity": "hour"},
        {"from": "0001-01-01T00:00:00+14:00", "granularity": "month"},
        {"granularity": "week"},
        {"group_by": "colour"},
        {"form": "2026-11"},
    ],
)
async def test_what_is_no_report_is_refused(bench: Bench, params: dict[str, str]) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        response = await client.get(PATH, params=params)

    assert response.status_code == 422
    assert bench.usage.asked == []


@pytest.mark.parametrize(
    ("path", "accept"), [(PATH, "text/csv"), (f"{PATH}.csv", "*/*"), ("/v1/usage.csv", "*/*")]
)
async def test_usage_comes_as_csv_when_asked(bench: Bench, path: str, accept: str) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        response = await client.get(path, headers={"accept": accept})

    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in response.headers["content-disposition"]
    assert response.text.startswith("period,tenant\r\n")


async def test_an_admin_sees_all_tenants_or_the_one_it_speaks_for(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        await client.get("/v1/usage")
        await client.get("/v1/usage", headers={"x-openclaw-tenant": "acme"})

    assert [asked["tenant"] for asked in bench.usage.asked] == [None, "acme"]
