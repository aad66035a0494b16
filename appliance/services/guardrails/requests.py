"""Looking through the texts of a request, in whatever dialect it is."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses import seals
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
    "response_format",
    "text",
    "output_config",
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
# Members in which a text may be wrapped.
_WRAPPED = frozenset({"arguments", "encrypted_content", "file_data", "url", "image_url"})
_SEALS = frozenset({"signature", "hidden", "dialect"})  # nobody's words
_LONGEST_HEAD = 200  # characters of a data URL before its data
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
                key: self._member(key, each, depth=depth + 1, is_free=is_free, is_words=is_words)
                for key, each in value.items()
            }
        return value

    def _member(self, key: str, value: Any, *, depth: int, is_free: bool, is_words: bool) -> Any:
        if isinstance(value, str) and key in _WRAPPED:
            found = self._unwrapped(key, value, depth)
            if found is not None:
                return found
        is_text = is_free or isinstance(value, dict) or (is_words and key == "data")
        if key in _NOT_TEXT and not is_text:
            return value
        return self.value(value, depth=depth, is_free=is_free or key in _FREE)

    def _unwrapped(self, key: str, value: str, depth: int) -> str | None:
        """Text that hides in a member which is none itself; None if there is none in it."""
        if key == "arguments":
            # Escapes would hide words; without any the text is what it says.
            return self._arguments(value, depth) if "\\" in value else None
        if key == "encrypted_content":
            return self._sealed(value, depth) if seals.is_ours(value) else None
        return self._document(value)

    def _arguments(self, text: str, depth: int) -> str | None:
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            return None
        seen = self.value(value, depth=depth, is_free=True)
        return text if seen == value else msgspec.json.encode(seen).decode()

    def _sealed(self, text: str, depth: int) -> str:
        """Ours is opaque to a caller, but anybody can make one."""
        value = dict(seals.unseal(text))
        seen = {
            key: each if key in _SEALS else self.value(each, depth=depth, is_free=True)
            for key, each in value.items()
        }
        return text if seen == value else seals.seal(seen)

    def _document(self, url: str) -> str | None:
        """The text of a ``data:`` URL of text."""
        head, comma, data = url.partition(",")
        if not comma or not head[:_LONGEST_HEAD].lower().startswith("data:text/"):
            return None
        if len(head) > _LONGEST_HEAD or not head.lower().endswith(";base64"):
            raise InvalidRequest(
                "a document of text has to be base64, or it cannot be looked through"
            )
        try:
            text = base64.b64decode(data, validate=True).decode()
        except ValueError:
            raise InvalidRequest("a document of text is not UTF-8 in base64") from None
        seen = looked_through(text, self._detectors, self._met)
        return url if seen == text else f"{head},{base64.b64encode(seen.encode()).decode()}"
