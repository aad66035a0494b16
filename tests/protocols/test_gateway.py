"""Gateway frames: what is a request, what is said about what is not, and what we send."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.gateway import (
    LONGEST_ID,
    LONGEST_METHOD,
    FrameInvalid,
    Ignored,
    Request,
    WireError,
    encode_error,
    encode_response,
    end_event,
    event_head,
    read_frame,
    read_json,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["req", "res", "event", "health"])
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "id", "method", "params", "traceparent"]) | st.text(),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


def frame(**members: Any) -> dict[str, Any]:
    return {"type": "req", "id": "1", "method": "health"} | members


def refused(value: object) -> FrameInvalid:
    with pytest.raises(FrameInvalid) as caught:
        read_frame(value)
    return caught.value


@pytest.mark.parametrize(
    ("value", "request_"),
    [
        (frame(), Request("1", "health", None)),
        (frame(params=None), Request("1", "health", None)),
        (frame(params={"probe": True}), Request("1", "health", {"probe": True})),
        (frame(params=[1]), Request("1", "health", [1])),
        (frame(id="7:5e1c"), Request("7:5e1c", "health", None)),
        (frame(traceparent="00-a-b-01"), Request("1", "health", None)),
        (frame(id="x" * LONGEST_ID), Request("x" * LONGEST_ID, "health", None)),
        (frame(method="x" * LONGEST_METHOD), Request("1", "x" * LONGEST_METHOD, None)),
    ],
)
def test_a_request_of_either_generation_is_read(value: object, request_: Request) -> None:
    assert read_frame(value) == request_


@pytest.mark.parametrize("kind", ["res", "event"])
def test_an_answer_to_a_request_never_made_is_ignored(kind: str) -> None:
    assert read_frame({"type": kind, "id": "1", "ok": True, "more": []}) == Ignored(kind)


@pytest.mark.parametrize(
    ("value", "reason", "request_id"),
    [
        (None, "must be object", "invalid"),
        ([], "must be object", "invalid"),
        ("req", "must be object", "invalid"),
        (7, "must be object", "invalid"),
        ({}, "at /type: must be 'req'", "invalid"),
        ({"id": "1"}, "at /type: must be 'req'", "1"),
        (frame(type="REQ"), "at /type: must be 'req'", "1"),
        (frame(type=None), "at /type: must be 'req'", "1"),
        (frame(type=["req"]), "at /type: must be 'req'", "1"),
        (frame(type={}), "at /type: must be 'req'", "1"),
        ({"type": "req"}, "must have required property 'id'", "invalid"),
        ({"type": "req", "id": "1"}, "must have required property 'method'", "1"),
        (frame(id=1), "at /id: must be string", "invalid"),
        (frame(id=None), "at /id: must be string", "invalid"),
        (frame(id=["1"]), "at /id: must be string", "invalid"),
        (frame(id=""), "at /id: must have 1 to 256 characters", "invalid"),
        (frame(id="x" * 257), "at /id: must have 1 to 256 characters", "invalid"),
        (frame(method=None), "at /method: must be string", "1"),
        (frame(method=""), "at /method: must have 1 to 128 characters", "1"),
        (frame(method="x" * 129), "at /method: must have 1 to 128 characters", "1"),
        (frame(jsonrpc="2.0"), "at root: unexpected property 'jsonrpc'", "1"),
        (frame(**{"x" * 500: 1}), f"at root: unexpected property '{'x' * 80}'", "1"),
    ],
)
def test_a_frame_with_a_mistake_is_refused_under_its_own_id(
    value: object, reason: str, request_id: str
) -> None:
    found = refused(value)

    assert found.reason == f"invalid request frame: {reason}"
    assert found.id == request_id
    assert found.is_json


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not JSON"),
        (b'{"type":"req","id":"1","method":"hea', "not JSON"),
        (b'{"type":"req"}{}', "trailing"),
        (b"\x00\x01\x02", "not JSON"),
        (b'{"type":"\xff"}', "not UTF-8"),
        (b'{"type":"req","id":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"type":"req","id":"\\ud800"}', "surrogate"),
        (b'{"type":"req","type":"res"}', "appears twice"),
        (b'{"params":{"a":1,"\\u0061":2}}', "appears twice"),
        (b'{"params":NaN}', "not JSON"),
        (b'{"params":1e999}', "out of range"),
        (b'{"params":' + b"[" * 100 + b"]" * 100 + b"}", "deeper than 64"),
        (b"[" * 1_000_000, "more than 100000 values"),
        (b'{"params":' * 100_000, "deeper than 64"),
        (b'\xef\xbb\xbf{"type":"req"}', "byte order mark"),
    ],
)
def test_what_is_no_json_is_told_from_a_frame_with_mistakes(data: bytes, reason: str) -> None:
    with pytest.raises(FrameInvalid, match=reason) as caught:
        read_json(data)

    assert not caught.value.is_json
    assert caught.value.id == "invalid"


@given(values)
def test_whatever_the_value_it_is_a_frame_or_refused(value: object) -> None:
    try:
        found = read_frame(value)
    except FrameInvalid as exc:
        reason = exc.reason
        assert reason.startswith("invalid request frame: ")
    else:
        assert isinstance(found, Request | Ignored)


@given(
    st.binary()
    | st.text(alphabet='{}[]":,\\utypeidreq 019.').map(str.encode)
    | values.map(lambda value: json.dumps(value).encode())
)
def test_whatever_the_bytes_they_are_a_frame_or_refused(data: bytes) -> None:
    try:
        found = read_frame(read_json(data))
    except FrameInvalid as exc:
        reason = exc.reason
        assert reason
    else:
        assert isinstance(found, Request | Ignored)


@given(texts, texts, values)
def test_a_request_that_json_writes_is_read_as_it_was(
    request_id: str, method: str, params: object
) -> None:
    data = json.dumps(frame(id=request_id, method=method, params=params)).encode()

    assert read_frame(read_json(data)) == Request(request_id, method, params)


@given(texts, values)
def test_an_answer_is_one_json_object_whatever_the_id(request_id: str, payload: object) -> None:
    sent = json.loads(encode_response(request_id, json.dumps(payload).encode()))

    assert sent == {"type": "res", "id": request_id, "ok": True, "payload": payload}


def test_an_error_says_only_what_there_is_to_say() -> None:
    assert json.loads(encode_error("1", WireError("UNAVAILABLE", "later"))) == {
        "type": "res",
        "id": "1",
        "ok": False,
        "error": {"code": "UNAVAILABLE", "message": "later"},
    }


def test_an_error_says_when_to_come_back() -> None:
    error = WireError("UNAVAILABLE", "later", {"limit": 3}, retryable=False, retry_after_ms=0)

    assert json.loads(encode_error("1", error))["error"] == {
        "code": "UNAVAILABLE",
        "message": "later",
        "details": {"limit": 3},
        "retryable": False,
        "retryAfterMs": 0,
    }


def test_one_head_serves_connections_that_count_for_themselves() -> None:
    head = event_head('ti"ck', b'{"ts":1}')

    assert [json.loads(end_event(head, seq)) for seq in (1, 0, None)] == [
        {"type": "event", "event": 'ti"ck', "payload": {"ts": 1}, "seq": 1},
        {"type": "event", "event": 'ti"ck', "payload": {"ts": 1}, "seq": 0},
        {"type": "event", "event": 'ti"ck', "payload": {"ts": 1}},
    ]


def test_a_change_of_state_carries_its_versions() -> None:
    sent = json.loads(end_event(event_head("presence", b"[]", (3, 4)), 9))

    assert sent["stateVersion"] == {"presence": 3, "health": 4}
    assert sent["seq"] == 9
