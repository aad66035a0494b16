"""Looking through the texts of a request, in whatever dialect it is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.services.guardrails.windows import Detector, looked_through

Body = Mapping[str, bytes]

# Where what people and tools said is, in one dialect or another.
_MEMBERS = (
    "messages",
    "input",
    "system",
    "instructions",
    "prompt",
    "prediction",
    "tools",
    "functions",
)
# What is no text of anybody's: names that others refer to, and what is not readable.
_NOT_TEXT = frozenset(
    {
        "type", "role", "id", "name", "call_id", "tool_call_id", "tool_use_id", "data", "url",
        "image_url", "file_data", "file_url", "file_id", "media_type", "format", "signature",
        "thinking_signature", "encrypted_content", "detail", "status", "object", "cache_control",
        "images", "citations",
    }
)  # fmt: skip
# What a model or a tool put there is its own business, whatever the keys are called.
_FREE = frozenset({"arguments", "input", "parameters", "input_schema", "schema"})
_MOST_DEEP = 64


def text_bytes(body: Body) -> int:
    """How much there is to look through."""
    return sum(len(body[name]) for name in _MEMBERS if name in body)


def guarded_body(
    body: Body, detectors: Sequence[Detector], met: Callable[[Detector], None]
) -> Body:
    """``body`` with what is to be redacted redacted; ``body`` itself where nothing is."""
    changed: dict[str, bytes] = {}
    for name in _MEMBERS:
        text = body.get(name)
        if text is None:
            continue
        value = msgspec.json.decode(text)
        seen = _Look(detectors, met).value(value)
        if seen != value:
            changed[name] = msgspec.json.encode(seen)
    return {**body, **changed} if changed else body


class _Look:
    def __init__(self, detectors: Sequence[Detector], met: Callable[[Detector], None]) -> None:
        self._detectors = detectors
        self._met = met

    def value(self, value: Any, *, depth: int = 0, is_free: bool = False) -> Any:
        if isinstance(value, str):
            return looked_through(value, self._detectors, self._met)
        if depth >= _MOST_DEEP:
            raise InvalidRequest(
                f"the request is nested more than {_MOST_DEEP} levels deep, "
                "and its texts have to be looked through"
            )
        if isinstance(value, list):
            return [self.value(each, depth=depth + 1, is_free=is_free) for each in value]
        if isinstance(value, dict):
            # The source of Anthropic's documents of plain text: its data is what is read.
            is_words = value.get("type") == "text"
            return {
                key: each
                if key in _NOT_TEXT and not is_free and not (is_words and key == "data")
                else self.value(each, depth=depth + 1, is_free=is_free or key in _FREE)
                for key, each in value.items()
            }
        return value
