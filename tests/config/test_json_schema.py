"""The JSON Schema of a tenant's settings."""

from typing import Any

import msgspec
import pytest

from appliance.config.json_schema import find_schema, overlay_schema, ui_hints
from appliance.config.overlay import ADMIN_ONLY, public_view
from appliance.config.schema import GatewayConfig


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    """As much of a validator as tells a form that would draw nonsense."""
    if value is None:
        return True
    match schema.get("type"):
        case "object":
            known, others = schema.get("properties", {}), schema.get("additionalProperties")
            return all(
                _fits(below, known.get(key, others))
                for key, below in value.items()
                if key in known or isinstance(others, dict)
            ) and (others is not False or set(value) <= set(known))
        case "array":
            return all(_fits(item, schema["items"]) for item in value)
        case "string":
            return isinstance(value, str) and value in schema.get("enum", [value])
        case "integer" | "number":
            return isinstance(value, int | float) and value >= schema.get("minimum", value)
        case "boolean":
            return isinstance(value, bool)
    return False


def test_it_describes_what_a_tenant_is_shown() -> None:
    assert _fits(public_view(GatewayConfig()), overlay_schema())
    assert not _fits({"defaults": {"nonsense": 1}}, overlay_schema())


def test_no_key_of_the_operator_is_in_it() -> None:
    for key in ADMIN_ONLY:
        assert find_schema(key) is None
    assert "admin_keys" not in msgspec.json.encode(overlay_schema()).decode()


@pytest.mark.parametrize(
    ("path", "hint", "kind"),
    [
        (".", "", "object"),
        ("defaults.agents", "defaults.agents", "object"),
        ("defaults.agents.pirate.emoji", "defaults.agents.*.emoji", "string"),
        ("defaults.session.send_policy.rules.0.action", "", "string"),
        ("models.failover.x", "models.failover.*", "array"),
    ],
)
def test_a_key_is_found_by_its_path(path: str, hint: str, kind: str) -> None:
    found = find_schema(path)

    assert found is not None
    assert found[1]["type"] == kind
    assert not hint or found[0] == hint


@pytest.mark.parametrize("path", ["nonsense", "defaults.agents.x.y", "models.default.x", "a..b"])
def test_what_is_no_key_is_not_found(path: str) -> None:
    assert find_schema(path) is None


def test_every_key_has_a_name_for_people() -> None:
    assert ui_hints()["defaults.session.dm_scope"] == {"label": "Dm scope", "group": "defaults"}
