"""The first message: which dialect, which protocol, who, and how everything else is refused."""

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.model.callers import ActorKind, Caller
from appliance.model.operator_scopes import EVERYTHING, OperatorScope, Role
from appliance.model.tokens import Scope
from appliance.transports.callers import read_headers
from appliance.transports.websocket.dialects import JsonRpcDialect
from appliance.transports.websocket.handshake import Admitted, HandshakeRefused, Visit
from appliance.transports.websocket.upgrade import Upgrade
from tests.transports.websocket.bench import CLIENT, DoorBench, someone


class Bench:
    """A handshake, and visits to it."""

    def __init__(self, websocket: str = "{}") -> None:
        self._door = DoorBench(websocket=websocket)
        reader = Caller(ActorKind.TENANT, "tok_r", "acme", frozenset({Scope.READ}))
        self._door.access.callers |= {"reader": reader}

    async def admit(self, message: object, **visit: Any) -> Admitted:
        given: dict[str, Any] = {
            "presented": read_headers([]),
            "ip": "192.0.2.1",
            "route_tenant": None,
            "subprotocol": None,
            "caller": None,
            "from_own_page": True,
        }
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        handshake = self._door.door._parts.handshake
        return await handshake.admit(raw, Visit(Upgrade(**{**given, **visit}), "nonce"))

    async def refused(self, message: object, **visit: Any) -> tuple[Any, int, str]:
        """What a client is told, and how the connection is closed."""
        with pytest.raises(HandshakeRefused) as caught:
            await self.admit(message, **visit)
        frame, goodbye = caught.value.frame, caught.value.goodbye
        return None if frame is None else json.loads(frame), goodbye.code, goodbye.reason


def connect(**params: object) -> dict[str, object]:
    given = {
        "minProtocol": 3,
        "maxProtocol": 4,
        "client": CLIENT,
        "auth": {"token": "one"},
        **params,
    }
    return {"type": "req", "id": "c", "method": "connect", "params": given}


