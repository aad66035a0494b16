"""Which attachments are texts, whatever they call themselves."""

import base64
from typing import Any

import pytest

from appliance.model.errors import InvalidRequest
from appliance.services.guardrails.documents import (
    encoded,
    is_readable,
    kind_of,
    text_of_data,
    text_of_link,
)

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").decode()
TEXT = encoded("Grüße an ann@example.org")


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image_url"}, "image"),
        ({"type": "input_audio"}, "audio"),
        ({"type": "document"}, "file"),
        ({"type": "text"}, None),
        ({"type": ["image"]}, None),
        ({}, None),
    ],
)
def test_attachments_are_of_three_kinds(part: dict[str, Any], kind: str | None) -> None:
    assert kind_of(part) == kind


@pytest.mark.parametrize(
    ("link", "found"),
    [
        (f"data:text/plain;base64,{TEXT}", "Grüße an ann@example.org"),
        (f"DATA:application/json;base64,{encoded('{}')}", "{}"),
        (f"data:application/octet-stream;base64,{TEXT}", "Grüße an ann@example.org"),
        (TEXT, "Grüße an ann@example.org"),  # without a URL around it
        (f"data:image/png;base64,{PNG}", None),
        (f"data:application/pdf;base64,{encoded('%PDF-1.7 text')}", None),
        ("https://a.example/file.txt", None),
    ],
)
def test_the_text_of_a_file_is_found(link: str, found: str | None) -> None:
    text = text_of_link(link, is_file=True)

    assert (None if text is None else text[1]) == found


def test_a_picture_is_a_text_only_if_it_says_so() -> None:
    assert text_of_link(f"data:image/svg;base64,{TEXT}", is_file=False) is None
    assert text_of_link(f"data:image/svg+xml;base64,{TEXT}", is_file=False) is not None


@pytest.mark.parametrize("data", [PNG, "no base64!", "YQ"])
def test_what_says_that_it_is_a_text_and_is_none_is_refused(data: str) -> None:
    with pytest.raises(InvalidRequest, match="document of text"):
        text_of_data(data, "text/csv")
    assert text_of_data(data, "image/png") is None


def test_a_text_that_cannot_be_looked_through_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="base64"):
        text_of_link("data:text/plain,ann@example.org", is_file=True)


@pytest.mark.parametrize(
    ("part", "readable"),
    [
        ({"type": "document", "source": {"type": "text", "data": "a"}}, True),
        ({"type": "document", "source": {"type": "base64", "data": TEXT}}, True),
        ({"type": "document", "source": {"type": "url", "url": "https://a.example"}}, False),
        ({"type": "file", "file": {"file_data": TEXT}}, True),
        ({"type": "file", "file": {"file_id": "f"}}, False),
        ({"type": "input_file", "file_data": PNG}, False),
    ],
)
def test_what_can_be_looked_through_whole(part: dict[str, Any], *, readable: bool) -> None:
    assert is_readable(part) is readable
