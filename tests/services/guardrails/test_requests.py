"""Looking through a request of any dialect."""

import base64
import contextlib
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.guardrail_schema import compile_pattern
from appliance.model.errors import GuardrailBlocked, InvalidRequest
from appliance.protocols.responses import seals
from appliance.services.guardrails import personal_data
from appliance.services.guardrails.requests import effort, guarded_body
from appliance.services.guardrails.windows import Detector, Watch

SECRET = Detector("words", "redact", "", compile_pattern("secret"))


EMAIL = Detector("pii", "redact", "email", personal_data.pattern_of("email"))
CARD = Detector("pii", "redact", "card", personal_data.pattern_of("card"))


def looked_at(
    body: dict[str, object], *detectors: Detector, unseen: Sequence[Watch] = ()
) -> dict[str, object]:
    raw = {name: json.dumps(value).encode() for name, value in body.items()}
    seen = guarded_body(raw, detectors, lambda _: None, unseen=unseen)
    return {name: json.loads(value) for name, value in seen.items()}


def guarded(**body: object) -> dict[str, object]:
    return looked_at(body, SECRET)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "a secret"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a secret"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "c", "function": {"name": "f", "arguments": '{"a": "secret"}'}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "c", "type": "custom", "custom": {"name": "f", "input": "a secret"}}]}]},
        {"input": [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "secret"}]},
        {"input": [{"type": "custom_tool_call_output", "call_id": "c", "output": "secret"}]},
        {"tools": [{"type": "custom", "custom": {"name": "f", "description": "a secret", "format": {
            "type": "grammar", "grammar": {"syntax": "lark", "definition": "start: secret"}}}}]},
        {"tools": [{"type": "custom", "name": "f", "format": {
            "type": "grammar", "syntax": "lark", "definition": "start: secret"}}]},
        {"system": [{"type": "text", "text": "secret"}]},
        {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "f", "input": {"name": "secret"}}]}]},
        {"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "secret"}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a", "citations": [
            {"type": "char_location", "cited_text": "a secret", "document_title": "secret"}]}]}]},
        {"input": "a secret"},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "secret"}]},
        {"instructions": "secret"},
        # What names a person to the provider, and what nobody here knows.
        {"user": "secret", "metadata": {"secret": "a secret"}},
        {"documents": [{"type": "secret", "name": "secret"}], "stop": ["secret"]},
        {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "f", "input": {"secret": ["secret"]}}]}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"secret": {"type": "string"}},
            "required": ["secret"]}}}]},
    ],
)  # fmt: skip
def test_every_text_is_looked_at(body: dict[str, object]) -> None:
    assert json.dumps(guarded(**body)) == json.dumps(body).replace("secret", "[redacted]")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,secret"}}]}]},
        {"messages": [{"role": "tool", "tool_call_id": "secret", "content": "x"}]},
        {"input": [{"type": "image_generation_call", "id": "ig_1", "result": "secret"}]},
        {"model": "secret", "tool_choice": "secret", "reasoning_effort": "secret"},
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a", "citations": [
            {"type": "web_search_result_location", "encrypted_index": "secret"}]}]}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {
            "type": "secret", "properties": {"a": {"$ref": "#/secret"}}}}}]},
        {"messages": []},
    ],
)  # fmt: skip
def test_references_settings_and_pictures_are_left_alone(body: dict[str, object]) -> None:
    raw = {name: json.dumps(value).encode() for name, value in body.items()}

    assert guarded_body(raw, [SECRET], lambda _: None) is raw


