"""What holds for every route: errors, headers, limits."""

import json
import logging
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.transports.control.call import Call
from appliance.transports.control.route import Route, Who
from tests.transports.control.bench import Bench


async def test_an_unknown_path_is_a_problem_and_not_a_page(bench: Bench) -> None:
    async with bench.client() as client:
        response = await client.get("/v1/nothing")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:openclawmu:not-found"


async def test_a_wrong_method_is_told_the_right_ones(bench: Bench) -> None:
    async with bench.client() as client:
        response = await client.put("/v1/tenants")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert response.json()["code"] == "method-not-allowed"


@pytest.mark.parametrize("path", ["/v1/tenants/", "//v1/tenants", "/v1//tenants", "/v1%2ftenants"])
async def test_a_path_has_one_spelling(bench: Bench, path: str) -> None:
    async with bench.admin() as client:
        response = await client.get(f"http://gateway.test{path}")

    assert response.status_code == 404


async def test_options_says_what_a_path_answers_and_needs_no_token(bench: Bench) -> None:
    async with bench.client() as client:
        response = await client.options("/v1/tenants/acme/config")

    assert response.status_code == 204
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, PATCH, PUT"
    assert response.content == b""


async def test_head_is_get_without_the_body(bench: Bench) -> None:
    async with bench.admin() as client:
        head = await client.head("/v1/tenants")
        full = await client.get("/v1/tenants")

    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == full.headers["content-length"]


@pytest.mark.parametrize("path", ["/healthz", "/v1/nothing", "/v1/tenants", "/login"])
async def test_every_response_has_an_id_and_says_what_it_took(bench: Bench, path: str) -> None:
    async with bench.client() as client:
        response = await client.get(path)

    assert response.headers["x-request-id"].startswith("req_")
    assert float(response.headers["x-openclaw-overhead-ms"]) >= 0
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_the_caller_may_name_its_request(bench: Bench) -> None:
    async with bench.client() as client:
        named = await client.get("/v1/tenants", headers={"x-request-id": "my.own-1"})
        odd = await client.get("/v1/tenants", headers={"x-request-id": "two words"})

    assert named.headers["x-request-id"] == "my.own-1"
    assert named.json()["request_id"] == "my.own-1"
    assert odd.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{nope", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"id": "a", "id": "b"}', "twice"),
        (b'{"quotas": {"tokens_per_day": NaN}}', "not JSON"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b'{"config": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}", "nested"),
        (b"\xff\xfe{}", "UTF-8"),
    ],
)
async def test_a_body_that_readers_would_read_differently_is_refused(
    bench: Bench, body: bytes, complaint: str
) -> None:
    async with bench.admin() as client:
        response = await client.post("/v1/tenants", content=body)

    assert response.status_code == 422
    assert complaint in response.json()["detail"]
    assert bench.tenants.calls == []


async def test_every_wrong_field_is_named_at_once(bench: Bench) -> None:
    body = {"id": "No Good", "nmae": "x", "template": 7}
    async with bench.admin() as client:
        response = await client.post("/v1/tenants", json=body)

    assert response.status_code == 422
    errors = {error["field"]: error for error in response.json()["errors"]}
    assert set(errors) == {"id", "nmae", "template"}
    assert errors["nmae"]["remedy"] == "did you mean 'name'?"


async def test_a_body_may_be_left_out_where_every_field_is_optional(bench: Bench) -> None:
    async with bench.admin() as client:
        response = await client.post("/v1/tenants")

    assert response.status_code == 201
    assert response.json()["tenant"]["id"] == "made-up"


async def test_a_body_that_is_too_large_is_told_the_limit() -> None:
    bench = Bench(max_control_body_bytes=1024)
    async with bench.admin() as client:
        response = await client.post("/v1/tenants", json={"name": "x" * 2000})

    assert response.status_code == 413
    assert response.json()["limit_bytes"] == 1024
    assert bench.tenants.calls == []


async def test_a_body_without_a_length_is_limited_as_well() -> None:
    bench = Bench(max_control_body_bytes=1024)

    async def endless() -> Any:
        for _ in range(100):
            yield b" " * 100

    async with bench.admin() as client:
        response = await client.post("/v1/tenants", content=endless())

    assert response.status_code == 413


