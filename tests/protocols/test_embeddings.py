"""Embeddings in OpenAI's form: requests, answers of providers, and ours."""

import base64
import contextlib
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.embeddings import EmbeddingAnswer, EmbeddingCall, Encoding, Numbers, Packed
from appliance.model.errors import InvalidRequest, TooLarge
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import AnswerFailed, ErrorReported, MalformedAnswer
from appliance.protocols.embeddings import (
    MOST_INPUTS,
    MOST_TOKENS,
    EmbeddingRequest,
    encode_request,
    joined,
    largest_answer,
    numbers_of,
    read_answer,
    shortened,
    write_answer,
)

LIMIT = 20 * 1024 * 1024
USED = TokenUsage(input=7)


def parse(**members: Any) -> EmbeddingRequest:
    body = {"model": "stub/mock", "input": "a", **members}
    text = json.dumps({name: value for name, value in body.items() if value is not ...})
    return EmbeddingRequest.parse(text.encode(), limit_bytes=LIMIT)


def packed(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def in_base64(*numbers: float) -> str:
    return base64.b64encode(packed(*numbers)).decode()


def call(size: int = 1, **fields: Any) -> EmbeddingCall:
    return EmbeddingCall(model="mock", texts=("x",) * size, **fields)


def answer(*vectors: Any, **members: Any) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    body = {"object": "list", "data": data, "model": "told", "usage": {"prompt_tokens": 7}}
    return json.dumps({**body, **members}).encode()


# -- requests -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "texts", "tokens", "size"),
    [
        ("héllo", ("héllo",), (), 6),
        (["a", "bc"], ("a", "bc"), (), 3),
        ([1, 2, 3], (), ((1, 2, 3),), 12),
        ([[1, 2], [3]], (), ((1, 2), (3,)), 12),
        ([[0, 2**31 - 1]], (), ((0, 2**31 - 1),), 8),
    ],
)
def test_texts_and_tokens_come_alone_or_several(
    given: Any, texts: tuple[str, ...], tokens: tuple[tuple[int, ...], ...], size: int
) -> None:
    request = parse(input=given)

    assert (request.call.texts, request.call.tokens) == (texts, tokens)
    assert request.call.size == len(texts) + len(tokens)
    assert request.prompt_bytes == size


def test_all_that_is_said_is_read() -> None:
    request = parse(encoding_format="base64", dimensions=256, user="u1", service_tier=None)

    assert request.call == EmbeddingCall(
        model="stub/mock",
        texts=("a",),
        encoding=Encoding.BASE64,
        dimensions=256,
        user="u1",
    )


def test_null_is_as_good_as_nothing() -> None:
    assert parse(encoding_format=None, dimensions=None, user=None) == parse()


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"input": ...}, "input"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": ["a", [1]]}, "input[1]"),
        ({"input": [[1], "a"]}, "input[1]"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [1, [1]]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": [None]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [[1], [2**31]]}, "input[1]"),
        ({"input": ["a"] * (MOST_INPUTS + 1)}, "input"),
        ({"input": [[1]] * (MOST_INPUTS + 1)}, "input"),
        ({"input": [1] * (MOST_TOKENS + 1)}, "input"),
        ({"input": [[1] * 1000] * 301}, "input"),
        ({"model": ...}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"model": "m" * 257}, "model"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"encoding_format": 1}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 65_537}, "dimensions"),
        ({"dimensions": "many"}, "dimensions"),
        ({"user": 1}, "user"),
        ({"user": "u" * 513}, "user"),
        ({"input_type": "query"}, "input_type"),
        ({"truncate": "END"}, "truncate"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**members)

    assert refused.value.fields[0].field == field
    assert len(refused.value.detail) < 500


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"input": NaN}',
        b'{"model":"a","model":"b","input":"x"}',
        b"\xff",
        b'{"model":"m","input":"\\ud800"}',
        b'{"model":"m","input":' + b"[" * 200 + b"]" * 200 + b"}",
    ],
)
def test_a_body_that_readers_disagree_about_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        EmbeddingRequest.parse(body, limit_bytes=LIMIT)