def rpc(method: str = "connect", **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.fixture
async def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(("least", "most", "spoken"), [(3, 3, 3), (1, 99, 4), (4, 4, 4)])
async def test_the_newest_protocol_of_both_is_spoken(
    bench: Bench, least: int, most: int, spoken: int
) -> None:
    admitted = await bench.admit(connect(minProtocol=least, maxProtocol=most))

    assert admitted.dialect.protocol == spoken
    assert admitted.admission.caller == someone()
    assert admitted.admission.scopes == EVERYTHING
    assert (admitted.tag, admitted.asked_to_connect) == ("c", True)


async def test_connections_cannot_be_guessed(bench: Bench) -> None:
    ids = {(await bench.admit(connect())).admission.conn_id for _ in range(20)}

    assert len(ids) == 20
    assert {len(each) for each in ids} == {24}


@pytest.mark.parametrize(
    ("token", "asked", "got"),
    [
        ("one", ["operator.read"], {OperatorScope.READ}),
        ("one", ["operator.new"], {OperatorScope.READ}),
        ("reader", [], {OperatorScope.READ}),
        ("reader", ["operator.write", "operator.admin"], {OperatorScope.READ}),
        ("reader", ["operator.pairing"], set()),
    ],
)
async def test_nobody_gets_more_than_the_token_or_more_than_asked(
    bench: Bench, token: str, asked: list[str], got: set[OperatorScope]
) -> None:
    admitted = await bench.admit(connect(auth={"token": token}, scopes=asked))

    assert admitted.admission.scopes == got


async def test_a_node_is_what_it_calls_itself_but_no_device(bench: Bench) -> None:
    admitted = await bench.admit(connect(role="node", client={**CLIENT, "instanceId": "phone"}))
    assert (admitted.admission.role, admitted.admission.node_id) == (Role.NODE, "phone")
    assert admitted.admission.scopes == frozenset()

    pretender = {**CLIENT, "instanceId": "aB" * 32}
    frame, code, _ = await bench.refused(connect(role="node", client=pretender))
    assert "named like a device" in frame["error"]["message"]
    assert code == 1008


@pytest.mark.parametrize(
    ("message", "details", "code", "reason"),
    [
        (connect(auth={"token": "x"}), "AUTH_TOKEN_MISMATCH", 1008, "unauthorized"),
        (connect(auth={"deviceToken": "x"}), "AUTH_DEVICE_TOKEN_MISMATCH", 1008, "unauthorized"),
        (connect(auth={}), "DEVICE_IDENTITY_REQUIRED", 1008, "device identity required"),
        (connect(auth={"password": "one"}), "DEVICE_IDENTITY_REQUIRED", 1008, "device"),
        (connect(minProtocol=5, maxProtocol=9), "PROTOCOL_MISMATCH", 1002, "protocol mismatch"),
        (connect(role="admin"), None, 1008, "invalid role"),
        (connect(client=None), None, 1008, "invalid connect params"),
    ],
)
async def test_each_refusal_has_its_words(
    bench: Bench, message: object, details: str | None, code: int, reason: str
) -> None:
    frame, closed, why = await bench.refused(message)

    assert (frame["id"], frame["ok"]) == ("c", False)
    assert (frame["error"].get("details") or {}).get("code") == details
    assert closed == code
    assert why.startswith(reason)


async def test_a_page_of_another_site_is_refused_before_the_token_is_looked_at(
    bench: Bench,
) -> None:
    for token in ("one", "wrong"):
        frame, code, _ = await bench.refused(connect(auth={"token": token}), from_own_page=False)
        assert "origin not allowed" in frame["error"]["message"]
        assert code == 1008


async def test_who_was_known_by_the_request_needs_no_token(bench: Bench) -> None:
    admitted = await bench.admit(connect(auth={"token": "wrong"}), caller=someone("other"))

    assert admitted.admission.caller.tenant == "other"


async def test_a_path_is_for_its_own_tenant(bench: Bench) -> None:
    frame, code, _ = await bench.refused(connect(), route_tenant="other")

    assert frame["error"]["code"] == "FORBIDDEN"
    assert "another tenant" in frame["error"]["message"]
    assert code == 1008


async def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(
    autojump_clock: MockClock,
) -> None:
    bench = Bench("{login_failures_per_minute: 2, login_lockout: 60}")
    wrong = connect(auth={"token": "wrong"})
    told = [(await bench.refused(wrong))[0]["error"] for _ in range(3)]
    assert [each["details"]["code"] for each in told] == [
        "AUTH_TOKEN_MISMATCH",
        "AUTH_TOKEN_MISMATCH",
        "AUTH_RATE_LIMITED",
    ]
    assert told[2]["retryAfterMs"] == 60_000
    await bench.admit(connect())
    elsewhere, _, _ = await bench.refused(wrong, ip="192.0.2.2")
    assert elsewhere["error"]["details"]["code"] == "AUTH_TOKEN_MISMATCH"
    await trio.sleep(61)
    again, _, _ = await bench.refused(wrong)
    assert again["error"]["details"]["code"] == "AUTH_TOKEN_MISMATCH"


# -- JSON-RPC ----------------------------------------------------------------


async def test_a_caller_of_json_rpc_need_not_say_who_it_is(bench: Bench) -> None:
    admitted = await bench.admit(rpc(auth={"token": "one"}))

    assert isinstance(admitted.dialect, JsonRpcDialect)
    assert (admitted.admission.info.id, admitted.early) == ("json-rpc", ())


async def test_with_a_token_in_the_request_it_need_not_connect(bench: Bench) -> None:
    admitted = await bench.admit([rpc("health"), rpc("status")], caller=someone())

    assert admitted.asked_to_connect is False
    assert [each.method for each in admitted.early] == ["health", "status"]


async def test_what_came_with_the_greeting_is_asked_after_it(bench: Bench) -> None:
    admitted = await bench.admit([rpc(auth={"token": "one"}), rpc("health")])

    assert admitted.asked_to_connect is True
    assert [each.method for each in admitted.early] == ["health"]


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (rpc("health"), -32600),
        (rpc(auth={"token": "x"}), -32001),
        (rpc(auth="x"), -32602),
        ({"jsonrpc": "2.0", "id": 1}, -32600),
        ([{"jsonrpc": "2.0"}], -32600),
    ],
)
async def test_json_rpc_is_refused_in_json_rpc(bench: Bench, message: object, number: int) -> None:
    frame, code, _ = await bench.refused(message)

    frame = frame[0] if isinstance(frame, list) else frame
    assert frame["error"]["code"] == number
    assert code == 1008
