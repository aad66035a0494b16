"""Pictures that come with a message."""

import base64
from typing import Any

import pytest

from appliance.model.chat_attachments import LARGEST_IMAGE, MOST_IMAGES, image_parts
from appliance.model.errors import InvalidRequest

DOT = base64.b64encode(b"dot").decode()


def attachment(**more: Any) -> dict[str, Any]:
    return {"mimeType": "image/png", "fileName": "dot.png", "content": DOT} | more


def test_a_picture_becomes_a_part_that_models_read() -> None:
    (part,) = image_parts([attachment()])

    assert part == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DOT}"}}


def test_a_data_url_may_say_what_it_is() -> None:
    (part,) = image_parts([attachment(mimeType=None, content=f"data:image/gif;base64,{DOT}")])

    assert part["image_url"] == {"url": f"data:image/gif;base64,{DOT}"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (attachment(mimeType="application/pdf", fileName="a.pdf"), "a.pdf: only images"),
        (attachment(mimeType="image/png\r\nx: y"), "only images"),
        (attachment(content="?!"), "is not base64"),
        (attachment(content=""), "is empty"),
        (attachment(content=7), "must be base64"),
        (attachment(content="A" * (LARGEST_IMAGE * 2)), "exceeds size limit"),
        ("text", "must be an object"),
    ],
)
def test_anything_else_is_refused_by_name(given: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refusal:
        image_parts([attachment(), given])

    assert refusal.value.fields[0].field.startswith("attachments[1]")


def test_the_largest_picture_is_taken_and_one_byte_more_is_not() -> None:
    largest = base64.b64encode(b"x" * LARGEST_IMAGE).decode()
    assert len(image_parts([attachment(content=largest)])) == 1

    larger = base64.b64encode(b"x" * (LARGEST_IMAGE + 1)).decode()
    with pytest.raises(InvalidRequest, match="exceeds size limit"):
        image_parts([attachment(content=larger)])


def test_there_are_only_so_many_pictures_in_a_message() -> None:
    with pytest.raises(InvalidRequest, match="at most 8"):
        image_parts([attachment()] * (MOST_IMAGES + 1))