def test_the_largest_that_is_allowed_is_read() -> None:
    each = [100_000] * (MOST_TOKENS // MOST_INPUTS)

    assert parse(input=[each] * MOST_INPUTS).call.size == MOST_INPUTS
    with pytest.raises(TooLarge):
        EmbeddingRequest.parse(b" " * 100, limit_bytes=99)


@given(st.binary(max_size=60))
def test_nothing_else_comes_of_any_bytes(body: bytes) -> None:
    for text in (body, b'{"model":"m","input":' + body + b"}"):
        with contextlib.suppress(InvalidRequest):
            EmbeddingRequest.parse(text, limit_bytes=LIMIT)


def test_a_provider_is_asked_for_no_more_than_the_caller_said() -> None:
    plain = json.loads(encode_request(parse().call))
    full = parse(input=[[1, 2]], encoding_format="base64", dimensions=2, user="u")

    assert plain == {"model": "stub/mock", "input": ["a"]}
    assert json.loads(encode_request(full.call)) == {
        "model": "stub/mock",
        "input": [[1, 2]],
        "encoding_format": "base64",
        "dimensions": 2,
        "user": "u",
    }


# -- answers ------------------------------------------------------------------


@pytest.mark.parametrize("asked", list(Encoding))
def test_a_provider_may_answer_in_either_form(asked: Encoding) -> None:
    found = read_answer(answer([0.5, -1], in_base64(0.5, -1)), call(2, encoding=asked))

    assert found == EmbeddingAnswer(
        "told", [Numbers(b"[0.5, -1]"), Packed(packed(0.5, -1))], USED, 2
    )
    assert [list(numbers_of(vector)) for vector in found.vectors] == [[0.5, -1]] * 2


def test_numbers_are_passed_on_to_the_last_digit() -> None:
    text = b'{"data":[{"embedding":[0.0023064255,-1e-9]}]}'
    found = read_answer(text, call())

    written = write_answer(found, encoding=Encoding.FLOAT, usage=USED)

    assert b'"embedding":[0.0023064255,-1e-9]' in written
    assert found.model == "mock"
    assert found.usage is None


def test_vectors_are_put_in_the_order_of_their_index() -> None:
    data = [{"index": 1, "embedding": [1]}, {"index": 0, "embedding": [0]}]

    found = read_answer(answer(data=data), call(2))

    assert [list(numbers_of(vector)) for vector in found.vectors] == [[0], [1]]


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 7, "total_tokens": 9}, 7),
        ({"total_tokens": 9}, 9),
        ({"prompt_tokens": 7.0}, 7),
        ({"prompt_tokens": 0}, None),
        ({"prompt_tokens": -5}, None),
        ({"prompt_tokens": "7"}, None),
        ({}, None),
        (None, None),
        ([1], None),
        ("x", None),
    ],
)
def test_usage_that_is_not_told_is_left_to_the_meter(usage: Any, read: int | None) -> None:
    found = read_answer(answer([1], usage=usage), call())

    assert found.usage == (None if read is None else TokenUsage(input=read))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"data":null}',
        b'{"data":[{}]}',
        answer([1])[:-5],
        answer(),
        answer([1], [2]),
        answer([]),
        answer([[1]]),
        answer(["a"]),
        answer([None]),
        answer([True]),
        answer(None),
        answer({"0": 1}),
        answer(""),
        answer("AAA="),
        answer("not base64!"),
        answer(in_base64(math.nan)),
        answer(in_base64(math.inf, 1)),
        b'{"data":[{"embedding":[NaN]}]}',
        b'{"data":[{"embedding":[1e999]}]}',
        b'{"data":[{"embedding":[1e39]}]}',
        b'{"data":[{"embedding":[1e39,-1e39]}]}',
        answer([0.0] * 65_537),
        answer(data=[{"index": 1, "embedding": [1]}]),
        answer(data=[{"index": "0", "embedding": [1]}]),
        b"[" * 100_000,
    ],
    ids=lambda text: text[:60].decode(),
)
def test_an_answer_that_is_not_whole_is_none(text: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        read_answer(text, call())


@pytest.mark.parametrize(
    "vectors", [([1, 2], [1]), ([1], in_base64(1, 2))], ids=["numbers", "mixed"]
)
def test_vectors_of_different_lengths_are_no_answer(vectors: tuple[Any, ...]) -> None:
    with pytest.raises(MalformedAnswer, match="one length"):
        read_answer(answer(*vectors), call(2))


@pytest.mark.parametrize("index", [(0, 0), (0, 2), (1, 2), (-1, 0), (None, 0)])
def test_indexes_that_are_not_the_inputs_are_no_answer(index: tuple[Any, Any]) -> None:
    data = [{"index": i, "embedding": [1]} for i in index]

    with pytest.raises(MalformedAnswer, match="index"):
        read_answer(answer(data=data), call(2))


def test_an_error_with_a_good_status_is_read() -> None:
    with pytest.raises(ErrorReported) as reported:
        read_answer(b'{"error":{"message":"no room","type":"overloaded_error"}}', call())

    assert reported.value.error.message == "no room"


@given(st.binary(max_size=80))
def test_no_answer_ends_in_anything_but_these_failures(body: bytes) -> None:
    for text in (body, b'{"data":[{"embedding":' + body + b"}]}", b'{"data":[],"usage":' + body):
        with contextlib.suppress(AnswerFailed):
            read_answer(text, call())


@given(
    st.lists(
        st.lists(
            st.floats(
                width=32,
                allow_nan=False,
                allow_infinity=False,
                max_value=2.0**90,
                min_value=-(2.0**90),
            ),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(Encoding),
    st.sampled_from(Encoding),
)
def test_what_is_written_in_either_form_is_read_again(
    vectors: list[list[float]], encoding: Encoding, told_in: Encoding
) -> None:
    told = [in_base64(*each) if told_in is Encoding.BASE64 else each for each in vectors]
    found = read_answer(answer(*told), call(len(vectors)))

    body = json.loads(write_answer(found, encoding=encoding, usage=USED))

    assert body["object"] == "list"
    assert body["model"] == "told"
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [each["index"] for each in body["data"]] == list(range(len(vectors)))
    for each, vector in zip(body["data"], vectors, strict=True):
        assert each["object"] == "embedding"
        written = each["embedding"]
        if encoding is Encoding.BASE64:
            written = list(struct.unpack(f"<{len(vector)}f", base64.b64decode(written)))
        assert written == vector


def test_shortened_vectors_have_length_one() -> None:
    found = read_answer(answer([3, 4, 12], [0, 0, 1]), call(2))

    short = shortened(found, 2)

    assert short.dimensions == 2
    assert list(numbers_of(short.vectors[0])) == pytest.approx([0.6, 0.8])
    assert list(numbers_of(short.vectors[1])) == [0, 0]


def test_answers_are_joined_in_order() -> None:
    one, other = read_answer(answer([1]), call()), read_answer(answer([2], usage=None), call())

    both = joined([one, other])

    assert [list(numbers_of(vector)) for vector in both.vectors] == [[1], [2]]
    assert both.usage == USED
    assert joined([other]).usage is None


def test_a_large_batch_may_have_a_large_answer() -> None:
    assert largest_answer(call()) < 2 * 1024 * 1024
    assert largest_answer(call(2048)) > 2048 * 3072 * 25
