"""WebSockets at ``/v1/responses``: the same answers, one after the other."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket

from appliance.services.responses import book
from appliance.services.responses.chains import ChainShelf
from appliance.transports.openai_api import responses_socket
from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.gateway.responding import PATH, Client, numbers, text_of
from tests.gateway.websocket import dialled

OVER = {"response.completed", "response.incomplete", "response.failed", "error"}


class Socket:
    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self.connection = connection

    async def ask(self, said: object = "hi", **more: Any) -> None:
        await self.send({"type": "response.create", "model": "stub/mock", "input": said, **more})

    async def send(self, frame: object) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        await self.connection.send_message(text)

    async def event(self) -> dict[str, Any]:
        with trio.fail_after(60):
            found: dict[str, Any] = json.loads(await self.connection.get_message())
        return found

    async def everything(self) -> None:
        """Read on until the connection ends."""
        while True:
            await self.event()

    async def answer(self, said: object = "hi", **more: Any) -> list[dict[str, Any]]:
        """The events of one response."""
        await self.ask(said, **more)
        return await self.rest()

    async def rest(self) -> list[dict[str, Any]]:
        events = [await self.event()]
        while events[-1]["type"] not in OVER or "sequence_number" not in events[-1]:
            if events[-1]["type"] == "error":
                return events
            events.append(await self.event())
        return events

    async def response(self, said: object = "hi", **more: Any) -> dict[str, Any]:
        last = (await self.answer(said, **more))[-1]
        assert last["type"] == "response.completed", last
        found: dict[str, Any] = last["response"]
        return found

    async def refused(self, said: object = "hi", **more: Any) -> dict[str, Any]:
        (event,) = await self.answer(said, **more)
        assert event["type"] == "error", event
        return event


@asynccontextmanager
async def connected(
    gateway: Gateway,
    token: str,
    *,
    path: str = PATH,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> AsyncIterator[Socket]:
    sent = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
    async with dialled(gateway.port, path, headers=sent, **more) as client:
        yield Socket(client.socket)


def code_of(closed: trio_websocket.ConnectionClosed) -> int:
    assert closed.reason is not None
    return int(closed.reason.code)


@pytest.fixture
async def socket(gateway: Gateway, acme: Tenant) -> AsyncIterator[Socket]:
    async with connected(gateway, acme.token) as opened:
        yield opened


async def test_a_frame_is_answered_with_the_events_of_a_stream(
    socket: Socket, gateway: Gateway, acme: Tenant
) -> None:
    events = await socket.answer("hi")

    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert numbers(events) == list(range(len(events)))
    made = events[-1]["response"]
    assert made["status"] == "completed"
    assert await Client(gateway, acme).get(f"{PATH}/{made['id']}") == made


async def test_several_follow_each_other(socket: Socket) -> None:
    first = await socket.response("my name is Ada", model="stub/assistant")
    second = await socket.response(
        "what is my name?", model="stub/assistant", previous_response_id=first["id"]
    )

    assert "Ada" in text_of(second)
    assert numbers(await socket.answer("x"))[0] == 0


async def test_what_is_not_stored_can_be_continued_on_its_connection_alone(
    socket: Socket, gateway: Gateway, acme: Tenant
) -> None:
    asked = {"model": "stub/assistant", "store": False}
    first = await socket.response("my name is Ada", **asked)
    second = await socket.response("hm", previous_response_id=first["id"], **asked)
    third = await socket.response("what is my name?", previous_response_id=second["id"], **asked)

    assert "Ada" in text_of(third)
    async with connected(gateway, acme.token) as other:
        event = await other.refused(previous_response_id=third["id"])
    assert event["error"]["code"] == "previous_response_not_found"
    await Client(gateway, acme).get(f"{PATH}/{third['id']}", status=404)


async def test_what_is_stored_goes_on_on_the_connection_that_knows_what_was_before(
    socket: Socket, gateway: Gateway, acme: Tenant
) -> None:
    first = await socket.response("my name is Ada", model="stub/assistant", store=False)
    asked = {"model": "stub/assistant"}
    second = await socket.response("hm", previous_response_id=first["id"], **asked)
    third = await socket.response("what is my name?", previous_response_id=second["id"], **asked)

    assert "Ada" in text_of(third)
    client = Client(gateway, acme)
    assert (await client.get(f"{PATH}/{third['id']}"))["id"] == third["id"]
    error = await client.refused(previous_response_id=third["id"])
    assert error["code"] == "previous_response_not_found"


async def test_connections_of_a_tenant_share_the_room_for_what_they_remember(
    gateway: Gateway, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = ChainShelf(most_bytes=3_000)
    monkeypatch.setattr(book, "ChainShelf", lambda: shelf)
    long = "x" * 1_000

    async with connected(gateway, acme.token) as one, connected(gateway, acme.token) as two:
        first = await one.response(long, store=False)
        await two.response(long, store=False)
        assert 2_000 < shelf.size < 3_000
        last = await two.response(long, store=False)

        event = await one.refused(store=False, previous_response_id=first["id"])
        assert event["error"]["code"] == "previous_response_not_found"
        await two.response("go on", store=False, previous_response_id=last["id"])

    with trio.fail_after(60):
        while shelf.size:  # noqa: ASYNC110 - it empties when the connections have ended
            await trio.sleep(0.01)


async def test_an_unknown_response_cannot_be_continued(socket: Socket) -> None:
    event = await socket.refused(previous_response_id="resp_x")

    assert event["status"] == 400
    assert event["error"]["code"] == "previous_response_not_found"
    assert set(event["error"]) == {"code", "message", "param", "type"}
    assert (await socket.response("hi"))["status"] == "completed"


async def test_a_continuation_that_failed_is_forgotten(socket: Socket) -> None:
    first = await socket.response("hi", store=False)
    failed = await socket.answer(
        "hi", previous_response_id=first["id"], store=False, model="stub/fault-500"
    )
    assert failed[-1]["type"] == "error"

    event = await socket.refused(previous_response_id=first["id"], store=False)

    assert event["error"]["code"] == "previous_response_not_found"


async def test_a_result_without_its_call_fails(socket: Socket) -> None:
    first = await socket.response("hi", store=False)
    result = {"type": "function_call_output", "call_id": "call_x", "output": "1"}

    event = await socket.refused([result], previous_response_id=first["id"], store=False)

    assert event["status"] == 400


async def test_an_answer_that_breaks_off_ends_with_its_failure(socket: Socket) -> None:
    events = await socket.answer(model="stub/fault-cut")

    assert events[-1]["type"] == "error"
    last = await socket.event()
    assert last["type"] == "response.failed"
    assert last["sequence_number"] == events[-1]["sequence_number"] + 1
    assert (await socket.response("hi"))["status"] == "completed"


async def test_one_answer_at_a_time(socket: Socket) -> None:
    await socket.ask(model="stub/fault-slow")
    assert (await socket.event())["type"] == "response.created"
    await socket.ask("me too")

    events = [await socket.event()]
    while events[-1]["type"] != "response.completed":
        events.append(await socket.event())

    (refused,) = [event for event in events if event["type"] == "error"]
    assert refused["status"] == 409
    assert (await socket.response("now"))["status"] == "completed"


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "[]",
        '{"type": "response.cancel"}',
        '{"type": "response.create"}',
        '{"type": "response.create", "model": "stub/mock", "input": "x", "stream": true}',
        '{"type": "response.create", "model": "stub/mock", "input": "x", "background": true}',
        '{"type": "response.create", "model": "stub/mock", "input": "\\ud800"}',
        '{"type": "response.create", "model": "stub/mock", "model": "stub/mock"}',
    ],
)
async def test_nonsense_is_refused_and_the_connection_goes_on(socket: Socket, frame: str) -> None:
    await socket.send(frame)

    event = await socket.event()
    assert (event["type"], event["status"]) == ("error", 400)
    assert (await socket.response("hi"))["status"] == "completed"


async def test_connections_and_what_is_asked_on_them_are_counted(
    gateway: Gateway, acme: Tenant
) -> None:
    async with connected(gateway, acme.token) as opened:
        await opened.response("hi")
        await opened.refused("hi", model="nosuch/model")
        await opened.response("hi")
    with pytest.raises(trio_websocket.ConnectionRejected):
        async with connected(gateway, "nonsense"):
            pass

    told = (await gateway.http.get("/metrics", headers=gateway.headers(ADMIN_KEY))).text
    for method, status, number in [
        ("GET", 101, 1), ("GET", 401, 1), ("WS", 200, 2), ("WS", 404, 1),
    ]:  # fmt: skip
        labels = f'method="{method}",route="{PATH}",status="{status}"'
        assert f"openclawmu_http_requests_total{{{labels}}} {number}.0" in told


@pytest.mark.parametrize("websocket_limits", ["{login_failures_per_minute: 2}"])
async def test_wrong_tokens_slow_down_nobody_who_has_a_right_one(
    gateway: Gateway, acme: Tenant
) -> None:
    statuses = []
    for number in range(4):
        with pytest.raises(trio_websocket.ConnectionRejected) as rejected:
            async with connected(gateway, f"tenant:acme:wrong-{number}"):
                pass
        statuses.append(rejected.value.status_code)

    assert statuses == [401, 401, 429, 429]
    assert b"retry-after" in dict(rejected.value.headers)
    async with connected(gateway, acme.token) as opened:
        assert (await opened.response("hi"))["status"] == "completed"


async def test_agents_answer_too(socket: Socket) -> None:
    first = await socket.response("one", model="openclaw")
    second = await socket.response("two", model="openclaw", previous_response_id=first["id"])

    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


@pytest.mark.parametrize("token", ["", "tenant:nobody:0123", "nonsense"])
async def test_nobody_comes_in_without_a_token(gateway: Gateway, token: str) -> None:
    with pytest.raises(trio_websocket.ConnectionRejected) as rejected:
        async with connected(gateway, token):
            pass

    assert rejected.value.status_code == 401
    body = json.loads(rejected.value.body or b"")
    assert body["error"]["code"] == "invalid_api_key"
    assert dict(rejected.value.headers)[b"x-request-id"]


async def test_tags_of_the_upgrade_are_those_of_all_that_is_asked(
    gateway: Gateway, acme: Tenant
) -> None:
    headers = {"x-openclaw-tags": "team=red", "x-openclaw-cache": "bypass"}
    async with connected(gateway, acme.token, headers=headers) as opened:
        await opened.response("hi")
        await opened.response("and?")

    report = await gateway.http.get(
        f"/v1/tenants/{acme.id}/usage?group_by=tag:team", headers=gateway.headers(acme.token)
    )
    (row,) = report.json()["rows"]
    assert (row["group"], row["requests"]) == ("red", 2)


@pytest.mark.parametrize(
    ("header", "kinds"),
    [("cache-control", {"responses": 1, "cache": 1}), ("x-openclaw-cache", {"responses": 2})],
)
async def test_what_browsers_send_with_every_upgrade_is_no_wish(
    gateway: Gateway, acme: Tenant, header: str, kinds: dict[str, int]
) -> None:
    await gateway.configure(acme, {"defaults": {"response_cache": {"enabled": True}}})
    async with connected(gateway, acme.token, headers={header: "no-cache"}) as opened:
        await opened.response("hi")
        await opened.response("hi")

    report = await gateway.http.get(
        f"/v1/tenants/{acme.id}/usage?group_by=kind", headers=gateway.headers(acme.token)
    )
    assert {row["group"]: row["requests"] for row in report.json()["rows"]} == kinds


@pytest.mark.parametrize("header", ["x-openclaw-tags", "x-openclaw-cache"])
async def test_an_upgrade_with_a_wish_that_nobody_understands_is_refused(
    gateway: Gateway, acme: Tenant, header: str
) -> None:
    with pytest.raises(trio_websocket.ConnectionRejected) as rejected:
        async with connected(gateway, acme.token, headers={header: "BAD TAG"}):
            pass

    assert rejected.value.status_code == 400
    assert json.loads(rejected.value.body or b"")["error"]["param"] == header


async def test_a_browser_names_its_token_in_the_subprotocol(gateway: Gateway, acme: Tenant) -> None:
    name = "openclaw.bearer." + acme.token.replace(":", ".")

    async with connected(gateway, "", subprotocols=[name]) as opened:
        assert (await opened.response("hi"))["status"] == "completed"


async def test_another_tenants_path_is_refused(gateway: Gateway, acme: Tenant) -> None:
    await gateway.create("other")

    with pytest.raises(trio_websocket.ConnectionRejected) as rejected:
        async with connected(gateway, acme.token, path=f"/t/other{PATH}"):
            pass

    assert rejected.value.status_code == 403
    async with connected(gateway, acme.token, path=f"/t/acme{PATH}") as opened:
        assert (await opened.response("hi"))["status"] == "completed"


async def test_an_admin_without_a_tenant_is_refused(gateway: Gateway) -> None:
    with pytest.raises(trio_websocket.ConnectionRejected) as rejected:
        async with connected(gateway, ADMIN_KEY):
            pass

    assert rejected.value.status_code == 403


async def test_a_revoked_token_ends_the_connection(gateway: Gateway, acme: Tenant) -> None:
    mine = Client(gateway, acme)
    minted = await mine.send("POST", "/v1/tenants/acme/tokens", {"scopes": ["chat"]})
    assert minted.status_code == 201, minted.text
    async with connected(gateway, minted.json()["token"]) as opened:
        await opened.ask(model="stub/fault-hang")
        assert (await opened.event())["type"] == "response.created"

        revoked = await mine.send("DELETE", f"/v1/tenants/acme/tokens/{minted.json()['id']}")

        assert revoked.status_code in {200, 204}, revoked.text
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await opened.everything()
    assert code_of(closed.value) == 1008


async def test_who_leaves_ends_the_call(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway, acme.token) as opened:
        await opened.ask(model="stub/fault-hang")
        await opened.event()

    with trio.fail_after(60):
        while (await gateway.usage(acme))["requests"] != 1:  # noqa: ASYNC110 - it is told to nobody
            await trio.sleep(0.02)


async def test_a_connection_has_an_end(
    gateway: Gateway, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses_socket, "LONGEST", 0.3)

    async with connected(gateway, acme.token) as opened:
        event = await opened.event()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await opened.event()

    assert event["type"] == "error"
    assert event["error"]["code"] == "websocket_connection_limit_reached"


class TestFewConnections:
    @pytest.fixture
    def websocket_limits(self) -> str:
        return "{max_connections_per_tenant: 1, max_frame_bytes: 65536}"

    async def test_a_tenant_has_so_many_and_no_more(self, gateway: Gateway, acme: Tenant) -> None:
        async with connected(gateway, acme.token) as first:
            with pytest.raises(trio_websocket.ConnectionRejected) as rejected:
                async with connected(gateway, acme.token):
                    pass
            assert rejected.value.status_code == 429
            assert (await first.response("hi"))["status"] == "completed"
        async with connected(gateway, acme.token) as again:
            assert (await again.response("hi"))["status"] == "completed"

    async def test_frames_have_a_size(self, gateway: Gateway, acme: Tenant) -> None:
        async with connected(gateway, acme.token) as opened:
            await opened.ask("x" * 70_000)
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await opened.event()
        assert code_of(closed.value) == 1009
