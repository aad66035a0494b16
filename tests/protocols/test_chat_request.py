"""Chat requests: what the gateway reads of them, and how it refuses the rest."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.protocols.chat_request import LONGEST_MODEL, LONGEST_USER, ChatRequest

LIMIT = 32 * 1024 * 1024
HELLO = [{"role": "user", "content": "hello"}]
ATTACHMENT_BYTES = 4_800  # what any attachment counts: 1,600 tokens of three bytes
PICTURE = "data:image/png;base64," + "iVBORw0KGgo/AAA+" * 1_000
FIELDS = [
    "model", "messages", "stream", "stream_options", "max_completion_tokens", "max_tokens", "n",
    "user", "tools", "functions",
]  # fmt: skip

NO_LIMIT: list[object] = [
    0, -1, 10_000_001, 2**63, 2**64 - 1, -(2**63), 1.5, 1.0, 1e3, "5", True, [5], {},
]  # fmt: skip
BAD: dict[str, list[object]] = {
    "model": [None, 1, True, ["m"], {}, "", "m" * (LONGEST_MODEL + 1)],
    "messages": [None, "hello", 1, False, {}, {"role": "user"}, []],
    "stream": ["true", 1, 0, [], {}],
    "stream_options": [True, "usage", [], {"include_usage": "yes"}, {"include_usage": 1}],
    "max_tokens": NO_LIMIT,
    "max_completion_tokens": NO_LIMIT,
    "n": [0, -1, 129, 2**64 - 1, 1.0, "1", True, [], {}],
    "user": [1, True, ["u"], {}, "u" * (LONGEST_USER + 1)],
}


def parse(data: bytes) -> ChatRequest:
    return ChatRequest.parse(data, limit_bytes=LIMIT)


def chat(**members: Any) -> ChatRequest:
    return parse(body(**members))


def body(**members: Any) -> bytes:
    return json.dumps({"model": "stub/mock", "messages": HELLO, **members}).encode()


def says(content: object) -> bytes:
    return body(messages=[{"role": "user", "content": content}])


def text_of(data: bytes) -> bytes:
    return parse(data).body["messages"]


class TestReading:
    def test_the_smallest_request_leaves_everything_else_open(self) -> None:
        request = chat()

        assert request == ChatRequest(
            model="stub/mock",
            stream=False,
            include_usage=False,
            output_limit=None,
            user=None,
            choices=1,
            prompt_bytes=len(json.dumps(HELLO)),
            body={"model": b'"stub/mock"', "messages": json.dumps(HELLO).encode()},
        )

    def test_what_the_gateway_does_not_know_is_kept_as_it_was_sent(self) -> None:
        request = parse(
            b'{"temperature": 0.70, "model":"m", "logit_bias" :{"50256" :-100},'
            b'"messages":[{"role":"user","content":"\\u00e9"}],"later":[1e2 , null]}'
        )

        assert request.body == {
            "temperature": b"0.70",
            "model": b'"m"',
            "logit_bias": b'{"50256" :-100}',
            "messages": b'[{"role":"user","content":"\\u00e9"}]',
            "later": b"[1e2 , null]",
        }

    @pytest.mark.parametrize(
        ("members", "stream", "include_usage"),
        [
            ({"stream": True}, True, False),
            ({"stream": False}, False, False),
            ({"stream": None, "stream_options": None}, False, False),
            ({"stream": True, "stream_options": {}}, True, False),
            ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
            ({"stream": True, "stream_options": {"include_usage": None}}, True, False),
            ({"stream_options": {"include_usage": True, "later": 1}}, False, True),
        ],
    )
    def test_a_stream_and_its_usage_are_asked_for_apart(
        self, members: dict[str, Any], *, stream: bool, include_usage: bool
    ) -> None:
        request = chat(**members)

        assert (request.stream, request.include_usage) == (stream, include_usage)

    @pytest.mark.parametrize(
        ("members", "limit"),
        [
            ({}, None),
            ({"max_tokens": 5}, 5),
            ({"max_completion_tokens": 7}, 7),
            ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
            ({"max_tokens": 7, "max_completion_tokens": 5}, 5),
            ({"max_tokens": 5, "max_completion_tokens": None}, 5),
            ({"max_tokens": None, "max_completion_tokens": None}, None),
            ({"max_tokens": 1}, 1),
            ({"max_tokens": 10_000_000}, 10_000_000),
        ],
    )
    def test_max_completion_tokens_wins_over_its_older_name(
        self, members: dict[str, Any], limit: int | None
    ) -> None:
        assert chat(**members).output_limit == limit

    @pytest.mark.parametrize(("n", "choices"), [(None, 1), (1, 1), (128, 128)])
    def test_one_answer_is_wanted_unless_more_are_asked_for(
        self, n: int | None, choices: int
    ) -> None:
        assert chat(n=n).choices == choices

    @pytest.mark.parametrize("user", [None, "", "agent:main:notes", "ü" * LONGEST_USER])
    def test_a_user_may_be_named(self, user: str | None) -> None:
        assert chat(user=user).user == user

    def test_a_name_as_long_as_the_limit_is_still_a_model(self) -> None:
        assert chat(model="ü" * LONGEST_MODEL).model == "ü" * LONGEST_MODEL


class TestRefusing:
    @pytest.mark.parametrize(
        ("field", "value"),
        [(field, value) for field, values in BAD.items() for value in values],
    )
    def test_a_field_that_holds_what_it_cannot_is_named(self, field: str, value: object) -> None:
        with pytest.raises(InvalidRequest) as refused:
            chat(**{field: value})

        (error,) = refused.value.fields
        assert error.field == field
        assert error.reason
        assert refused.value.detail.startswith(f"{field}: ")

    @pytest.mark.parametrize("field", ["model", "messages"])
    def test_a_field_that_must_be_there_is_missed_by_name(self, field: str) -> None:
        members = {"model": "m", "messages": HELLO}
        del members[field]

        with pytest.raises(InvalidRequest, match=f"{field}: is missing") as refused:
            parse(json.dumps(members).encode())
        assert refused.value.fields[0].field == field

    @pytest.mark.parametrize(
        ("member", "reason"),
        [
            (b'"temperature":NaN', "not JSON"),
            (b'"temperature":-Infinity', "not JSON"),
            (b'"temperature":1e999', "out of range"),
            (b'"max_tokens":' + b"9" * 5_000, "out of range"),
            (b'"n":18446744073709551616', "out of range"),
            (b'"user":"\\ud800"', "surrogate"),
            (b'"user":"\xed\xa0\x80"', "not UTF-8"),
            (b'"user":"\xff"', "not UTF-8"),
            (b'"later":' + b"[" * 64 + b"]" * 64, "deeper than 64"),
            (b'"later":' + b'{"a":' * 1000 + b"1" + b"}" * 1000, "deeper than 64"),
            (b'"model":"other"', "appears twice"),
            (b'"later":{"a":1,"a":2}', "appears twice"),
            (b'"mod\\u0065l":"other"', "appears twice"),
        ],
    )
    def test_what_readers_disagree_about_is_refused_wherever_it_stands(
        self, member: bytes, reason: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=reason):
            parse(body()[:-1] + b"," + member + b"}")

    def test_a_message_that_cannot_be_encoded_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="surrogate"):
            parse(b'{"model":"m","messages":[{"role":"user","content":"\\udc00 x \\ud83d"}]}')

    def test_a_body_above_the_limit_is_too_large(self) -> None:
        data = body()

        assert ChatRequest.parse(data, limit_bytes=len(data))
        with pytest.raises(TooLarge):
            ChatRequest.parse(data, limit_bytes=len(data) - 1)


class TestMessages:
    def test_messages_are_decoded_on_demand_with_all_they_hold(self) -> None:
        messages = [*HELLO, {"role": "tool", "tool_call_id": "c", "content": None, "later": [1]}]

        assert chat(messages=messages).messages() == messages

    @pytest.mark.parametrize(
        ("message", "place"),
        [
            (1, "$[1]"),
            (None, "$[1]"),
            ("hello", "$[1]"),
            ([], "$[1]"),
            ({}, "`role` at `$[1]"),
            ({"content": "hello"}, "`role` at `$[1]"),
            ({"role": None}, "$[1].role"),
            ({"role": 1}, "$[1].role"),
        ],
    )
    def test_one_without_a_role_is_refused_and_its_place_is_told(
        self, message: object, place: str
    ) -> None:
        request = chat(messages=[*HELLO, message])

        with pytest.raises(InvalidRequest) as refused:
            request.messages()
        assert refused.value.fields[0].field == "messages"
        assert place in refused.value.fields[0].reason


class TestPromptBytes:
    def test_tools_and_functions_are_part_of_the_prompt(self) -> None:
        tools = [{"type": "function", "function": {"name": "look_up"}}]
        size = chat().prompt_bytes

        assert chat(tools=tools).prompt_bytes == size + len(json.dumps(tools))
        assert chat(functions=tools).prompt_bytes == size + len(json.dumps(tools))
        assert chat(metadata=tools, user="x" * 500).prompt_bytes == size

    @pytest.mark.parametrize(
        "url", [PICTURE, PICTURE.replace("png", "PNG"), PICTURE.replace("png", "svg+xml;name=a")]
    )
    @pytest.mark.parametrize(
        "part",
        [
            lambda url: {"type": "image_url", "image_url": {"url": url}},
            lambda url: {"type": "image_url", "image_url": {"detail": "low", "url": url}},
            lambda url: {"type": "image_url", "image_url": url},
            lambda url: {"type": "file", "file": {"filename": "a.pdf", "file_data": url}},
        ],
    )
    def test_an_attachment_counts_as_one_however_large_it_is(
        self, part: Callable[[str], dict[str, Any]], url: str
    ) -> None:
        data = says([{"type": "text", "text": "look"}, part(url)])

        assert parse(data).prompt_bytes == len(text_of(data)) - len(url) + ATTACHMENT_BYTES

    @pytest.mark.parametrize(
        "written",
        [
            lambda text: text.replace("/", "\\/"),
            lambda text: text.replace('": "', '":"'),
            lambda text: text.replace('": "', '"\n :\t "'),
        ],
    )
    def test_it_counts_the_same_however_its_json_is_written(
        self, written: Callable[[str], str]
    ) -> None:
        data = written(says([{"type": "image_url", "image_url": {"url": PICTURE}}]).decode())

        assert parse(data.encode()).prompt_bytes < ATTACHMENT_BYTES + 200

    def test_each_attachment_counts(self) -> None:
        part = {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGOD"}}
        data = says([part] * 3)
        around = len(text_of(data)) - 3 * len("data:image/gif;base64,R0lGOD")

        assert parse(data).prompt_bytes == around + 3 * ATTACHMENT_BYTES

    @pytest.mark.parametrize(
        "content",
        [
            "data:x;base64," + "tell me more " * 5_000,
            'look: {"url": "data:x;base64,' + "tell me more " * 5_000,
            '"url":"data:x;base64,' + "A" * 65_000,
            [{"type": "text", "text": "data:image/png;base64," + "A" * 65_000}],
            [{"type": "text", "text": '"file_data" : "data:a/b;base64,' + "A" * 65_000}],
            [{"type": "image_url", "image_url": {"url": "data:text/plain," + "a" * 65_000}}],
        ],
    )
    def test_text_about_attachments_costs_what_text_costs(self, content: object) -> None:
        data = says(content)

        assert parse(data).prompt_bytes == len(text_of(data)) > 65_000

    @pytest.mark.parametrize("piece", ["data:", '"url":"data:', "data:;base64,", '"url":"data:a;'])
    def test_counting_takes_time_in_proportion(self, piece: str) -> None:
        data = says([piece * 200_000, {"url": piece * 200_000}])
        began = time.process_time()
        parse(data)

        assert time.process_time() - began < 1


any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
good_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def check(request: ChatRequest) -> None:
    assert 1 <= len(request.model) <= LONGEST_MODEL
    assert request.user is None or len(request.user) <= LONGEST_USER
    assert request.output_limit is None or 1 <= request.output_limit <= 10_000_000
    assert 1 <= request.choices <= 128
    assert request.prompt_bytes > 0
    with suppress(InvalidRequest):
        assert all(isinstance(message["role"], str) for message in request.messages())


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(), any_json, max_size=8))
def test_whatever_object_comes_it_is_read_or_refused(members: dict[str, object]) -> None:
    with suppress(InvalidRequest):
        check(parse(json.dumps(members).encode()))


@given(st.dictionaries(st.sampled_from(FIELDS), any_json, max_size=3))
def test_whatever_is_changed_in_a_good_request_it_is_read_or_refused(
    members: dict[str, object],
) -> None:
    with suppress(InvalidRequest):
        check(chat(**members))


@given(st.sampled_from(FIELDS), good_json)
def test_the_one_field_that_is_wrong_is_the_one_that_is_named(field: str, value: object) -> None:
    try:
        request = chat(**{field: value})
    except InvalidRequest as exc:
        fields = [error.field for error in exc.fields]
    else:
        fields = [field]
        check(request)
        assert json.loads(request.body[field]) == value
    assert fields == [field]


@given(st.binary(max_size=200), st.integers(0, 300))
def test_whatever_bytes_come_they_are_refused_in_one_of_two_ways(data: bytes, limit: int) -> None:
    with pytest.raises((InvalidRequest, TooLarge)):
        ChatRequest.parse(data, limit_bytes=limit)


@given(st.data())
def test_a_request_that_is_cut_off_anywhere_is_refused(data: st.DataObject) -> None:
    whole = body(stream=True, user="é", n=1)
    cut = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(InvalidRequest):
        parse(whole[:cut])