def base64_of(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def data_url(text: str | bytes, kind: str = "text/plain") -> str:
    return f"data:{kind};base64,{base64_of(text)}"


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        # Escapes in arguments, which are JSON in a text.
        (
            {"input": [{"type": "function_call", "arguments": '{"a":"\\u0073ecret"}'}]},
            {"input": [{"type": "function_call", "arguments": '{"a":"[redacted]"}'}]},
        ),
        (
            {"input": [{"type": "compaction", "encrypted_content": seals.seal_summary("secret")}]},
            {
                "input": [
                    {"type": "compaction", "encrypted_content": seals.seal_summary("[redacted]")}
                ]
            },
        ),
        (
            {"input": [{"type": "input_file", "file_data": data_url("a secret")}]},
            {"input": [{"type": "input_file", "file_data": data_url("a [redacted]")}]},
        ),
        (
            {"response_format": {"json_schema": {"name": "x", "schema": {"title": "secret"}}}},
            {"response_format": {"json_schema": {"name": "x", "schema": {"title": "[redacted]"}}}},
        ),
        (
            {"text": {"format": {"type": "json_schema", "schema": {"const": "secret"}}}},
            {"text": {"format": {"type": "json_schema", "schema": {"const": "[redacted]"}}}},
        ),
    ],
)
def test_wrapping_hides_nothing(body: dict[str, object], seen: dict[str, object]) -> None:
    assert guarded(**body) == seen


@pytest.mark.parametrize(
    "url", ["data:text/plain,a secret", "data:text/plain;base64,/w==", "data:TEXT/html;base64,?"]
)
def test_a_document_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        guarded(input=[{"type": "input_file", "file_data": url}])


@pytest.mark.parametrize(
    "kind",
    [
        "text/csv",
        "text/markdown;charset=utf-8",
        "application/json",
        "application/vnd.api+json",
        "image/svg+xml",
        "application/octet-stream",
        "application/pdf",
        "",
    ],
)
def test_a_document_is_read_whatever_it_is_called(kind: str) -> None:
    file = {"filename": "x", "file_data": data_url("a secret", kind)}
    chat = [{"role": "user", "content": [{"type": "file", "file": file}]}]
    claude = [{"role": "user", "content": [
        {"type": "document", "source": {
            "type": "base64", "media_type": kind, "data": base64_of("a secret")}}]}]  # fmt: skip

    for messages in (chat, claude):
        seen = json.dumps(guarded(messages=messages))
        assert base64_of("a [redacted]") in seen
        assert base64_of("a secret") not in seen


def test_a_file_without_a_url_around_it_is_read() -> None:
    def part(text: str) -> dict[str, object]:
        return {"type": "input_file", "filename": "a.txt", "file_data": base64_of(text)}

    assert guarded(input=[part("a secret")]) == {"input": [part("a [redacted]")]}


@pytest.mark.parametrize(
    "data",
    [b"%PDF-1.7 secret", b"PK\x03\x04secret\0", b"secret\xff", b"x" * 5000 + b"secret\xff"],
)
def test_what_is_no_text_is_left_as_it_is(data: bytes) -> None:
    part = {"type": "input_file", "file_data": data_url(data, "application/pdf")}

    assert guarded(input=[part]) == {"input": [part]}


