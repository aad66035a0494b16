import json
from typing import Any

import pytest
from click.testing import CliRunner

from appliance.cli.main import main
from appliance.transports.rpc.table import METHODS


@pytest.fixture(scope="module")
def listing() -> Any:
    """What is printed without any gateway."""
    result = CliRunner().invoke(main, ["methods", "--json"], env={"OPENCLAW_GATEWAY_URL": None})
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_method_is_listed(listing: Any) -> None:
    names = [method["name"] for method in listing["methods"]]

    assert names == sorted(method.name for method in METHODS)


def test_a_method_says_what_it_needs_takes_and_returns(listing: Any) -> None:
    (tail,) = [method for method in listing["methods"] if method["name"] == "logs.tail"]

    assert (tail["scope"], tail["needs"], tail["who"]) == ("operator.read", "read", "anyone")
    assert (tail["available"], tail["audited"]) == (True, None)
    assert tail["params"] == {"$ref": "#/components/schemas/LogsTailParams"}
    params = listing["components"]["schemas"]["LogsTailParams"]
    assert set(params["properties"]) == {"cursor", "limit", "maxBytes"}
    assert params["additionalProperties"] is False


def test_what_comes_later_is_marked(listing: Any) -> None:
    available = {method["name"]: method["available"] for method in listing["methods"]}

    assert available["tenants.get"]
    assert not available["admin.sandboxes.kill"]


def test_every_reference_leads_somewhere(listing: Any) -> None:
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            found.extend(each for key, each in value.items() if key == "$ref")
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    look(listing)
    known = {f"#/components/schemas/{name}" for name in listing["components"]["schemas"]}
    assert set(found) == known


def test_people_get_a_table() -> None:
    result = CliRunner().invoke(main, ["methods"])

    assert result.exit_code == 0
    assert "tenants.rotate" in result.stdout
    assert "(not in this release)" in result.stdout
