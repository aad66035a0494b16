"""Both dialects say the same."""

import json
from typing import Any

import pytest

from appliance.protocols.gateway import WireError
from appliance.services.events import Audience, Event, StateVersion
from appliance.transports.websocket.dialects import (
    Dialect,
    JsonRpcDialect,
    MessageInvalid,
    OpenClawDialect,
)

MISSING = WireError("NOT_FOUND", "there is no such thing", {"code": "NOT_FOUND"})


def said(data: bytes | None) -> Any:
    return None if data is None else json.loads(data)


def rpc(*calls: object) -> bytes:
    return json.dumps(calls[0] if len(calls) == 1 else calls).encode()


def call(number: object, method: str = "health", **more: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, **more}


NOTIFICATION = {"jsonrpc": "2.0", "method": "health"}


def test_frames_are_requests_with_an_id() -> None:
    dialect = OpenClawDialect(3)
    (request,) = dialect.read(b'{"type":"req","id":"7","method":"health","params":{"probe":true}}')

    assert (request.method, request.params) == ("health", {"probe": True})
    assert said(dialect.result(request.tag, b"{}")) == {
        "type": "res",
        "id": "7",
        "ok": True,
        "payload": {},
    }
    assert said(dialect.error(request.tag, MISSING))["error"]["code"] == "NOT_FOUND"
    assert said(dialect.interim(request.tag, b"1"))["payload"] == 1


@pytest.mark.parametrize("text", [b'{"type":"res","id":"1"}', b'{"type":"event"}'])
def test_what_asks_for_nothing_is_no_request(text: bytes) -> None:
    assert OpenClawDialect(4).read(text) == ()


@pytest.mark.parametrize(
    ("text", "request_id", "ends"),
    [
        (b"{", "invalid", True),
        (b"\xff", "invalid", True),
        (b"[]", "invalid", False),
        (b'{"type":"req","id":"7"}', "7", False),
        (b'{"type":"req","id":7,"method":"x"}', "invalid", False),
        (b'{"type":"request","id":"7"}', "7", False),
    ],
)
def test_a_bad_frame_is_answered_and_ends_the_connection_if_it_is_no_json(
    text: bytes, request_id: str, *, ends: bool
) -> None:
    with pytest.raises(MessageInvalid) as caught:
        OpenClawDialect(4).read(text)

    assert caught.value.ends is ends
    answer = said(caught.value.answer)
    assert (answer["id"], answer["ok"]) == (request_id, False)
    assert answer["error"]["message"] == caught.value.reason


@pytest.mark.parametrize("dialect", [OpenClawDialect(4), JsonRpcDialect()])
@pytest.mark.parametrize("version", [None, StateVersion(3, 5)])
def test_events_carry_number_and_state(dialect: Dialect, version: StateVersion | None) -> None:
    event = Event(
        1,
        "chat",
        b'{"n":1}',
        Audience.READERS,
        droppable=False,
        session=None,
        state_version=version,
    )
    body = said(dialect.event(event, 17))
    body = body.get("params", body)

    assert (body["payload"], body["seq"]) == ({"n": 1}, 17)
    assert body.get("stateVersion") == (version and {"presence": 3, "health": 5})
    alone = said(dialect.lone_event("tick", b"{}", 18))
    assert alone.get("params", alone)["seq"] == 18


def test_the_same_event_looks_the_same_to_all_but_for_its_number() -> None:
    first = Event(
        1, "chat", b'{"n":1}', Audience.READERS, droppable=False, session=None, state_version=None
    )
    second = Event(
        2, "chat", b'{"n":2}', Audience.READERS, droppable=False, session=None, state_version=None
    )
    one, other = OpenClawDialect(3), OpenClawDialect(4)

    assert one.event(first, 1) == other.event(first, 1)
    assert said(one.event(second, 2))["payload"] == {"n": 2}
    assert said(other.event(first, 3))["payload"] == {"n": 1}


def test_calls_are_answered_and_notifications_are_not() -> None:
    dialect = JsonRpcDialect()
    (request,) = dialect.read(rpc(call(1)))
    assert said(dialect.result(request.tag, b"{}")) == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert dialect.interim(request.tag, b"{}") is None
    assert said(dialect.error(request.tag, MISSING))["error"]["code"] == -32004

    (request,) = dialect.read(rpc(NOTIFICATION))
    assert dialect.result(request.tag, b"{}") is None
    assert dialect.error(request.tag, MISSING) is None


def test_a_batch_is_answered_at_once_when_its_last_call_is() -> None:
    dialect = JsonRpcDialect()
    first, silent, second = dialect.read(rpc(call(1), NOTIFICATION, {"nonsense": 1}, call(2)))
    assert dialect.result(second.tag, b"2") is None
    assert dialect.result(silent.tag, b"0") is None
    answers = said(dialect.error(first.tag, MISSING))
    assert [each["id"] for each in answers] == [None, 2, 1]


def test_mistakes_beside_notifications_are_answered_too() -> None:
    dialect = JsonRpcDialect()
    first, last = dialect.read(rpc(NOTIFICATION, {"nonsense": 1}, NOTIFICATION))
    assert dialect.result(first.tag, b"{}") is None
    (answer,) = said(dialect.error(last.tag, MISSING))
    assert answer["error"]["code"] == -32600


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"{", -32700),
        (b"[]", -32600),
        (rpc(call(1, params=[1, 2])), -32602),
        (rpc({"jsonrpc": "1.0", "id": 1, "method": "x"}), -32600),
        (rpc({"nonsense": 1}, {"nonsense": 2}), -32600),
    ],
)
def test_bad_calls_are_answered_and_end_nothing(text: bytes, code: int) -> None:
    with pytest.raises(MessageInvalid) as caught:
        JsonRpcDialect().read(text)

    answer = said(caught.value.answer)
    answers = answer if isinstance(answer, list) else [answer]
    assert {each["error"]["code"] for each in answers} == {code}
    assert not caught.value.ends


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (WireError("INVALID_REQUEST", "unknown method: x", {"code": "UNKNOWN_METHOD"}), -32601),
        (WireError("INVALID_REQUEST", "invalid x params: at /a: must be string"), -32602),
        (WireError("INVALID_REQUEST", "something else"), -32600),
        (WireError("UNAVAILABLE", "a bug", {"code": "INTERNAL"}), -32603),
        (WireError("UNAVAILABLE", "slow down", {"code": "RATE_LIMIT_EXCEEDED"}), -32029),
        (WireError("INVALID_REQUEST", "who?", {"code": "AUTH_TOKEN_MISMATCH"}), -32001),
        (WireError("FORBIDDEN", "no", None), -32003),
    ],
)
def test_errors_have_the_number_that_says_most(error: WireError, number: int) -> None:
    dialect = JsonRpcDialect()
    (request,) = dialect.read(rpc(call(1)))

    assert said(dialect.error(request.tag, error))["error"]["code"] == number
