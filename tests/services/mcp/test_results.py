"""Answers of MCP servers as results of tools."""

import base64
from typing import Any

import pytest

from appliance.services.mcp.results import read_result
from appliance.services.tools.base import Source, ToolFailed, ToolResult

PICTURE = {"type": "image", "mimeType": "image/png", "data": base64.b64encode(b"x" * 50).decode()}


def read(raw: Any, *, most: int = 1000, pictures: bool = True) -> ToolResult:
    return read_result(raw, server="notes", most_bytes=most, reads_pictures=pictures)


def texts(*contents: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": content} for content in contents]


def test_texts_are_put_together_and_untrusted() -> None:
    result = read({"content": texts("a", "b")})
    assert (result.text, result.is_error, result.untrusted) == ("a\n\nb", False, Source.MCP)


def test_an_error_is_an_error_only_if_it_says_exactly_so() -> None:
    assert read({"content": texts("no"), "isError": True}).is_error
    assert not read({"content": texts("no"), "isError": "false"}).is_error


def test_pictures_are_shown_to_who_reads_them() -> None:
    assert len(read({"content": [PICTURE]}).parts) == 1
    told = read({"content": [PICTURE]}, pictures=False)
    assert list(told.parts) == []
    assert told.text == "[a picture, image/png, not shown]"


@pytest.mark.parametrize("data", ["", "no base64!", 7, None])
def test_a_picture_that_is_none_is_not_shown(data: object) -> None:
    result = read({"content": [{**PICTURE, "data": data}]})
    assert list(result.parts) == []
    assert "not shown" in result.text


def test_at_most_eight_pictures_are_shown() -> None:
    assert len(read({"content": [PICTURE] * 12}, most=5000).parts) == 8


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"type": "resource", "resource": {"uri": "a://b", "text": "words"}}, "a://b:\nwords"),
        ({"type": "resource", "resource": {"uri": "a://b", "blob": "AA"}}, "[a://b, which is not"),
        ({"type": "resource_link", "name": "n", "uri": "a://b"}, "[n: a://b]"),
        ({"type": "audio", "mimeType": "audio/wav", "data": "AA"}, "[sound, audio/wav"),
        ({"type": "hologram"}, "[hologram, which cannot be shown]"),
    ],
)
def test_what_is_not_text_is_named(item: dict[str, Any], text: str) -> None:
    assert read({"content": [item]}).text.startswith(text)


@pytest.mark.parametrize("raw", [{}, {"content": None}, {"content": [None, 7, {"type": "text"}]}])
def test_nonsense_is_an_empty_answer(raw: dict[str, Any]) -> None:
    assert read(raw).text == "(an empty answer)"


def test_structured_content_stands_in_for_missing_text() -> None:
    assert read({"structuredContent": {"a": 1}}).text == '{"a": 1}'
    assert read({"content": texts("t"), "structuredContent": {"a": 1}}).text == "t"


def test_too_much_is_a_failure_wherever_it_stands() -> None:
    large = "x" * 1001
    for raw in (
        {"content": texts(large)},
        {"content": [{"type": "resource", "resource": {"text": large}}]},
        {"content": [{**PICTURE, "data": large}]},
        {"structuredContent": {"a": large}},
    ):
        with pytest.raises(ToolFailed, match="notes answered with more than 1000 bytes"):
            read(raw)
