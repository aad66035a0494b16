"""JSON of megabytes, read in steps: the same as at once, and nobody else has to wait."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.protocols import long_json
from appliance.protocols.json_body import MOST_VALUES, parse_object
from appliance.protocols.long_json import Hollow, TooManyQuotes, Unterminated, decode, encode

# What a cut may fall into: escapes, pairs of them, characters of several bytes, our own mark.
CUT = ("a", "é", "😀", "\\", '"', "\n", "\0", "\x000", "\ud7ff", "\\u0041", "{:[")
words = st.lists(st.sampled_from(CUT), max_size=120).map("".join)
values = st.recursive(
    words | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
many = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[24, 31, 100])
def step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_json, "AT_ONCE", request.param)
    monkeypatch.setattr(long_json, "STEP", request.param)
    monkeypatch.setattr(long_json, "_LONG_AND_PLAIN", 64)


@pytest.mark.usefixtures("step")
@many
@given(value=st.dictionaries(words, values, max_size=3), escaped=st.booleans())
def test_wherever_it_is_cut_it_says_the_same(value: dict[str, object], *, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()

    hollow = Hollow.of(body, most_quotes=len(body))

    assert hollow.value() == decode(body) == value
    assert {name: json.loads(text) for name, text in hollow.members().items()} == value
    assert all(text in body for text in hollow.members().values())


@pytest.mark.usefixtures("step")
@many
@given(st.lists(st.sampled_from([b"\\ud83d", b"\\ude00", b"\\", b"u00", b"\xf0\x9f", b"x" * 9])))
def test_what_is_broken_is_broken_in_steps_too(parts: list[bytes]) -> None:
    body = b'["' + b"".join(parts) + b"x" * 80 + b'"]'
    try:
        expected = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, Unterminated)):
            Hollow.of(body, most_quotes=9).value()
    else:
        assert Hollow.of(body, most_quotes=9).value() == expected


@pytest.mark.usefixtures("step")
@many
@given(values)
def test_it_is_written_as_at_once(value: object) -> None:
    assert encode(value) == msgspec.json.encode(value)


def test_a_callers_string_is_never_taken_for_a_mark() -> None:
    value = {"\x000": "\x001", "b": ["x" * 2000, "\x000", "\0", "\0zero", '"\x000', "\\"]}
    body = json.dumps(value).encode()

    assert Hollow.of(body, most_quotes=99).value() == value
    assert json.loads(Hollow.of(body, most_quotes=99).members()["b"]) == value["b"]


def test_what_is_outside_of_strings_is_told() -> None:
    hollow = Hollow.of(b' {"a:b": [1, "%b"]}' % (b"{" * 2000), most_quotes=4)

    assert hollow.skeleton == b" {: [1, ]}"
    assert len(hollow.text) < 40


def test_strings_are_bounded_in_number_and_have_an_end() -> None:
    with pytest.raises(TooManyQuotes):
        Hollow.of(b'["a","b"]', most_quotes=3)
    with pytest.raises(Unterminated):
        Hollow.of(b'["a\\"]', most_quotes=3)


MEGABYTES = 20_000_000
DEAR: dict[str, Callable[[], bytes]] = {
    "text": lambda: b'{"a":"%b"}' % (b"x" * MEGABYTES),
    "escapes": lambda: b'{"a":"%b"}' % (b"\\n" * (MEGABYTES // 2)),
    "a name": lambda: b'{"%b":1}' % (b"\\n" * (MEGABYTES // 2)),
    "blanks": lambda: b'{"a":[%b1]}' % (b" " * MEGABYTES),
    "digits": lambda: b'{"a":%b}' % (b"1" * MEGABYTES),
    "numbers": lambda: b'{"a":[%b1]}' % (b"123456789012345678," * (MOST_VALUES - 9)),
    "strings": lambda: b'{"a":[%b1]}' % (b'"%b",' % (b"\\n" * 90) * (MOST_VALUES - 9)),
    "no end": lambda: b'{"a":"%b' % (b"\\n" * (MEGABYTES // 2)),
}


@pytest.mark.parametrize("make", DEAR.values(), ids=DEAR)
def test_nobody_waits_while_a_body_is_read(make: Callable[[], bytes]) -> None:
    body = make()

    def read() -> None:
        with suppress(InvalidRequest):
            parse_object(body, limit_bytes=len(body))

    # About 20 ms here. What else runs on a machine makes it longer, not each time.
    assert min(_longest_wait(read) for _ in range(3)) < 0.12


def _longest_wait(work: Callable[[], None]) -> float:
    thread = threading.Thread(target=work)
    thread.start()
    longest = 0.0
    while thread.is_alive():
        began = time.perf_counter()
        time.sleep(0.001)
        longest = max(longest, time.perf_counter() - began)
    return longest
