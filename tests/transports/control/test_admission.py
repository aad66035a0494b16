"""Who may come in."""

import pytest

from appliance.model.tokens import Scope
from tests.transports.control.bench import ADMIN, CONTROL_PLANE_TOKEN, Bench

GARBAGE = [
    "",
    "x",
    "tenant:",
    "tenant:acme:",
    "tenant:constructor:x",
    "tenant:acme:" + "A" * 43,
    "admin:wrong-but-long-enough",
    "tenant:ACME:" + "A" * 43,
    "A" * 100_000,
]


@pytest.mark.parametrize("token", GARBAGE, ids=lambda token: token[:24])
async def test_what_is_no_token_gets_one_and_the_same_answer(bench: Bench, token: str) -> None:
    bench.tenants.add("acme")
    async with bench.client(token) as client:
        response = await client.get("/v1/tenants/acme")

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="openclawmu"'
    assert response.json()["detail"] == (
        "the token is missing, malformed, unknown, expired or revoked"
    )


async def test_bytes_outside_ascii_are_no_token(bench: Bench) -> None:
    headers = {"authorization": b"Bearer tenant:acme:\xc3\xa9"}
    async with bench.client() as client:
        response = await client.get("/v1/tenants/acme", headers=headers)  # type: ignore[arg-type] # httpx sends bytes as they are

    assert response.status_code == 401


async def test_two_tokens_are_none(bench: Bench) -> None:
    headers = [("authorization", f"Bearer {ADMIN.text}")] * 2
    async with bench.client() as client:
        response = await client.get("/v1/tenants", headers=headers)

    assert response.status_code == 401


async def test_a_tenant_sees_its_own_record_and_no_others(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    bench.tenants.add("other")
    async with bench.client(token) as client:
        own = await client.get("/v1/tenants/acme")
        foreign = await client.get("/v1/tenants/other")
        unknown = await client.get("/v1/tenants/ghost")
        impossible = await client.get("/v1/tenants/..%00")

    assert own.status_code == 200
    assert foreign.status_code == unknown.status_code == impossible.status_code == 403
    assert foreign.json()["detail"] == unknown.json()["detail"] == impossible.json()["detail"]


async def test_an_admin_is_told_that_a_tenant_does_not_exist(bench: Bench) -> None:
    async with bench.admin() as client:
        unknown = await client.get("/v1/tenants/ghost")
        impossible = await client.get("/v1/tenants/UPPER")

    assert unknown.status_code == impossible.status_code == 404


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        (Scope.READ, "GET", "/v1/tenants/acme/tokens", 200),
        (Scope.CHAT, "GET", "/v1/tenants/acme/tokens", 403),
        (Scope.READ, "POST", "/v1/tenants/acme/tokens", 403),
        (Scope.MANAGE, "POST", "/v1/tenants/acme/tokens", 201),
        (Scope.MANAGE, "GET", "/v1/tenants/acme/tokens", 200),
        (Scope.CHAT, "POST", "/v1/tenants/acme/tickets", 201),
        (Scope.FULL, "DELETE", "/v1/tenants/acme", 403),
        (Scope.FULL, "PATCH", "/v1/tenants/acme", 403),
        (Scope.FULL, "PUT", "/v1/tenants/acme/quotas", 403),
        (Scope.FULL, "POST", "/v1/tenants", 403),
        (Scope.FULL, "GET", "/v1/tenants", 403),
        (Scope.FULL, "GET", "/v1/usage", 403),
        (Scope.FULL, "GET", "/metrics", 403),
        (Scope.FULL, "GET", "/internal/v1/status", 403),
    ],
)
async def test_a_token_reaches_what_its_scope_covers(
    bench: Bench, scope: Scope, method: str, path: str, status: int
) -> None:
    token = bench.tenants.add("acme", scope)
    async with bench.client(token) as client:
        response = await client.request(method, path)

    assert response.status_code == status


async def test_whoever_is_refused_has_its_body_left_unread(bench: Bench) -> None:
    token = bench.tenants.add("acme", Scope.READ)
    async with bench.client(token) as client:
        response = await client.post("/v1/tenants/acme/tokens", content=b"{not json")

    assert response.status_code == 403


