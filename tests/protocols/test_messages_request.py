"""What is read of a request to the Messages API before a model sees it."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.protocols.messages_request import (
    NEWEST_VERSION,
    OLDEST_VERSION,
    MessagesRequest,
    read_betas,
    read_version,
)

LIMIT = 1_000_000
SAID = [{"role": "user", "content": "hello"}]


def body(**members: Any) -> bytes:
    request = {"model": "m", "max_tokens": 10, "messages": SAID, **members}
    return json.dumps({k: v for k, v in request.items() if v is not ...}).encode()


def parse(version: str = OLDEST_VERSION, **members: Any) -> MessagesRequest:
    return MessagesRequest.parse(body(**members), limit_bytes=LIMIT, version=version)


def test_a_minimal_request() -> None:
    request = parse()

    assert (request.model, request.output_limit, request.stream, request.user) == (
        "m",
        10,
        False,
        None,
    )
    assert request.body["messages"] == json.dumps(SAID).encode()


def test_who_asks_and_how_the_answer_travels() -> None:
    request = parse(stream=True, metadata={"user_id": "u", "other": 1}, system=[{"type": "text"}])

    assert request.stream
    assert request.user == "u"
    assert parse(stream=None, metadata=None, system=None).user is None


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"model": ...}, "model"),
        ({"model": ""}, "model"),
        ({"model": "x" * 300}, "model"),
        ({"model": 1}, "model"),
        ({"model": None}, "model"),
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages"),
        ({"messages": [{}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"stream": 1}, "stream"),
        ({"system": 1}, "system"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"user_id": 1}}, "metadata"),
        ({"metadata": {"user_id": "x" * 600}}, "metadata.user_id"),
    ],
)
def test_what_is_wrong_is_refused_by_name(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**members)

    assert refused.value.fields[0].field == field
    assert field in refused.value.detail


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"not json",
        b'{"model":"m","model":"n"}',
        b'{"model":"\\ud800"}',
        b'{"max_tokens":NaN}',
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ],
)
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        MessagesRequest.parse(text, limit_bytes=LIMIT)


def test_a_body_over_the_limit_is_refused() -> None:
    with pytest.raises(TooLarge):
        MessagesRequest.parse(body(), limit_bytes=10)


def test_a_prompt_to_count_needs_no_limit() -> None:
    request = MessagesRequest.parse_prompt(body(max_tokens=...), limit_bytes=LIMIT)

    assert request.output_limit is None
    assert request.estimated_tokens == -(-len(json.dumps(SAID)) // 4)


def test_the_prompt_is_all_that_the_model_reads() -> None:
    bare = parse().prompt_bytes

    assert bare == len(json.dumps(SAID))
    assert parse(system="x" * 100).prompt_bytes == bare + 102
    assert parse(tools=[{"name": "x" * 100}]).prompt_bytes > bare + 100
    assert parse(metadata={"user_id": "x" * 100}).prompt_bytes == bare


def picture(**source: Any) -> dict[str, Any]:
    return {"type": "image", "source": source}


def test_a_picture_counts_the_same_however_large() -> None:
    def size(*blocks: dict[str, Any]) -> int:
        return parse(messages=[{"role": "user", "content": list(blocks)}]).prompt_bytes

    def sent(length: int) -> dict[str, Any]:
        return picture(type="base64", media_type="image/png", data="A" * length)

    other_order = picture(data="A" * 100_000, media_type="image/png", type="base64")
    document = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 100_000},
    }
    assert size(sent(100_000)) == size(sent(8)) == pytest.approx(4_900, abs=100)
    assert size(other_order) == pytest.approx(4_900, abs=120)
    assert size(sent(9_000), sent(9_000)) == pytest.approx(9_800, abs=200)
    # As long as a document is, so much it may cost.
    assert size(document) > 100_000
    said = json.dumps(picture(type="base64", media_type="image/png", data="A" * 9_000))
    assert size({"type": "text", "text": said}) > 9_000


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_the_newer_version_has_no_sampling_parameters(name: str) -> None:
    member: dict[str, Any] = {name: 1}
    assert parse(**member).body[name] == b"1"
    assert parse(NEWEST_VERSION).model == "m"
    with pytest.raises(InvalidRequest) as refused:
        parse(NEWEST_VERSION, **member)

    assert refused.value.fields[0].field == name


@pytest.mark.parametrize(
    ("role", "block", "field"),
    [
        ("assistant", {"type": "document", "source": {}}, "messages.1.content.0"),
        (
            "user",
            {"type": "text", "text": "x", "citations": [{}]},
            "messages.1.content.0.citations",
        ),
        ("user", {"type": "document", "source": {}}, None),
        ("user", {"type": "text", "text": "x", "citations": []}, None),
        ("assistant", {"type": "text", "text": "x", "citations": [{}]}, None),
    ],
)
def test_the_newer_version_knows_where_a_block_may_stand(
    role: str, block: dict[str, Any], field: str | None
) -> None:
    messages = [*SAID, {"role": role, "content": [block]}]
    assert parse(messages=messages).model == "m"

    if field is None:
        assert parse(NEWEST_VERSION, messages=messages).model == "m"
        return
    with pytest.raises(InvalidRequest) as refused:
        parse(NEWEST_VERSION, messages=messages)
    assert refused.value.fields[0].field == field


def test_without_a_version_the_oldest_is_spoken() -> None:
    assert read_version(None) == OLDEST_VERSION
    assert read_version(NEWEST_VERSION) == NEWEST_VERSION


@pytest.mark.parametrize("header", ["", "2023-06-02", "2026-10-21 ", "9999-01-01", "x" * 1000])
def test_a_version_there_is_not_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest, match="not a valid version"):
        read_version(header)


def test_beta_features_are_one_list() -> None:
    assert read_betas([]) == ""
    assert read_betas(["a-2025-01-01, b.c", "a-2025-01-01"]) == "a-2025-01-01,b.c"


@pytest.mark.parametrize("header", ["a b", "x\r\ny: z", "ä", "a," * 100, "x" * 101, '"'])
def test_what_is_no_list_of_features_is_refused(header: str) -> None:
    names = [f"{header}{n}" for n in range(60)] if header == "a," * 100 else [header]
    with pytest.raises(InvalidRequest, match="anthropic-beta"):
        read_betas(names)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["model", "max_tokens", "messages", "stream", "system", "metadata", "top_k", "tools"]
        ),
        json_values,
    ),
    st.sampled_from([OLDEST_VERSION, NEWEST_VERSION]),
)
def test_nothing_is_more_than_a_refusal(members: dict[str, Any], version: str) -> None:
    with suppress(InvalidRequest):
        MessagesRequest.parse(body(**members), limit_bytes=LIMIT, version=version)
