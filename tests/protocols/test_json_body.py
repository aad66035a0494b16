"""JSON from strangers: what is read, what is refused, and what it costs."""

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.protocols import long_json
from appliance.protocols.json_body import DEEPEST, MOST_VALUES, decode, parse_object

LIMIT = 32 * 1024 * 1024
CHAT = json.dumps(
    {
        "model": "stub/mock",
        "stream": True,
        "temperature": 0.7,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant, be brief."},
            {"role": "user", "content": "What is the capital of France? " * 5},
        ],
        "max_tokens": 100,
    }
).encode()

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


styles = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.none() | st.just(2), "sort_keys": st.booleans()}
)


@pytest.fixture(params=["at once", "in steps"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of megabytes is read in steps; here one of a line is, too."""
    if request.param == "in steps":
        monkeypatch.setattr(long_json, "AT_ONCE", 24)
        monkeypatch.setattr(long_json, "STEP", 24)


# The step is the same for all examples.
same_step = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.usefixtures("each_way")
@same_step
@given(st.dictionaries(st.text(), values, max_size=6), styles)
def test_what_json_writes_is_read_as_it_was(
    value: dict[str, object], style: dict[str, Any]
) -> None:
    body = json.dumps(value, **style).encode()

    members = parse_object(body, limit_bytes=LIMIT)

    assert {key: json.loads(text) for key, text in members.items()} == value
    assert decode(body) == value


@pytest.mark.usefixtures("each_way")
def test_each_member_is_the_text_that_was_sent() -> None:
    body = b'{"a": 1.50 , "b" :[ 1, "\\u00e9" ],"c":{"d":null}}'

    assert parse_object(body, limit_bytes=LIMIT) == {
        "a": b"1.50",
        "b": b'[ 1, "\\u00e9" ]',
        "c": b'{"d":null}',
    }


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"nonsense", "not JSON"),
        (b'{"a":1', "not JSON"),
        (b'{"a":1}{', "trailing"),
        (b'{"a":1} x', "trailing"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        ('{"a":1}'.encode("utf-16"), "not JSON"),
        (b'{"a":"\xff"}', "byte 6 is not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\ud800x"}', "not JSON"),
        (b'{"a":"\\udc00"}', "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":Infinity}', "not JSON"),
        (b'{"a":-Infinity}', "not JSON"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":-1e999}', "out of range"),
        (b'{"a":18446744073709551616}', "out of range"),
        (b'{"a":-9223372036854775809}', "out of range"),
        (b'{"a":' + b"9" * 100_000 + b"}", "out of range"),
        (b'{"a":0.' + b"9" * 100_000 + b"}", "out of range"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":"\t"}', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":' * 100_000, "deeper than 64"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "deeper than 64"),
        (b"[" * MOST_VALUES, "deeper than 64|not JSON"),
        (b'{"a":[' + b"0," * MOST_VALUES + b"0]}", f"more than {MOST_VALUES} values"),
        (b'{"a":[' + b'"",' * (2 * MOST_VALUES) + b"0]}", f"more than {MOST_VALUES} values"),
    ],
)
def test_what_readers_disagree_about_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        parse_object(body, limit_bytes=LIMIT)

    assert caught.value.fields[0].reason
    assert caught.value.fields[0].remedy


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"a":1,"a":1}', "a"),
        (b'{"x":{"b":1,"c":2,"b":3}}', "b"),
        (b'{"x":[{"\\u0061":1,"a":1}]}', "a"),
        (b'{"":1,"":2}', ""),
        (b'{"a:b":1,"x\\"}":{},"a:b":2}', "a:b"),
    ],
)
def test_a_doubled_key_is_refused_by_name_at_any_depth(body: bytes, key: str) -> None:
    with pytest.raises(InvalidRequest, match="appears twice") as caught:
        parse_object(body, limit_bytes=LIMIT)

    assert caught.value.fields[0].field == key


@pytest.mark.usefixtures("each_way")
@same_step
@given(st.binary() | st.text(alphabet='{}[]":,\\u0019dD8eE+-. ntruefalse').map(str.encode))
def test_whatever_comes_it_is_read_as_json_reads_it_or_refused(body: bytes) -> None:
    try:
        value = decode(body)
    except InvalidRequest:
        return

    assert json.loads(body) == value


@pytest.mark.usefixtures("each_way")
def test_brackets_and_colons_inside_strings_are_text() -> None:
    body = json.dumps({"a": "{[:" * 1000 + '\\"', "b:": ["\\", '"', "\\\\"]}).encode()

    assert decode(body) == json.loads(body)


@pytest.mark.usefixtures("each_way")
def test_as_deep_as_the_limit_is_still_read() -> None:
    body = b'{"a":' + b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1) + b"}"

    assert parse_object(body, limit_bytes=LIMIT)
    with pytest.raises(InvalidRequest, match="deeper than 3"):
        parse_object(b'{"a":[[[]]]}', limit_bytes=LIMIT, max_depth=3)


def test_a_long_float_is_no_big_integer() -> None:
    assert decode(b"[0.12345678901234567890123]") == [0.12345678901234567890123]
    assert decode(b"[18446744073709551615,-9223372036854775808]") == [2**64 - 1, -(2**63)]


def test_a_body_above_the_limit_is_not_even_looked_at() -> None:
    with pytest.raises(TooLarge, match="the limit is 10"):
        parse_object(b"x" * 11, limit_bytes=10)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b"x" * 20_000_000 + b'"}',
        b'{"a":"' + b"\\n" * 5_000_000 + b'"}',
        b'"' * 10_000_000,
        b"[" * 10_000_000,
        b"{" + b'"a":1,' * 1_000_000 + b'"b":1}',
    ],
    ids=["text", "escapes", "quotes", "brackets", "members"],
)
def test_no_body_takes_long(body: bytes) -> None:
    began = time.process_time()
    with suppress(InvalidRequest):
        decode(body)

    # Far above what it takes here (0.2 s), far below what a naive reader takes.
    assert time.process_time() - began < 3


def test_a_small_body_is_cheap() -> None:
    def spent() -> float:
        began = time.process_time()
        for _ in range(200):
            parse_object(CHAT, limit_bytes=LIMIT)
        return (time.process_time() - began) / 200

    # About 8 µs; the bound leaves room for a slow and busy machine.
    assert min(spent() for _ in range(5)) < 100e-6


def test_a_route_may_allow_more_values_or_fewer() -> None:
    body = b'{"a":[1,2,3]}'

    assert parse_object(body, limit_bytes=LIMIT, most_values=4)
    with pytest.raises(InvalidRequest, match="more than 3 values"):
        parse_object(body, limit_bytes=LIMIT, most_values=3)
