"""Looking through what a request says, in whatever dialect it is.

All of it is looked at but for what is listed here: how to answer, references,
and what is no text. A member that nobody here knows is taken for text.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from itertools import groupby
from typing import Any, Final

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses import seals
from appliance.services.guardrails import documents
from appliance.services.guardrails.windows import (
    REDACTED,
    Detector,
    Met,
    Watch,
    checked_name,
    looked_across,
    looked_through,
)

Body = Mapping[str, bytes]

# How to answer, and what other requests are referred to by.
_SETTINGS = frozenset(
    {
        "model", "stream", "stream_options", "max_tokens", "max_completion_tokens",
        "max_output_tokens", "max_tool_calls", "reasoning_effort", "reasoning", "thinking",
        "verbosity", "service_tier", "modalities", "audio", "include", "truncation", "background",
        "store", "conversation", "previous_response_id", "context_management", "container",
        "prompt_cache_retention", "prompt_cache_options", "encoding_format", "logit_bias", "speed",
    }
)  # fmt: skip
# What the API has words for; elsewhere keys are anybody's.
_FORMS = frozenset(
    {
        "messages", "input", "system", "instructions", "prompt", "prediction", "tools",
        "functions", "tool_choice", "function_call", "response_format", "text", "output_config",
        "web_search_options", "mcp_servers",
    }
)  # fmt: skip
# What is no text of anybody's: names that others refer to, and what is not readable.
_NOT_TEXT = frozenset(
    {
        "type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "data", "url",
        "image_url", "file_data", "file_url", "file_id", "media_type", "format", "signature",
        "thinking_signature", "thought_signature", "encrypted_content", "encrypted_index", "detail",
        "status", "object", "cache_control", "images", "phase", "effort", "verbosity", "mode",
        "server_url",
    }
)  # fmt: skip
# What a model or a tool put there is its own business, whatever the keys are called.
_FREE = frozenset({"arguments", "input"})
_SCHEMAS = frozenset({"parameters", "input_schema", "schema"})
_SCHEMA_WORDS = frozenset(
    {
        "$schema", "$id", "$ref", "$defs", "$comment", "$anchor", "definitions", "type", "format",
        "title", "description", "default", "examples", "enum", "const", "properties", "required",
        "additionalProperties", "patternProperties", "propertyNames", "items", "prefixItems",
        "additionalItems", "contains", "allOf", "anyOf", "oneOf", "not", "if", "then", "else",
        "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties",
        "maxProperties", "dependentRequired", "dependentSchemas", "readOnly", "writeOnly",
        "deprecated", "nullable", "contentEncoding", "contentMediaType", "strict",
    }
)  # fmt: skip
_SCHEMA_DATA = frozenset({"default", "examples", "enum", "const"})
_SCHEMA_REFERENCES = frozenset({"$schema", "$id", "$ref", "$anchor", "type", "format"})
# Members in which a text may be wrapped.
_LINKS = frozenset({"file_data", "url", "image_url"})
_SEALS = frozenset({"signature", "hidden", "dialect"})  # nobody's words
_MOST_DEEP = 64
_QUOTE_EFFORT = 64  # bytes; a short text takes as long as 128 more would
_GONE: Final = object()  # in the place of what is left out
_SPEAKERS = frozenset({"system", "developer", "user", "assistant"})


class _Keys(Enum):
    """Whose words the keys of an object are."""

    FORM = auto()  # the API's
    SCHEMA = auto()  # JSON Schema's
    DATA = auto()  # anybody's


def effort(body: Body) -> int:
    """How long it takes to look through, as bytes of one long text would."""
    return sum(
        len(value) + _QUOTE_EFFORT * value.count(b'"')
        for name, value in body.items()
        if _is_text(name, value)
    )


def _is_text(name: str, value: bytes) -> bool:
    if name in {"tool_choice", "function_call"}:
        return value.startswith(b"{")  # a tool, not a word
    return name not in _SETTINGS and b'"' in value


def guarded_body(
    body: Body, detectors: Sequence[Detector], met: Met, *, unseen: Sequence[Watch] = ()
) -> Body:
    """``body`` with what is to be redacted redacted; ``body`` itself where nothing is.

    ``unseen`` are met by attachments that cannot be looked through. Raises
    :exc:`InvalidRequest` for what should be readable and is not.
    """
    changed: dict[str, bytes] = {}
    for name, text in body.items():
        if not _is_text(name, text):
            continue
        value = msgspec.json.decode(text)
        look = _Look(detectors, met, unseen, part="input_text" if name == "input" else "text")
        seen = look.value(value, _Keys.FORM if name in _FORMS else _Keys.DATA)
        if seen is _GONE:
            raise InvalidRequest.at(name, "is a thought, which cannot stand there")
        if seen != value:
            changed[name] = msgspec.json.encode(seen)
    return {**body, **changed} if changed else body


class _Look:
    """``part`` is what a part of text is called here."""

    def __init__(
        self, detectors: Sequence[Detector], met: Met, unseen: Sequence[Watch], *, part: str
    ) -> None:
        self._detectors = detectors
        self._met = met
        self._unseen = unseen
        self._part = part
        self._depth = 0

    def value(self, value: Any, keys: _Keys) -> Any:
        match value:
            case str():
                return self._text(value)
            case bool():
                return value
            case int() if keys is _Keys.DATA:
                seen = self._text(str(value))
                return value if seen == str(value) else seen
            case list() | dict():
                return self._inside(value, keys)
        return value

    def _text(self, text: str) -> str:
        return looked_through(text, self._detectors, self._met)

    def _inside(self, value: list[Any] | dict[str, Any], keys: _Keys) -> Any:
        if self._depth >= _MOST_DEEP:
            raise InvalidRequest(
                f"the request is nested more than {_MOST_DEEP} levels deep, "
                "and its texts have to be looked through"
            )
        self._depth += 1
        seen = self._list(value, keys) if isinstance(value, list) else self._object(value, keys)
        self._depth -= 1
        return seen

    def _list(self, values: list[Any], keys: _Keys) -> list[Any]:
        seen = [self.value(each, keys) for each in values]
        if keys is not _Keys.FORM:
            return seen
        return self._across([each for each in seen if each is not _GONE])

    def _across(self, parts: list[Any]) -> list[Any]:
        """Neighbouring texts are one to whoever reads them."""
        found: list[Any] = []
        for are_texts, run in groupby(parts, key=_is_text_part):
            group = list(run)
            if are_texts and len(group) > 1:
                texts = looked_across([part["text"] for part in group], self._detectors, self._met)
                group = [{**part, "text": text} for part, text in zip(group, texts, strict=True)]
            found += group
        return found

    def _object(self, value: dict[str, Any], keys: _Keys) -> Any:
        return self._form(value) if keys is _Keys.FORM else self._data(value, keys)

    def _data(self, value: dict[str, Any], keys: _Keys) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, each in value.items():
            if keys is _Keys.DATA or key not in _SCHEMA_WORDS:
                seen[_another(self._text(key), seen)] = self.value(each, keys)
            elif key in _SCHEMA_REFERENCES and isinstance(each, str):
                seen[key] = each
            else:
                seen[key] = self.value(each, _Keys.DATA if key in _SCHEMA_DATA else keys)
        return seen

    def _form(self, value: dict[str, Any]) -> Any:
        kind = documents.kind_of(value)
        if kind is not None and (watch := self._unseen_by(kind, value)):
            if value["type"] == documents.DRAWN:
                return _GONE  # an item, in the place of which no part may stand
            return {"type": self._part, "text": watch.mark}
        seen = {key: self._member(value, key, each) for key, each in value.items()}
        match value:
            case {"type": "thinking", "thinking": text, "signature": str(signature)} if signature:
                # Its provider would refuse the signature, and the thought without it.
                if seen["thinking"] != text:
                    return _GONE
        if seen.get("content") == [] != value["content"]:
            seen["content"] = [{"type": self._part, "text": REDACTED}]  # nobody may say nothing
        return {key: each for key, each in seen.items() if each is not _GONE}

    def _unseen_by(self, kind: str, part: dict[str, Any]) -> Watch | None:
        """The rule that has an attachment taken out because nobody can look through it."""
        watches = [watch for watch in self._unseen if watch.kind == kind]
        if not watches or documents.is_readable(part):
            return None
        for watch in watches:
            self._met(watch)
        return next((watch for watch in watches if watch.action == "redact"), None)

    def _member(self, parent: dict[str, Any], key: str, value: Any) -> Any:
        match value:
            case str() if key == "name":
                return self._name(parent, value)
            case str() if key in _LINKS:
                return self._link(value, is_file=key == "file_data")
            case str() if key == "encrypted_content" and seals.is_ours(value):
                return self._sealed(value)
            case str() if key == "data" and parent.get("type") == "text":
                return self._text(value)  # the source of Anthropic's documents of plain text
            case str() if key == "result" and parent.get("type") == documents.DRAWN:
                return value  # a picture
            case {"type": "base64", "data": str(data)} if parent.get("type") == "document":
                return self._source(value, data)
            case dict():
                return self.value(value, _keys_below(key))
        return value if key in _NOT_TEXT else self.value(value, _keys_below(key))

    def _name(self, parent: dict[str, Any], name: str) -> str:
        role = parent.get("role")
        if not isinstance(role, str) or role not in _SPEAKERS:
            checked_name(name, self._detectors, self._met)
            return name
        # Of the marks only what providers let stand in the name of a speaker.
        seen = self._text(name)
        return name if seen == name else seen.replace("[", "_").replace("]", "_")

    def _link(self, link: str, *, is_file: bool) -> str:
        found = documents.text_of_link(link, is_file=is_file)
        if found is None:
            return link
        head, text = found
        seen = self._text(text)
        return link if seen == text else head + documents.encoded(seen)

    def _source(self, source: dict[str, Any], data: str) -> dict[str, Any]:
        text = documents.text_of_data(data, str(source.get("media_type", "")))
        if text is None:
            return source
        seen = self._text(text)
        return source if seen == text else {**source, "data": documents.encoded(seen)}

    def _sealed(self, sealed: str) -> Any:
        """Ours is opaque to a caller, but anybody can make one."""
        value = dict(seals.unseal(sealed))
        seen = {
            key: each if key in _SEALS else self.value(each, _Keys.DATA)
            for key, each in value.items()
        }
        if seen == value:
            return sealed
        return _GONE if "signature" in value else seals.seal(seen)


def _keys_below(key: str) -> _Keys:
    if key in _SCHEMAS:
        return _Keys.SCHEMA
    return _Keys.DATA if key in _FREE else _Keys.FORM


def _is_text_part(part: object) -> bool:
    match part:
        case {"type": "text" | "input_text" | "output_text", "text": str()}:
            return True
    return False


def _another(key: str, taken: Mapping[str, object]) -> str:
    """``key``, with a number where two keys have become the same."""
    found, number = key, len(taken)
    while found in taken:
        number += 1
        found = f"{key} {number}"
    return found
