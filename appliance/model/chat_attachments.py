"""Pictures that come with a message, as the parts of a message that models read."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from appliance.model.errors import InvalidRequest

MOST_IMAGES = 8
LARGEST_IMAGE = 5_000_000  # bytes
_IMAGE = re.compile(r"image/[a-z0-9.+-]{1,40}")
_DATA_URL = re.compile(r"data:([^;,]{1,100});base64,")

Part = dict[str, object]


def image_parts(attachments: Sequence[object]) -> list[Part]:
    """Each attachment as an OpenAI content part.

    Raises :exc:`InvalidRequest` naming the attachment that is no picture, too
    large, or not base64.
    """
    if len(attachments) > MOST_IMAGES:
        raise InvalidRequest.at(
            "attachments", f"{len(attachments)} were sent, at most {MOST_IMAGES} go with a message"
        )
    return [_part(given, number) for number, given in enumerate(attachments)]


def _part(given: object, number: int) -> Part:
    field = f"attachments[{number}]"
    if not isinstance(given, Mapping):
        raise InvalidRequest.at(field, "must be an object", "send {mimeType, fileName, content}")
    name = given.get("fileName") or given.get("type") or field
    content = given.get("content")
    if not isinstance(content, str):
        raise InvalidRequest.at(f"{field}.content", f"{name}: must be base64 text")
    mime = given.get("mimeType")
    if inline := _DATA_URL.match(content[:200]):
        mime = mime or inline[1]
        content = content[inline.end() :]
    if not isinstance(mime, str) or _IMAGE.fullmatch(mime.strip().lower()) is None:
        raise InvalidRequest.at(
            field, f"{name}: only images are taken (mimeType {mime!r})", "send it as text"
        )
    # Longer than any picture we take, so it need not be decoded to be refused.
    if len(content) > LARGEST_IMAGE * 4 // 3 + 1024:
        raise _too_large(field, name)
    try:
        data = base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest.at(f"{field}.content", f"{name}: is not base64") from None
    if len(data) > LARGEST_IMAGE:
        raise _too_large(field, name)
    if not data:
        raise InvalidRequest.at(f"{field}.content", f"{name}: is empty")
    url = f"data:{mime.strip().lower()};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _too_large(field: str, name: object) -> InvalidRequest:
    return InvalidRequest.at(
        f"{field}.content", f"{name}: exceeds size limit ({LARGEST_IMAGE} bytes)", "send less"
    )
