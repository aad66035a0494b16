"""What kind of picture bytes are."""

import pytest

from appliance.model.pictures import picture_type


@pytest.mark.parametrize(
    ("head", "mime"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0....", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"GIF87a..", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"<svg xmlns=", None),
        (b"\x89PNG", None),
        (b"", None),
    ],
)
def test_the_first_bytes_say_what_it_is(head: bytes, mime: str | None) -> None:
    assert picture_type(head) == mime
