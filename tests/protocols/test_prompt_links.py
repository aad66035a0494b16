"""Pictures and documents behind a link cost something, though the request is short."""

import json

import pytest

from appliance.protocols.prompt_links import linked_size

PICTURE, DOCUMENT = 1_600 * 3, 20_000 * 3
WEB = "https://example.com/a"


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ("just text with https://example.com in it", 0),
        ('a text that speaks of {"url": "https://example.com"}', 0),
        ([{"type": "image_url", "image_url": {"url": WEB}}], PICTURE),
        ([{"type": "input_image", "image_url": WEB}] * 3, 3 * PICTURE),
        ([{"type": "image", "source": {"type": "url", "url": WEB}}], PICTURE),
        ([{"type": "document", "source": {"type": "url", "url": WEB}}], DOCUMENT),
        ([{"type": "input_file", "file_url": WEB}], DOCUMENT),
        ([{"type": "file", "file": {"file_id": "file-1"}}], DOCUMENT),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], 0),
        (
            [
                {"type": "image", "source": {"type": "url", "url": WEB}},
                {"type": "document", "source": {"type": "url", "url": WEB}},
            ],
            PICTURE + DOCUMENT,
        ),
    ],
)
def test_what_is_referred_to_is_estimated_flat(content: object, size: int) -> None:
    said = json.dumps([{"role": "user", "content": content}]).encode()

    assert linked_size(said) == size
