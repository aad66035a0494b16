"""What an MCP server answered to a call, as the result of a tool.

The answer is read as it came over the wire and nothing in it is trusted: what
has not the form it should have is left out, and it is marked as strangers'
text whatever it says, an error included.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from appliance.model.chat_attachments import MOST_IMAGES, Part, image_parts
from appliance.model.errors import InvalidRequest
from appliance.services.tools.base import Source, ToolFailed, ToolResult

_MOST_ITEMS = 1000


def read_result(
    raw: Mapping[str, Any], *, server: str, most_bytes: int, reads_pictures: bool
) -> ToolResult:
    """Raises :exc:`ToolFailed` for an answer beyond ``most_bytes``."""
    content = raw.get("content")
    items = content[:_MOST_ITEMS] if isinstance(content, list) else []
    texts: list[str] = []
    parts: list[Part] = []
    size = 0
    for item in items:
        if not isinstance(item, Mapping):
            continue
        size += _size(item)
        if size > most_bytes:
            break
        part = _picture(item) if reads_pictures and len(parts) < MOST_IMAGES else None
        if part is not None:
            parts.append(part)
        elif text := _words(item):
            texts.append(text)
    structured = raw.get("structuredContent")
    if not texts and not parts and isinstance(structured, Mapping):
        texts.append(json.dumps(structured, ensure_ascii=False))
        size += len(texts[0])
    if size > most_bytes:
        raise ToolFailed(
            f"{server} answered with more than {most_bytes} bytes; ask for less at once"
        )
    return ToolResult(
        text="\n\n".join(texts) or ("(pictures only)" if parts else "(an empty answer)"),
        parts=parts,
        is_error=raw.get("isError") is True,
        untrusted=Source.MCP,
        details={"server": server},
    )


def _picture(item: Mapping[str, Any]) -> Part | None:
    if item.get("type") != "image":
        return None
    given = {"mimeType": item.get("mimeType"), "content": item.get("data"), "fileName": "picture"}
    try:
        return image_parts([given])[0]
    except InvalidRequest:
        return None


def _words(item: Mapping[str, Any]) -> str:
    kind = str(item.get("type"))
    say = _SAYING.get(kind)
    return say(item) if say is not None else f"[{kind[:40]}, which cannot be shown]"


def _of_resource(item: Mapping[str, Any]) -> str:
    resource = item.get("resource")
    if not isinstance(resource, Mapping):
        return ""
    text = resource.get("text")
    uri = str(resource.get("uri"))[:500]
    return f"{uri}:\n{text}" if isinstance(text, str) else f"[{uri}, which is not text]"


_SAYING: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "text": lambda item: item["text"] if isinstance(item.get("text"), str) else "",
    "image": lambda item: f"[a picture, {str(item.get('mimeType'))[:40]}, not shown]",
    "audio": lambda item: f"[sound, {str(item.get('mimeType'))[:40]}, not played]",
    "resource": _of_resource,
    "resource_link": lambda item: f"[{str(item.get('name'))[:200]}: {str(item.get('uri'))[:2000]}]",
}


def _size(item: Mapping[str, Any]) -> int:
    resource = item.get("resource")
    inner = resource if isinstance(resource, Mapping) else {}
    values = (item.get("text"), item.get("data"), inner.get("text"), inner.get("blob"))
    return sum(len(value.encode(errors="replace")) for value in values if isinstance(value, str))