async def ask_raw(app: Any, receive: Any, *, token: str, method: str = "POST") -> tuple[int, Any]:
    """One request for POST /v1/tenants whose body comes from ``receive``."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": "/v1/tenants",
        "raw_path": b"/v1/tenants",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "headers": [(b"authorization", f"Bearer {token}".encode()), (b"host", b"gateway.test")],
        "client": ("192.0.2.1", 4000),
        "server": ("gateway.test", 80),
        "extensions": {},
        "state": {},
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(body)


async def test_a_body_that_dawdles_is_given_up(autojump_clock: MockClock) -> None:
    bench = Bench(body_timeout=30.0)

    async def receive() -> Any:
        await trio.sleep(10)
        return {"type": "http.request", "body": b" ", "more_body": True}

    began = trio.current_time()
    status, problem = await ask_raw(bench.app(), receive, token="admin:operator-key-of-the-tests")

    assert status == 408
    assert problem["code"] == "slow-body"
    assert trio.current_time() - began == 30


async def test_a_token_revoked_while_its_body_is_on_the_way_grants_nothing(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    told = trio.Event()
    bodies = iter([b"{", b'"id":"evil"}'])

    async def receive() -> Any:
        body = next(bodies, None)
        if body is None:
            await trio.sleep_forever()
        if body != b"{":
            bench.access.use_admin_keys([])
            told.set()
        return {"type": "http.request", "body": body, "more_body": body == b"{"}

    status, problem = await ask_raw(bench.app(), receive, token="admin:operator-key-of-the-tests")

    assert told.is_set()
    assert status == 401
    assert problem["code"] == "token-rejected"
    assert bench.tenants.calls == []
    assert token.startswith("tenant:acme:")


def with_route(bench: Bench, handler: Any, *, method: str = "GET") -> None:
    route = Route(
        name="test.route",
        method=method,
        path="/v1/test",
        who=Who.ADMIN,
        summary="For this test",
        handler=handler,
    )
    bench.routes = (route,)


async def test_a_bug_leaves_a_reference_and_one_traceback(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_call: Call[Any, Any]) -> None:
        raise ZeroDivisionError("the secret is hunter2")

    with_route(bench, fail)
    async with bench.admin() as client:
        with caplog.at_level(logging.ERROR):
            response = await client.get("/v1/test")

    assert response.status_code == 500
    assert "hunter2" not in response.text
    (record,) = caplog.records
    assert record.exc_info is not None
    assert response.json()["reference"] == record.__dict__["reference"]


async def test_a_failure_wrapped_by_a_nursery_keeps_its_status(bench: Bench) -> None:
    async def fail(call: Call[Any, Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.services.tenants.get, call.caller, "ghost")

    with_route(bench, fail)
    async with bench.admin() as client:
        response = await client.get("/v1/test")

    assert response.status_code == 404
    assert response.json()["code"] == "tenant-unknown"


async def test_a_change_that_began_is_finished_though_the_client_leaves(bench: Bench) -> None:
    begun, done = trio.Event(), trio.Event()

    async def change(_call: Call[Any, Any]) -> None:
        begun.set()
        await trio.testing.wait_all_tasks_blocked()
        done.set()

    with_route(bench, change, method="POST")
    app = bench.app()

    async def receive() -> Any:
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise AssertionError("nobody is there to answer")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/test",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "headers": [(b"authorization", b"Bearer admin:operator-key-of-the-tests")],
        "client": ("192.0.2.1", 4000),
        "extensions": {},
    }
    with trio.fail_after(5):
        await app(scope, receive, send)

    assert done.is_set()


async def test_a_change_that_hangs_is_given_up(bench: Bench, autojump_clock: MockClock) -> None:
    async def hang(_call: Call[Any, Any]) -> None:
        await trio.sleep_forever()

    with_route(bench, hang, method="POST")
    async with bench.admin(x_request_id="req.1") as client:
        response = await client.post("/v1/test")

    assert response.status_code == 503
    assert trio.current_time() == 60


async def test_a_websocket_is_turned_away(bench: Bench) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await bench.app()({"type": "websocket", "path": "/v1/tenants"}, None, send)

    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_each_request_is_logged_once_without_its_query(bench: Bench) -> None:
    async with bench.client() as client:
        await client.get("/login", params={"ticket": "ticket_secret"})

    (line,) = bench.lines.written
    assert line["event"] == "request"
    assert line["path"] == "/login"
    assert line["status"] == 401
    assert "ticket_secret" not in repr(line)


async def test_a_route_of_the_table_without_handler_is_not_the_frameworks(bench: Bench) -> None:
    bench.routes = tuple(replace(route, handler=None) for route in bench.routes)
    async with bench.admin() as client:
        response = await client.get("/v1/tenants")

    assert response.status_code == 404
