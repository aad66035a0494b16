from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.model import errors
from appliance.transports.control.route import Route, Who
from appliance.transports.control.table import ROUTES
from appliance.transports.openapi import document, statuses
from appliance.transports.problems import MalformedBody, SlowBody
from tests.transports.control.bench import Bench

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    made: dict[str, Any] = document(ROUTES, version="1.2.3")
    return made


def references(node: Any) -> set[str]:
    match node:
        case {"$ref": str(reference)}:
            return {reference}
        case dict():
            return {found for value in node.values() for found in references(value)}
        case list():
            return {found for value in node for found in references(value)}
    return set()


def test_every_route_is_in_the_document(openapi: dict[str, Any]) -> None:
    documented = {
        (method.upper(), path) for path, methods in openapi["paths"].items() for method in methods
    }

    assert documented == {(route.method, route.path) for route in ROUTES}


def test_every_reference_leads_somewhere(openapi: dict[str, Any]) -> None:
    found = references(openapi)

    assert found
    for reference in found:
        node = openapi
        for part in reference.removeprefix("#/").split("/"):
            assert part in node, reference
            node = node[part]


def test_an_operation_has_one_name(openapi: dict[str, Any]) -> None:
    names = [
        operation["operationId"]
        for methods in openapi["paths"].values()
        for operation in methods.values()
    ]

    assert len(names) == len(set(names))


def test_a_query_is_a_list_of_parameters(openapi: dict[str, Any]) -> None:
    parameters = openapi["paths"]["/v1/usage"]["get"]["parameters"]

    assert [each["name"] for each in parameters] == ["from", "to", "granularity", "group_by"]
    assert parameters[0]["schema"]["type"] == "string"
    assert parameters[2]["schema"]["enum"] == ["day", "hour", "month"]
    assert not any("Query" in name for name in openapi["components"]["schemas"])


def test_the_schema_of_the_quotas_names_each_of_them(openapi: dict[str, Any]) -> None:
    wanted = openapi["components"]["schemas"]["QuotasWanted"]

    assert "cost_per_day" in wanted["properties"]
    assert wanted["additionalProperties"] is False


def test_only_open_routes_need_no_token(openapi: dict[str, Any]) -> None:
    for route in ROUTES:
        security = openapi["paths"][route.path][route.method.lower()]["security"]
        is_open = security == [] or {} in security

        assert is_open is (route.who in {Who.ANYONE, Who.LOOPBACK}), route.name


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_route_says_how_it_may_fail(route: Route) -> None:
    found = statuses(route)

    assert 500 in found
    assert (401 in found and 403 in found) or route.who is Who.ANYONE
    assert 413 in found or not route.takes_body


async def test_the_document_is_served_as_it_was_made() -> None:
    async with Bench().client() as client:
        response = await client.get("/openapi.json")

    served = msgspec.json.decode(response.content)
    assert served["openapi"] == "3.1.0"
    assert len(served["paths"]) == len({route.path for route in ROUTES})


async def test_the_page_lists_every_route_and_brings_nothing_foreign() -> None:
    async with Bench().client() as client:
        response = await client.get("/docs")

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "script" not in response.text
    assert "http://" not in response.text
    assert "https://" not in response.text
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    for route in ROUTES:
        assert f"{route.method} {route.path}" in response.text


def test_the_manual_has_every_route_and_every_code() -> None:
    manual = (DOCS / "api.md").read_text()
    codes = {each.code for each in vars(errors).values() if hasattr(each, "code")}

    for route in ROUTES:
        assert f"`{route.method} {route.path}`" in manual
    for code in codes | {MalformedBody.code, SlowBody.code, "internal"}:
        assert f"`{code}`" in manual