PDF = data_url(b"%PDF-1.7", "application/pdf")


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("file", {"type": "file", "file": {"file_data": PDF}}),
        ("file", {"type": "file", "file": {"file_id": "f"}}),
        ("file", {"type": "input_file", "file_url": "https://example.org/x"}),
        ("file", {"type": "input_file", "file_data": PDF}),
        ("file", {"type": "document", "source": {"type": "url", "url": "https://example.org"}}),
        ("file", {"type": "document", "source": {
            "type": "base64", "media_type": "application/pdf", "data": base64_of(b"%PDF")}}),
        ("file", {"type": "container_upload", "file_id": "f"}),
        ("image", {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}),
        ("image", {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}),
        ("image", {"type": "image", "source": {
            "type": "base64", "media_type": "image/png", "data": "AAAA"}}),
        ("audio", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_through_may_be_refused_or_taken_out(
    kind: str, part: dict[str, object]
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]
    raw = {"messages": json.dumps(messages).encode()}
    met: list[Watch] = []
    unseen = [Watch("closed", "block", kind)]

    guarded_body(raw, [], met.append, unseen=unseen)
    assert met == unseen
    out = looked_at({"messages": messages}, unseen=[Watch("closed", "redact", kind)])
    assert out["messages"] == [
        {"role": "user", "content": [
            {"type": "text", "text": "look"}, {"type": "text", "text": f"[{kind}]"}]}
    ]  # fmt: skip
    others = [Watch("closed", "redact", each) for each in {"file", "image", "audio"} - {kind}]
    assert looked_at({"messages": messages}, unseen=others) == {"messages": messages}


def test_a_picture_that_a_provider_drew_is_left_out_as_an_item() -> None:
    drawn = {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}
    said = {"role": "user", "content": "hi"}

    assert looked_at({"input": [drawn, said]}, unseen=[Watch("closed", "redact", "image")]) == {
        "input": [said]
    }


def test_what_can_be_looked_through_is_no_unseen_attachment() -> None:
    documents: list[dict[str, object]] = [
        {"type": "document", "source": {"type": "text", "data": "x"}},
        {"type": "document", "source": {"type": "content", "content": "x"}},
        {"type": "input_file", "file_data": data_url("x", "text/csv")},
    ]
    body: dict[str, object] = {"messages": [{"role": "user", "content": documents}]}

    assert looked_at(body, unseen=[Watch("closed", "redact", "file")]) == body


def test_a_speaker_is_given_a_name_that_providers_take() -> None:
    messages = [{"role": "user", "name": "ann@example.org", "content": "hi"}]

    assert looked_at({"messages": messages}, EMAIL) == {
        "messages": [{"role": "user", "name": "_email_", "content": "hi"}]
    }


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "function", "function": {"name": "my-secret"}}]},
        {"tools": [{"name": "secret", "input_schema": {}}]},
        {"tool_choice": {"type": "function", "function": {"name": "secret"}}},
        {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "secret", "input": {}}]}]},
        {"messages": [{"role": "function", "name": "secret", "content": "x"}]},
        {"input": [{"type": "function_call", "name": "secret", "arguments": "{}"}]},
    ],
)  # fmt: skip
def test_a_name_that_others_refer_to_is_not_redacted_but_blocked(body: dict[str, object]) -> None:
    with pytest.raises(GuardrailBlocked, match="'words': it is met in the name of a tool") as no:
        guarded(**body)

    assert "secret" not in no.value.detail
    flag = Detector("words", "flag", "", SECRET.pattern)
    assert looked_at(body, flag) == body


SIGNED = {"type": "thinking", "thinking": "my secret", "signature": "abc"}


def test_a_signed_thought_that_would_be_changed_is_left_out() -> None:
    said = {"type": "text", "text": "a secret"}
    clean = {"type": "thinking", "thinking": "hm", "signature": "abc"}
    unsigned = {"type": "thinking", "thinking": "a secret", "signature": ""}

    seen = guarded(
        messages=[
            {"role": "assistant", "content": [SIGNED, clean, unsigned, said]},
            {"role": "assistant", "content": [SIGNED]},
            {"role": "assistant", "content": "x", "reasoning_content": "my secret",
             "thinking_blocks": [SIGNED]},
        ]
    )  # fmt: skip

    said = {"type": "text", "text": "a [redacted]"}
    unsigned = {**unsigned, "thinking": "a [redacted]"}
    assert seen["messages"] == [
        {"role": "assistant", "content": [clean, unsigned, said]},
        {"role": "assistant", "content": [{"type": "text", "text": "[redacted]"}]},
        {"role": "assistant", "content": "x", "reasoning_content": "my [redacted]",
         "thinking_blocks": []},
    ]  # fmt: skip


def test_a_seal_of_ours_around_a_changed_thought_is_dropped() -> None:
    summary = [{"type": "summary_text", "text": "my secret"}]
    sealed = seals.seal_thinking("my secret", "abc")
    item = {"type": "reasoning", "summary": summary, "encrypted_content": sealed}

    assert guarded(input=[item]) == {
        "input": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "my [redacted]"}]}
        ]
    }


def test_a_thought_in_the_place_of_the_messages_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        guarded(messages=SIGNED)


@pytest.mark.parametrize("kind", ["text", "input_text"])
def test_a_text_cut_into_parts_is_looked_at_as_one(kind: str) -> None:
    parts = [{"type": kind, "text": text} for text in ("no se", "cret or se", "cr", "et", "secret")]

    seen = guarded(messages=[{"role": "user", "content": parts}])

    texts = ["no se", "[redacted] or se", "cr", "[redacted]", "[redacted]"]
    content = [{"type": kind, "text": text} for text in texts]
    assert seen["messages"] == [{"role": "user", "content": content}]


