"""Attachments of a request: which of them are texts, whatever they call themselves."""

import base64
import codecs
from collections.abc import Mapping
from typing import Any

from appliance.model.errors import InvalidRequest

DRAWN = "image_generation_call"  # an item of a conversation rather than a part of a message
_KINDS: Mapping[str, str] = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    DRAWN: "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "file": "file",
    "input_file": "file",
    "document": "file",
    "container_upload": "file",
    "video_url": "file",
}
_TEXT_TYPES = frozenset(
    {
        "", "application/json", "application/x-ndjson", "application/jsonl", "application/xml",
        "application/yaml", "application/x-yaml", "application/toml", "application/sql",
        "application/csv", "application/javascript", "application/x-sh", "application/rtf",
    }
)  # fmt: skip
_LONGEST_HEAD = 200  # characters of a data URL before its data
_SNIFFED = 4096  # characters of base64 that tell a text from what is none
_PDF = b"%PDF"  # may be nothing but ASCII, and is not to be read as it stands


def kind_of(part: Mapping[str, Any]) -> str | None:
    """The kind of attachment that a part of a message is: image, audio, file; None for none."""
    kind = part.get("type")
    return _KINDS.get(kind) if isinstance(kind, str) else None


def is_readable(part: Mapping[str, Any]) -> bool:
    """Whether all there is in an attachment is text that can be looked through."""
    match part:
        case {"type": "document", "source": {"type": "text" | "content"}}:
            return True
        case {"type": "document", "source": {"type": "base64", "data": str(data), **rest}}:
            return text_of_data(data, str(rest.get("media_type", ""))) is not None
        case {"type": "file", "file": {"file_data": str(data)}}:
            return text_of_link(data, is_file=True) is not None
        case {"type": "input_file", "file_data": str(data)}:
            return text_of_link(data, is_file=True) is not None
    return False


def text_of_link(link: str, *, is_file: bool) -> tuple[str, str] | None:
    """What stands before the base64 in a ``data:`` URL, and the text in it; None if there is none.

    A file may be base64 without a URL around it. Raises :exc:`InvalidRequest`
    for what says that it is a text and cannot be read.
    """
    if link[:5].lower() != "data:":
        text = text_of_data(link, "?") if is_file else None
        return None if text is None else ("", text)
    head, _, data = link.partition(",")
    media_type = head[5:_LONGEST_HEAD].partition(";")[0]
    if len(head) <= _LONGEST_HEAD and head.lower().endswith(";base64"):
        text = text_of_data(data, media_type) if is_file or _says_text(media_type) else None
        return None if text is None else (f"{head},", text)
    if _says_text(media_type):
        raise InvalidRequest("a document of text has to be base64, or it cannot be looked through")
    return None


def text_of_data(data: str, media_type: str) -> str | None:
    """The text in base64 ``data``; raises like :func:`text_of_link`."""
    says_text = _says_text(media_type)
    if not says_text and not _looks_like_text(data):
        return None
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:
        if says_text:
            raise InvalidRequest("a document of text is not UTF-8 in base64") from None
        return None


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _says_text(media_type: str) -> bool:
    kind = media_type.strip().lower()
    return kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+json", "+xml"))


def _looks_like_text(data: str) -> bool:
    """By its beginning: names of types are wrong often enough."""
    try:
        head = base64.b64decode(data[:_SNIFFED], validate=True)
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except ValueError:
        return False
    return b"\0" not in head and not head.startswith(_PDF)
