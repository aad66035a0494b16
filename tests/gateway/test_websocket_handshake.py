"""How clients come in through the WebSocket: with what, where, and what they are told."""

import base64
import hashlib
import json
import time
from typing import Any

import pytest
import trio_websocket
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.gateway.websocket import CLIENT, Client, Refused, connected, dialled


class Device:
    """An Ed25519 identity as OpenClaw's clients keep it."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self.id = hashlib.sha256(raw).hexdigest()
        self.public_key = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def prove(self, nonce: str, token: str, scopes: list[str]) -> dict[str, Any]:
        now = round(time.time() * 1000)
        text = (
            f"v2|{self.id}|{CLIENT['id']}|{CLIENT['mode']}|operator|{','.join(scopes)}"
            f"|{now}|{token}|{nonce}"
        )
        signature = base64.urlsafe_b64encode(self._key.sign(text.encode())).rstrip(b"=").decode()
        return {
            "id": self.id,
            "publicKey": self.public_key,
            "signature": signature,
            "signedAt": now,
            "nonce": nonce,
        }


async def connect_device(
    client: Client, device: Device, *, scopes: list[str] | None = None, **auth: str
) -> dict[str, Any]:
    nonce = (await client.event("connect.challenge"))["payload"]["nonce"]
    token = next(iter(auth.values()))
    scopes = scopes or ["operator.read"]
    hello: dict[str, Any] = await client.call(
        "connect",
        minProtocol=3,
        maxProtocol=4,
        client=CLIENT,
        scopes=scopes,
        auth=auth,
        device=device.prove(nonce, token, scopes),
    )
    return hello


@pytest.mark.parametrize("path", ["/", "/ws", "/t/acme/ws", "/t/acme/"])
async def test_a_tenant_token_alone_is_enough(gateway: Gateway, acme: Tenant, path: str) -> None:
    async with connected(gateway.port, acme.token, path) as client:
        hello = client.hello

        assert hello["type"] == "hello-ok"
        assert hello["auth"]["role"] == "operator"
        assert "chat.send" in hello["features"]["methods"]
        assert "tenants.create" not in hello["features"]["methods"]  # an admin's
        assert "cron.add" not in hello["features"]["methods"]  # not in this release
        assert hello["snapshot"]["sessionDefaults"]["mainSessionKey"] == "agent:main:main"
        assert (await client.call("health"))["ok"] is True


async def test_nothing_of_the_machine_is_in_the_greeting(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, acme.token) as client:
        text = json.dumps(client.hello)
    assert str(gateway.state_dir) not in text
    assert "configPath" not in text
    assert "stateDir" not in text


@pytest.mark.parametrize(("least", "most", "spoken"), [(3, 3, 3), (4, 4, 4), (3, 4, 4), (1, 9, 4)])
async def test_both_generations_of_clients_are_understood(
    gateway: Gateway, acme: Tenant, least: int, most: int, spoken: int
) -> None:
    async with connected(gateway.port, acme.token, minProtocol=least, maxProtocol=most) as client:
        assert client.hello["protocol"] == spoken


async def test_a_client_of_another_age_is_told_so(gateway: Gateway, acme: Tenant) -> None:
    async with dialled(gateway.port) as client:
        with pytest.raises(Refused, match="protocol mismatch") as caught:
            await client.connect(acme.token, minProtocol=5, maxProtocol=7)
        assert caught.value.error["details"]["expectedProtocol"] == 4
        assert (await client.closed())[0] == 1002


async def test_the_token_may_come_with_the_upgrade(gateway: Gateway, acme: Tenant) -> None:
    bearer = {"Authorization": f"Bearer {acme.token}"}
    async with dialled(gateway.port, headers=bearer) as client:
        await client.event("connect.challenge")
        await client.call("connect", minProtocol=4, maxProtocol=4, client=CLIENT)
        assert (await client.call("health"))["ok"] is True


@pytest.mark.parametrize("written", [str, lambda token: token.replace(":", ".")])
async def test_a_browser_brings_its_token_as_a_subprotocol(
    gateway: Gateway, acme: Tenant, written: Any
) -> None:
    protocol = f"openclaw.bearer.{written(acme.token)}"
    async with dialled(gateway.port, subprotocols=[protocol]) as client:
        assert client.socket.subprotocol == protocol
        await client.event("connect.challenge")
        await client.call("connect", minProtocol=4, maxProtocol=4, client=CLIENT)
        assert (await client.call("health"))["ok"] is True


@pytest.mark.parametrize(
    "token",
    ["", "x", "tenant:acme:wrong", "tenant:nobody:wrong", "tenant:constructor:x", "admin:wrong"],
)
async def test_what_grants_nothing_gets_one_answer(
    gateway: Gateway, acme: Tenant, token: str
) -> None:
    async with dialled(gateway.port) as client:
        with pytest.raises(Refused) as caught:
            await client.connect(token)
        assert caught.value.code in {"INVALID_REQUEST", "NOT_PAIRED"}
        if token:
            assert caught.value.error["details"]["code"] == "AUTH_TOKEN_MISMATCH"
        assert (await client.closed())[0] == 1008


async def test_a_bad_credential_in_the_upgrade_is_a_plain_401(gateway: Gateway) -> None:
    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with dialled(gateway.port, headers={"Authorization": "Bearer tenant:acme:x"}):
            pass
    assert caught.value.status_code == 401


async def test_another_tenants_path_is_refused(gateway: Gateway, acme: Tenant) -> None:
    await gateway.create("other")
    async with dialled(gateway.port, "/t/other/ws") as client:
        with pytest.raises(Refused, match="another tenant"):
            await client.connect(acme.token)
        assert (await client.closed())[0] == 1008


async def test_a_tenant_that_lives_elsewhere_is_421(gateway: Gateway, acme: Tenant) -> None:
    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with dialled(gateway.port, "/t/elsewhere/ws"):
            pass
    assert caught.value.status_code == 421


async def test_there_is_no_websocket_at_other_paths(gateway: Gateway) -> None:
    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with dialled(gateway.port, "/v1/tenants"):
            pass
    assert caught.value.status_code == 404


# -- devices ---------------------------------------------------------------


async def test_a_device_that_proves_its_key_is_given_a_token_of_its_own(
    gateway: Gateway, acme: Tenant
) -> None:
    device = Device()
    async with dialled(gateway.port) as client:
        hello = await connect_device(client, device, token=acme.token)
    token = hello["auth"]["deviceToken"]

    async with dialled(gateway.port) as client:
        again = await connect_device(client, device, token=token)
        assert again["auth"]["scopes"] == ["operator.read"]
        assert (await client.call("health"))["ok"] is True
        with pytest.raises(Refused, match=r"missing scope: operator\.admin"):
            await client.call("config.patch", raw="{}")


async def test_a_device_token_is_worth_nothing_to_another_device(
    gateway: Gateway, acme: Tenant
) -> None:
    async with dialled(gateway.port) as client:
        hello = await connect_device(client, Device(), token=acme.token)
    stolen = hello["auth"]["deviceToken"]

    async with dialled(gateway.port) as client:
        with pytest.raises(Refused, match="token mismatch"):
            await connect_device(client, Device(), token=stolen)
    async with dialled(gateway.port) as client:
        with pytest.raises(Refused, match="token mismatch"):
            await client.connect(stolen)


async def test_a_device_token_ends_with_the_token_that_vouched_for_it(
    gateway: Gateway, acme: Tenant
) -> None:
    device = Device()
    async with dialled(gateway.port) as client:
        hello = await connect_device(client, device, token=acme.token)
    rotated = await gateway.http.post("/v1/tenants/acme/rotate", headers=gateway.headers(ADMIN_KEY))
    assert rotated.status_code == 200, rotated.text

    async with dialled(gateway.port) as client:
        with pytest.raises(Refused, match="token mismatch"):
            await connect_device(client, device, deviceToken=hello["auth"]["deviceToken"])


@pytest.mark.parametrize("most", [3, 4])
async def test_a_proof_that_is_none_is_refused(gateway: Gateway, acme: Tenant, most: int) -> None:
    async with dialled(gateway.port) as client:
        await client.event("connect.challenge")
        proof = Device().prove("another nonce", acme.token, [])
        with pytest.raises(Refused, match="device nonce mismatch") as caught:
            await client.call(
                "connect",
                minProtocol=3,
                maxProtocol=most,
                client=CLIENT,
                auth={"token": acme.token},
                device=proof,
            )
        expected = "DEVICE_AUTH_INVALID" if most == 3 else "DEVICE_AUTH_NONCE_MISMATCH"
        assert caught.value.error["details"]["code"] == expected


# -- browsers --------------------------------------------------------------


async def test_a_page_of_another_site_is_not_let_in(gateway: Gateway, acme: Tenant) -> None:
    async with dialled(gateway.port, headers={"Origin": "https://evil.example"}) as client:
        with pytest.raises(Refused, match="origin not allowed"):
            await client.connect(acme.token)
        assert (await client.closed())[0] == 1008


async def test_our_own_pages_are(gateway: Gateway, acme: Tenant) -> None:
    own = {"Origin": f"http://127.0.0.1:{gateway.port}"}
    async with dialled(gateway.port, headers=own) as client:
        await client.connect(acme.token)


async def test_a_browser_session_connects_from_our_pages_only(
    gateway: Gateway, acme: Tenant
) -> None:
    issued = await gateway.http.post(
        "/v1/tenants/acme/tickets", json={}, headers=gateway.headers(acme.token)
    )
    login = await gateway.http.get("/login", params={"ticket": issued.json()["ticket"]})
    cookie = login.headers["set-cookie"].partition(";")[0]

    own = {"Origin": f"http://127.0.0.1:{gateway.port}", "Cookie": cookie}
    async with dialled(gateway.port, headers=own) as client:
        await client.event("connect.challenge")
        await client.call("connect", minProtocol=4, maxProtocol=4, client=CLIENT)
        assert (await client.call("health"))["ok"] is True

    for headers in ({"Origin": "https://evil.example", "Cookie": cookie}, {"Cookie": cookie}):
        with pytest.raises(trio_websocket.ConnectionRejected) as caught:
            async with dialled(gateway.port, headers=headers):
                pass
        assert caught.value.status_code == 403


# -- admins ----------------------------------------------------------------


async def test_an_admin_at_large_sees_the_gateway(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, ADMIN_KEY) as client:
        methods = client.hello["features"]["methods"]
        assert "tenants.list" in methods
        assert "chat.send" not in methods
        listed = await client.call("tenants.list")
        assert [each["tenantId"] for each in listed["tenants"]] == ["acme"]
        with pytest.raises(Refused, match="one tenant"):
            await client.call("chat.history", sessionKey="main")


async def test_an_admin_may_act_for_a_tenant(gateway: Gateway, acme: Tenant) -> None:
    async with connected(gateway.port, ADMIN_KEY, "/t/acme/ws") as client:
        assert (await client.call("sessions.list"))["sessions"] == []
    async with dialled(gateway.port, headers={"X-OpenClaw-Tenant": "acme"}) as client:
        await client.connect(ADMIN_KEY)
        assert (await client.call("sessions.list"))["sessions"] == []


# -- what tokens cover -----------------------------------------------------


async def test_a_connection_can_do_no_more_than_its_token(gateway: Gateway, acme: Tenant) -> None:
    minted = await gateway.http.post(
        "/v1/tenants/acme/tokens",
        json={"label": "reader", "scopes": ["read"]},
        headers=gateway.headers(acme.token),
    )
    async with connected(gateway.port, minted.json()["token"]) as client:
        assert client.hello["auth"]["scopes"] == ["operator.read"]
        assert "chat.history" in client.hello["features"]["methods"]
        for method, params in [
            ("chat.send", {"sessionKey": "main", "message": "hi", "idempotencyKey": "k"}),
            ("config.set", {"raw": "{}"}),
            ("agents.create", {"name": "x"}),
        ]:
            assert method not in client.hello["features"]["methods"]
            with pytest.raises(Refused, match="missing scope"):
                await client.call(method, **params)


async def test_a_chat_token_chats_and_manages_nothing(gateway: Gateway, acme: Tenant) -> None:
    minted = await gateway.http.post(
        "/v1/tenants/acme/tokens",
        json={"label": "chat", "scopes": ["chat"]},
        headers=gateway.headers(acme.token),
    )
    async with connected(gateway.port, minted.json()["token"]) as client:
        await client.call("chat.send", sessionKey="main", message="hi", idempotencyKey="k")
        await client.event("chat", state="final")
        for method in ("config.get", "logs.tail", "device.pair.list"):
            with pytest.raises(Refused, match="missing scope"):
                await client.call(method)


# -- JSON-RPC 2.0 ----------------------------------------------------------


async def rpc(client: Client, message: object) -> Any:
    await client.send(message)
    return await answer(client)


async def answer(client: Client) -> Any:
    while True:
        frame = await client.receive()
        if isinstance(frame, list) or "id" in frame:
            return frame


async def test_json_rpc_is_spoken_when_the_first_message_is(gateway: Gateway, acme: Tenant) -> None:
    async with dialled(gateway.port) as client:
        await client.event("connect.challenge")
        hello = await rpc(
            client,
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "connect",
                "params": {"auth": {"token": acme.token}},
            },
        )
        assert hello["result"]["type"] == "hello-ok"
        health = await rpc(client, {"jsonrpc": "2.0", "id": "h", "method": "health"})
        assert (health["id"], health["result"]["ok"]) == ("h", True)
        unknown = await rpc(client, {"jsonrpc": "2.0", "id": 2, "method": "nope"})
        assert unknown["error"]["code"] == -32601
        wrong = await rpc(
            client, {"jsonrpc": "2.0", "id": 3, "method": "logs.tail", "params": {"limit": 0}}
        )
        assert wrong["error"]["code"] == -32602
        assert "/limit" in wrong["error"]["message"]


async def test_a_batch_is_answered_by_one_array_and_notifications_by_nothing(
    gateway: Gateway, acme: Tenant
) -> None:
    bearer = {"Authorization": f"Bearer {acme.token}"}
    async with dialled(gateway.port, headers=bearer) as client:
        await client.event("connect.challenge")
        answers = await rpc(
            client,
            [
                {"jsonrpc": "2.0", "id": 1, "method": "health"},
                {"jsonrpc": "2.0", "method": "health"},
                {"jsonrpc": "2.0", "id": 2, "method": "sessions.list"},
                {"nonsense": True},
            ],
        )
        assert sorted(str(each["id"]) for each in answers) == ["1", "2", "None"]
        empty = await rpc(client, [])
        assert empty["error"]["code"] == -32600
        chat = {"sessionKey": "main", "message": "hi", "idempotencyKey": "k"}
        await client.send({"jsonrpc": "2.0", "id": 4, "method": "chat.send", "params": chat})
        names = set()
        while "chat" not in names:
            names.add((await client.receive()).get("method"))


async def test_json_rpc_without_a_token_is_refused(gateway: Gateway, acme: Tenant) -> None:
    async with dialled(gateway.port) as client:
        await client.event("connect.challenge")
        refused = await rpc(client, {"jsonrpc": "2.0", "id": 1, "method": "health"})
        assert refused["error"]["code"] == -32600
        assert (await client.closed())[0] == 1008


async def test_a_device_that_wants_more_than_its_token_has_to_be_approved(
    gateway: Gateway, acme: Tenant
) -> None:
    device = Device()
    async with dialled(gateway.port) as client:
        token = (await connect_device(client, device, token=acme.token))["auth"]["deviceToken"]

    async with connected(gateway.port, acme.token) as operator:
        async with dialled(gateway.port) as client:
            with pytest.raises(Refused, match="pairing required") as caught:
                await connect_device(client, device, scopes=["operator.write"], token=token)
        wanted = await operator.event("device.pair.requested", deviceId=device.id)
        request_id = wanted["payload"]["requestId"]
        assert caught.value.error["details"]["requestId"] == request_id
        await operator.call("device.pair.approve", requestId=request_id)

    async with dialled(gateway.port) as client:
        hello = await connect_device(client, device, scopes=["operator.write"], token=token)
        assert "operator.write" in hello["auth"]["scopes"]


@pytest.mark.parametrize(("most", "told"), [(3, "acp:1"), (4, "agent:main:acp:1")])
async def test_older_clients_are_told_of_sessions_by_their_own_names(
    gateway: Gateway, acme: Tenant, most: int, told: str
) -> None:
    async with connected(gateway.port, acme.token, maxProtocol=most) as client:
        await client.call("chat.send", sessionKey="acp:1", message="hi", idempotencyKey="k")
        final = await client.event("chat", state="final")
        assert final["payload"]["sessionKey"] == told