def test_texts_of_their_own_are_not_taken_for_one() -> None:
    assert guarded(input=["se", "cret"]) == {"input": ["se", "cret"]}


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"card": 4111111111111111}, {"card": "[card]"}),
        ({"4111111111111111": 1}, {"[card]": 1}),
        (
            {"4111111111111111": 1, "4012888888881881": 2, "x": True},
            {"[card]": 1, "[card] 2": 2, "x": True},
        ),
    ],
)
def test_numbers_and_keys_of_what_tools_are_given_are_texts_too(
    given: dict[str, object], seen: dict[str, object]
) -> None:
    def use(arguments: dict[str, object]) -> dict[str, object]:
        block = {"type": "tool_use", "id": "t", "name": "f", "input": arguments}
        return {"messages": [{"role": "assistant", "content": [block]}]}

    assert looked_at(use(given), CARD) == use(seen)


def test_arguments_stay_json() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f"}
    arguments = '{"n": 4111111111111111, "t": "to \\u0061nn@example.org\\n"}'

    (seen,) = looked_at({"input": [{**call, "arguments": arguments}]}, EMAIL, CARD).values()

    assert seen == [{**call, "arguments": '{"n": "[card]", "t": "to [email]\\n"}'}]


def test_what_a_provider_sealed_is_left_as_it_is() -> None:
    item = {"type": "reasoning", "encrypted_content": "gAAAAsecret"}
    ours = {"type": "reasoning", "encrypted_content": seals.seal_thinking("x", "secret")}

    assert guarded(input=[item, ours]) == {"input": [item, ours]}


def test_what_is_too_deep_to_be_looked_through_is_refused() -> None:
    deep: object = "secret"
    for _ in range(80):
        deep = [deep]

    with pytest.raises(InvalidRequest, match="nested"):
        guarded(messages=deep)


KEYS = st.sampled_from(
    ["type", "role", "name", "content", "text", "source", "file", "file_data", "data", "url",
     "image_url", "media_type", "thinking", "signature", "encrypted_content", "summary", "input",
     "arguments", "parameters", "properties", "thinking_blocks", "secret", "ann@example.org"]
)  # fmt: skip
LEAVES = st.sampled_from(
    ["text", "thinking", "document", "image", "file", "input_file", "base64", "content", "user",
     "a secret", "se", "cret", '{"a": "s\\u0065cret", "n": 4111111111111111}', "e\u0301\u200b",
     data_url("a secret"), data_url(b"\xff", "application/pdf"), base64_of("secret"), "data:,x",
     seals.seal_summary("a secret"), seals.seal_thinking("a secret", "s"), "ocm1.?", "",
     4111111111111111, -1, 0.5, True, None]
)  # fmt: skip
BODIES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(value=BODIES, name=st.sampled_from(["messages", "input", "tools", "metadata", "x"]))
@settings(max_examples=600)
def test_whatever_a_request_looks_like_looking_through_it_twice_finds_no_more(
    value: object, name: str
) -> None:
    unseen = [Watch("closed", "redact", "file"), Watch("closed", "flag", "image")]
    with contextlib.suppress(InvalidRequest, GuardrailBlocked):
        once = looked_at({name: value}, SECRET, CARD, EMAIL, unseen=unseen)

        met: list[Watch] = []
        raw = {name: json.dumps(once[name]).encode()}
        again = guarded_body(raw, [SECRET, CARD, EMAIL], met.append, unseen=unseen)
        assert json.loads(again[name]) == once[name]
        assert all(watch.action == "flag" for watch in met)


def test_only_texts_take_an_effort_and_many_take_more() -> None:
    settings_only = {"model": b'"x"', "temperature": b"0.1", "stream": b"true"}
    few, many = b'["%s"]' % (b"x" * 996), b"[%s]" % b",".join([b'"x"'] * 250)

    assert effort(settings_only) == 0
    assert 1_000 < effort({**settings_only, "unknown": few}) < 2_000
    assert effort({"messages": many}) > 20_000
