from datetime import timedelta

import pytest

from appliance.model.tokens import Scope
from tests.transports.control.bench import NOW, Bench


async def test_a_token_is_shown_once(bench: Bench) -> None:
    bench.tenants.add("acme")
    body = {"label": "ci", "scopes": ["chat", "read"], "expires_in": "30d", "models": ["a/*"]}
    async with bench.admin() as client:
        made = await client.post("/v1/tenants/acme/tokens", json=body)
        listed = await client.get("/v1/tenants/acme/tokens")

    assert made.status_code == 201
    assert made.json()["token"].startswith("tenant:acme:")
    assert made.json()["scopes"] == ["chat", "read"]
    assert made.json()["models"] == ["a/*"]
    expected = (NOW + timedelta(days=30)).isoformat().replace("+00:00", "Z")
    assert made.json()["expires_at"] == expected
    assert len(listed.json()["tokens"]) == 2
    assert made.json()["token"].rpartition(":")[2] not in listed.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes[0]"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"label": "x" * 101}, "label"),
        ({"models": [""]}, "models[0]"),
    ],
)
async def test_a_wrong_wish_is_named(bench: Bench, body: dict[str, object], field: str) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        response = await client.post("/v1/tenants/acme/tokens", json=body)

    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


async def test_rotation_takes_a_grace_or_none(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        at_once = await client.post("/v1/tenants/acme/rotate")
        later = await client.post("/v1/tenants/acme/rotate", json={"grace": "10m"})

    assert at_once.status_code == later.status_code == 200
    assert [verb for verb, _, _ in bench.tenants.calls] == ["rotate 0", "rotate 600"]


async def test_a_token_is_revoked_by_its_id(bench: Bench) -> None:
    token = bench.tenants.add("acme", Scope.MANAGE)
    async with bench.client(token) as client:
        response = await client.delete("/v1/tenants/acme/tokens/tok_1")

    assert response.status_code == 204
    assert bench.tenants.calls[-1][0] == "revoke tok_1"