class TestBelowTheTenantPrefix:
    async def test_a_tenants_routes_answer(self, bench: Bench) -> None:
        token = bench.tenants.add("acme")
        async with bench.client(token, route_tenant="acme") as client:
            response = await client.get("/v1/tenants/acme")

        assert response.status_code == 200

    async def test_a_token_of_another_tenant_is_refused(self, bench: Bench) -> None:
        bench.tenants.add("acme")
        token = bench.tenants.add("other")
        async with bench.client(token, route_tenant="acme") as client:
            own = await client.get("/v1/tenants/other")
            theirs = await client.get("/v1/tenants/acme")
            status = await client.get("/v1/status")

        assert own.status_code == theirs.status_code == status.status_code == 403

    async def test_a_tenant_held_elsewhere_is_misdirected(self, bench: Bench) -> None:
        token = bench.tenants.add("acme")
        for caller in (token, ADMIN.text, None):
            async with bench.client(caller, route_tenant="moved") as client:
                response = await client.get("/v1/tenants/moved")

            assert response.status_code == 421
            assert response.json()["code"] == "misdirected"

    async def test_the_path_may_not_name_a_second_tenant(self, bench: Bench) -> None:
        token = bench.tenants.add("acme")
        bench.tenants.add("other")
        for caller in (token, ADMIN.text):
            async with bench.client(caller, route_tenant="acme") as client:
                response = await client.get("/v1/tenants/other")

            assert response.status_code == 403

    async def test_the_admin_key_is_about_that_tenant(self, bench: Bench) -> None:
        bench.tenants.add("acme")
        async with bench.admin(route_tenant="acme") as client:
            response = await client.get("/v1/status")

        assert response.json()["tenant"] == "acme"

    async def test_routes_of_the_whole_gateway_do_not_answer(self, bench: Bench) -> None:
        bench.tenants.add("acme")
        async with bench.admin(route_tenant="acme") as client:
            found = [await client.get(path) for path in ("/v1/tenants", "/v1/usage", "/metrics")]

        assert [response.status_code for response in found] == [404, 404, 404]


class TestActingForATenant:
    async def test_the_admin_may_name_a_tenant(self, bench: Bench) -> None:
        bench.tenants.add("acme")
        async with bench.admin(x_openclaw_tenant="acme") as client:
            response = await client.get("/v1/tenants/acme")

        assert response.status_code == 200
        _, caller, _ = bench.tenants.calls[-1]
        assert caller.kind == "admin-on-behalf"

    async def test_then_the_path_must_name_the_same(self, bench: Bench) -> None:
        bench.tenants.add("acme")
        bench.tenants.add("other")
        async with bench.admin(x_openclaw_tenant="acme") as client:
            response = await client.get("/v1/tenants/other")

        assert response.status_code == 403

    async def test_a_tenant_may_not(self, bench: Bench) -> None:
        token = bench.tenants.add("acme")
        bench.tenants.add("other")
        async with bench.client(token, x_openclaw_tenant="other") as client:
            response = await client.get("/v1/status")

        assert response.status_code == 403

    async def test_two_names_are_no_name(self, bench: Bench) -> None:
        bench.tenants.add("acme")
        headers = [("x-openclaw-tenant", "acme"), ("x-openclaw-tenant", "acme")]
        async with bench.admin() as client:
            response = await client.get("/v1/tenants/acme", headers=headers)

        assert response.status_code == 404


class TestTheControlPlaneToken:
    async def test_it_opens_the_internal_routes(self, bench: Bench) -> None:
        async with bench.client(x_control_plane_token=CONTROL_PLANE_TOKEN) as client:
            response = await client.get("/internal/v1/status")

        assert response.status_code == 200

    async def test_it_opens_nothing_else(self, bench: Bench) -> None:
        async with bench.client(x_control_plane_token=CONTROL_PLANE_TOKEN) as client:
            response = await client.get("/v1/tenants")

        assert response.status_code == 401

    @pytest.mark.parametrize("token", ["", "wrong", "é" * len(CONTROL_PLANE_TOKEN)])
    async def test_a_wrong_one_is_refused_even_beside_the_admin_key(
        self, bench: Bench, token: str
    ) -> None:
        async with bench.admin() as client:
            headers = {"x-control-plane-token": token.encode()}
            response = await client.get("/internal/v1/status", headers=headers)  # type: ignore[arg-type] # httpx sends bytes as they are

        assert response.status_code == 401

    async def test_the_admin_key_opens_them_too(self, bench: Bench) -> None:
        async with bench.admin() as client:
            response = await client.get("/internal/v1/status")

        assert response.status_code == 200


class TestMetricsNeedNoKey:
    async def test_from_this_machine(self, bench: Bench) -> None:
        async with bench.client(peer=("127.0.0.1", 4000)) as client:
            response = await client.get("/metrics")

        assert response.status_code == 200

    async def test_but_from_elsewhere(self, bench: Bench) -> None:
        async with bench.client() as client:
            response = await client.get("/metrics")

        assert response.status_code == 401

    async def test_and_through_a_proxy_on_this_machine(self, bench: Bench) -> None:
        async with bench.client(peer=("127.0.0.1", 4000), x_forwarded_for="192.0.2.7") as client:
            told = await client.get("/metrics")
        behind = Bench(behind_proxy=True)
        async with behind.client(peer=("127.0.0.1", 4000)) as client:
            silent = await client.get("/metrics")

        assert told.status_code == silent.status_code == 401
