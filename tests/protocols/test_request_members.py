"""Members of a request and the values in them, each of the right kind or refused."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.model.prompts import Attachment, Call, Prompt, Reasoning
from appliance.protocols import request_members as members
from tests.protocols.prompting import body, field_of


def test_a_member_that_is_not_there_is_none() -> None:
    assert members.read_member(body(), "seed") is None
    assert members.read_member(body(seed=None), "seed") is None


def test_members_are_read_without_nulls_and_without_those_that_travel() -> None:
    found = members.read_members(body(a=1, b=None, model="m"), but=frozenset({"model"}))

    assert found == {"a": 1}


def test_what_cannot_be_written_is_refused_by_name() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequest) as caught:
        members.write_members({"ok": 1, "none": None, "deep": deep})

    assert field_of(caught.value) == "deep"
    assert members.write_members({"ok": 1, "none": None}) == {"ok": b"1"}


def test_what_the_other_side_has_no_word_for_is_refused_by_name() -> None:
    known, harmless = frozenset({"messages"}), {"n": frozenset({b"1"})}

    members.refuse_unknown(body(messages=[], n=1, logprobs=None), known=known, harmless=harmless)
    with pytest.raises(InvalidRequest, match="n: cannot be expressed"):
        members.refuse_unknown(body(n=2), known=known, harmless=harmless)


def test_what_stands_deeper_than_the_top_level_is_never_written_anew() -> None:
    prompt = Prompt(
        dialect=Dialect.OPENAI, messages=(), hints={"store": True}, others={"audio": {}}
    )
    assert members.own_members(prompt) == {"store": True, "audio": {}}

    deep = Prompt(dialect=Dialect.OPENAI, messages=(), others={"tools[1].type": "custom"})
    with pytest.raises(InvalidRequest) as caught:
        members.own_members(deep)
    assert field_of(caught.value) == "tools[1].type"


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (members.text, ["", "x"], [None, 1, [], {}]),
        (members.optional_text, [None, "x"], [1, True, []]),
        (members.optional_number, [None, 0, -1.5, 2**53 - 1], [True, "1", 1e300, 2**60, []]),
        (members.optional_whole, [None, 0, 7], [True, -1, 1.5, "1", 2**60]),
        (members.optional_flag, [None, True, False], [0, 1, "true", {}]),
        (members.optional_object, [None, {}, {"a": 1}], [[], "{}", 1]),
        (members.items, [[], [1]], ["x", {}, 5]),
        (members.texts, [()], ["x", [1], [None]]),
    ],
)
def test_a_value_is_of_its_kind_or_refused(
    read: Callable[[Any, str], Any], good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        assert read(list(value) if value == () else value, "here") == value
    for value in bad:
        with pytest.raises(InvalidRequest, match="here"):
            read(value, "here")


def test_a_tool_that_takes_nothing_is_spelled_in_many_ways() -> None:
    empty = {"type": "object", "properties": {}}
    for spelling in (None, {}, empty):
        assert members.parameters(spelling, "x") is None
    assert members.schema_of(None) == empty
    assert members.schema_of({"properties": {}}) == empty
    assert members.schema_of({"type": "object", "title": "x"}) == {"type": "object", "title": "x"}


@pytest.mark.parametrize("text", ["", "  ", "{}"])
def test_no_arguments_are_an_empty_object(text: str) -> None:
    assert members.arguments(text, "x").strip() == "{}"


def test_arguments_are_written_unchanged() -> None:
    call = Call(id="c", name="f", arguments='{"a": 1.50}')

    assert msgspec.json.encode(members.raw_arguments(call)) == b'{"a": 1.50}'
    for broken in ("[]", "{", '{},"x":1', "nul"):
        with pytest.raises(InvalidRequest, match="no JSON object"):
            members.raw_arguments(Call(id="c", name="f", arguments=broken, at="here"))


@pytest.mark.parametrize(
    ("url", "attachment"),
    [
        (
            "data:image/PNG;base64,AAAA",
            Attachment(kind="image", media_type="image/png", data="AAAA"),
        ),
        (
            "data:image/png;name=x;base64,AAAA",
            Attachment(kind="image", media_type="image/png", data="AAAA"),
        ),
        ("https://example.org/x", Attachment(kind="image", url="https://example.org/x")),
    ],
)
def test_a_picture_is_data_or_an_address(url: str, attachment: Attachment) -> None:
    assert members.attachment("image", url, "x") == attachment


@pytest.mark.parametrize("url", ["file:///etc/passwd", "data:image/png,AAAA", "", "ftp://x/y"])
def test_any_other_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="no web address"):
        members.attachment("image", url, "x")


def test_a_file_has_no_address() -> None:
    with pytest.raises(InvalidRequest, match="no base64 data URL"):
        members.attachment("file", "https://example.org/x.pdf", "x")


def test_plain_text_is_taken_out_of_its_base64() -> None:
    text = members.attachment("file", "data:text/plain;charset=utf-8;base64,SGk=", "x", name="n")
    assert text == Attachment(kind="file", text="Hi", name="n")
    broken = members.attachment("file", "data:text/plain;base64,SGk", "x")
    assert broken == Attachment(kind="file", media_type="text/plain", data="SGk")
    assert members.plain_text("/w==") is None


@pytest.mark.parametrize(
    "given",
    [
        {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
        {"type": "adaptive"},
        {"type": "disabled"},
    ],
)
def test_thinking_is_read_and_written(given: dict[str, Any]) -> None:
    reasoning = members.thinking(given, "thinking")

    assert reasoning is not None
    assert members.written_thinking(reasoning) == given
    assert members.written_thinking(Reasoning(effort="low")) is None
    assert members.thinking({"type": "between_tools"}, "thinking") is None
