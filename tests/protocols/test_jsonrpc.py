"""JSON-RPC 2.0: calls, batches, and what is answered to nonsense."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.gateway import Ignored, WireError
from appliance.protocols.jsonrpc import (
    INTERNAL,
    INVALID,
    METHOD_UNKNOWN,
    MOST_CALLS,
    NUMBERS,
    PARAMS_INVALID,
    PARSE_ERROR,
    UNAVAILABLE,
    Batch,
    BatchAnswer,
    Call,
    Fault,
    Notification,
    encode_error,
    encode_event,
    encode_result,
    encode_wire_error,
    end_event,
    event_head,
    number_of,
    parse,
    read,
    speaks_jsonrpc,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error"]) | st.text(),
            inner | st.just("2.0"),
            max_size=6,
        )
    ),
    max_leaves=20,
)


def request(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "health"} | members).encode()


@pytest.mark.parametrize(
    ("data", "entry"),
    [
        (request(id=1), Call(1, "health", None)),
        (request(id="a", params={}), Call("a", "health", {})),
        (request(id=None, params={"x": [1]}), Call(None, "health", {"x": [1]})),
        (request(id=-5, params=None), Call(-5, "health", None)),
        (request(id="", params=[]), Call("", "health", None)),
        (request(id=1, params=[{"x": 1}]), Call(1, "health", {"x": 1})),
        (request(id=1, more="passed over"), Call(1, "health", None)),
        (request(), Notification("health", None)),
        (request(params={"x": 1}), Notification("health", {"x": 1})),
        (request(params=[1]), Ignored("notification")),
        (request(params="x"), Ignored("notification")),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', Ignored("response")),
        (b'{"jsonrpc":"2.0","id":1,"error":{}}', Ignored("response")),
    ],
)
def test_one_message_is_one_entry(data: bytes, entry: object) -> None:
    assert parse(data) == entry


@pytest.mark.parametrize(
    ("data", "call_id", "number", "words"),
    [
        (b"", None, PARSE_ERROR, "empty"),
        (b"{", None, PARSE_ERROR, "not JSON"),
        (b"\xff", None, PARSE_ERROR, "parse error"),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}', None, PARSE_ERROR, "appears twice"),
        (b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', None, PARSE_ERROR, "surrogate"),
        (b"[" * 100 + b"]" * 100, None, PARSE_ERROR, "deeper"),
        (b"1", None, INVALID, "must be an object"),
        (b'"health"', None, INVALID, "must be an object"),
        (b"[]", None, INVALID, "batch is empty"),
        (b"{}", None, INVALID, "jsonrpc"),
        (b'{"id":7}', 7, INVALID, "jsonrpc"),
        (request(id=1, jsonrpc="1.0"), 1, INVALID, "jsonrpc"),
        (request(id=1, jsonrpc=2.0), 1, INVALID, "jsonrpc"),
        (request(id=1.5), None, INVALID, "id must"),
        (request(id=True), None, INVALID, "id must"),
        (request(id={}), None, INVALID, "id must"),
        (request(id="x" * 257), None, INVALID, "id must"),
        (request(id=1, method=None), 1, INVALID, "method"),
        (request(id=1, method=""), 1, INVALID, "method"),
        (request(id=1, method="x" * 129), 1, INVALID, "method"),
        (request(id=1, method=["health"]), 1, INVALID, "method"),
        (request(id=1, params=[1, 2]), 1, PARAMS_INVALID, "invalid health params: must be object"),
        (request(id=1, params=[{}, {}]), 1, PARAMS_INVALID, "by name"),
        (request(id=1, params=["x"]), 1, PARAMS_INVALID, "by name"),
        (request(id=1, params="x"), 1, INVALID, "params"),
        (request(id=1, params=False), 1, INVALID, "params"),
        (b"[" + b",".join([b"1"] * (MOST_CALLS + 1)) + b"]", None, INVALID, "at most 100"),
    ],
)
def test_what_is_no_request_is_answered_with_the_reason(
    data: bytes, call_id: object, number: int, words: str
) -> None:
    fault = parse(data)

    assert isinstance(fault, Fault)
    assert (fault.id, fault.number) == (call_id, number)
    assert words in fault.message
    assert json.loads(fault.encoded())["error"] == {"code": number, "message": fault.message}


@given(st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_an_entry_or_a_batch_of_entries(data: bytes) -> None:
    found = parse(data)

    if isinstance(found, Batch):
        assert 0 < len(found.entries) <= MOST_CALLS
        for entry in found.entries:
            assert isinstance(entry, Call | Notification | Fault | Ignored)
    elif isinstance(found, Fault):
        assert json.loads(found.encoded())["id"] == found.id


def test_a_batch_is_answered_in_one_array_in_whatever_order_the_answers_come() -> None:
    batch = read(
        [
            {"jsonrpc": "2.0", "id": 1, "method": "a"},
            {"jsonrpc": "2.0", "method": "b"},
            {"jsonrpc": "2.0", "id": 2, "method": "c"},
            {"jsonrpc": "2.0", "id": 9, "result": 1},
            [],
            7,
        ]
    )
    assert isinstance(batch, Batch)
    first, _, second = batch.entries[:3]
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    gathered = BatchAnswer(batch)

    assert not gathered.complete
    gathered.answer(second, encode_result(second.id, b'"C"'))
    gathered.answer(first, encode_error(first.id, METHOD_UNKNOWN, "unknown method: a"))

    assert gathered.complete
    message = gathered.encoded()
    assert message is not None
    answers = {each["id"]: each for each in json.loads(message) if each["id"] is not None}
    assert answers[1]["error"]["code"] == METHOD_UNKNOWN
    assert answers[2]["result"] == "C"
    assert [each["error"]["code"] for each in json.loads(message) if each["id"] is None] == [
        INVALID,
        INVALID,
    ]


def test_a_batch_of_notifications_is_not_answered() -> None:
    batch = read([{"jsonrpc": "2.0", "method": "a"}, {"result": 1}])
    assert isinstance(batch, Batch)
    gathered = BatchAnswer(batch)

    assert gathered.complete
    assert gathered.encoded() is None


def test_a_batch_keeps_no_more_than_its_limit() -> None:
    batch = read([{"jsonrpc": "2.0", "id": n, "method": "chat.history"} for n in range(3)])
    assert isinstance(batch, Batch)
    gathered = BatchAnswer(batch, limit_bytes=1000)
    for call in batch.entries:
        assert isinstance(call, Call)
        gathered.answer(call, encode_result(call.id, b'"%b"' % (b"x" * 700)))

    message = gathered.encoded()
    assert message is not None
    answers = json.loads(message)
    assert "result" in answers[0]
    assert [each["error"]["code"] for each in answers[1:]] == [UNAVAILABLE, UNAVAILABLE]
    assert [each["id"] for each in answers] == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "speaks"),
    [
        ({"jsonrpc": "2.0", "id": 1, "method": "connect"}, True),
        ({"jsonrpc": "2.0"}, True),
        ([{"jsonrpc": "2.0"}], True),
        ({"type": "req", "id": "1", "method": "connect"}, False),
        ({"jsonrpc": 2.0}, False),
        ({"jsonrpc": "1.0"}, False),
        ([], False),
        ([[{"jsonrpc": "2.0"}]], False),
        (None, False),
    ],
)
def test_the_first_message_tells_which_protocol_is_spoken(value: object, speaks: bool) -> None:  # noqa: FBT001 - of the table
    assert speaks_jsonrpc(value) is speaks


def test_a_result_is_put_in_as_it_is() -> None:
    assert encode_result("a\n", b'{"x":1}') == b'{"jsonrpc":"2.0","id":"a\\n","result":{"x":1}}'


def test_an_event_is_a_notification_with_payload_and_number() -> None:
    assert json.loads(encode_event("tick", b'{"ts":1}', 7)) == {
        "jsonrpc": "2.0",
        "method": "tick",
        "params": {"payload": {"ts": 1}, "seq": 7},
    }
    assert json.loads(encode_event("tick", b"{}"))["params"] == {"payload": {}}


def test_one_head_serves_many_connections() -> None:
    head = event_head("presence", b"[]", (3, 4))

    assert [json.loads(end_event(head, seq))["params"] for seq in (1, 2)] == [
        {"payload": [], "stateVersion": {"presence": 3, "health": 4}, "seq": 1},
        {"payload": [], "stateVersion": {"presence": 3, "health": 4}, "seq": 2},
    ]


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("INVALID_REQUEST", -32600),
        ("INTERNAL", INTERNAL),
        ("UNAUTHENTICATED", -32001),
        ("NOT_PAIRED", -32001),
        ("FORBIDDEN", -32003),
        ("NOT_FOUND", -32004),
        ("UNAVAILABLE", -32000),
        ("RATE_LIMITED", -32029),
        ("SOMETHING_NEW", -32000),
    ],
)
def test_every_code_has_a_number(code: str, number: int) -> None:
    assert number_of(WireError(code, "no")) == number


def test_no_number_of_ours_is_one_that_the_specification_keeps() -> None:
    assert all(-32099 <= n <= -32000 or n in {INVALID, INTERNAL} for n in NUMBERS.values())


def test_an_error_carries_what_a_gateway_error_does() -> None:
    error = WireError("RATE_LIMITED", "slow down", {"code": "X"}, True, 1500)  # noqa: FBT003 - the field's own place

    assert json.loads(encode_wire_error(3, error)) == {
        "jsonrpc": "2.0",
        "id": 3,
        "error": {
            "code": -32029,
            "message": "slow down",
            "data": {
                "code": "RATE_LIMITED",
                "details": {"code": "X"},
                "retryable": True,
                "retryAfterMs": 1500,
            },
        },
    }


def test_the_number_may_say_more_than_the_code() -> None:
    error = WireError("INVALID_REQUEST", "unknown method: x")

    assert json.loads(encode_wire_error(None, error, number=METHOD_UNKNOWN)) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {
            "code": METHOD_UNKNOWN,
            "message": "unknown method: x",
            "data": {"code": "INVALID_REQUEST"},
        },
    }
