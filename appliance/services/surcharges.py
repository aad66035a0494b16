"""What a request asks of a provider beyond the tokens that are counted and priced.

Dearer tiers, other models than the one that is named, tools that the provider
runs and bills, sound, files and prompts that are stored with the key's owner:
with the gateway's own key somebody else pays for them, or is read. So only what
is known to be paid for by its tokens goes out with that key (see
``plain_members``); the rest is refused by name unless the operator allows it
with ``providers.<name>.extras``. With a tenant's own key it is its own business,
but for tokens that are for some models only: what is not known may name others.

Everything here fails closed: what cannot be read is not plain.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import msgspec

from appliance.model.calls import Dialect
from appliance.model.errors import Fault, InvalidRequest
from appliance.protocols.long_json import STEP, Hollow
from appliance.services import plain_members

Body = Mapping[str, bytes]  # a request's top-level members as JSON text

# Where in a member there is something that is not plain ("" for all of it), None if nowhere.
_Find = Callable[[bytes], str | None]

_NULL = b"null"
_NOTHING = (_NULL, b"[]")
_PLAIN_TIERS = frozenset(
    {"auto", "batch", "default", "flex", "on_demand", "standard", "standard_only"}
)
# Anthropic's tools that have a schema of their own and that the caller runs.
_RUN_BY_CALLERS = re.compile(
    r"(?:bash|browser_toolset|computer|computer_toolset|memory|text_editor)_\d{8}"
)
_CLEARING = re.compile(r"clear_(?:thinking|tool_uses)_\d{8}")
# OpenRouter's: a search with every answer, the dearest host first, somebody's settings.
_WITH_MORE = re.compile(r":(?:online|nitro)$|@preset/")
# A file that the provider keeps is found, and read, with the key of its owner.
_KEPT_THERE = ".file_id"


# What is not there; to be told by its identity, which costs next to nothing.
_ABSENT = msgspec.Raw(_NULL)


@dataclass(frozen=True, slots=True)
class Rule:
    """Why only what is plain is passed on."""

    reason: str
    remedy: str


GATEWAYS_KEY = Rule(
    "may cost or read more than its tokens, and so is not passed on with the gateway's key",
    "leave it out, use a key of your own, or ask the operator for providers.*.extras",
)
SOME_MODELS = Rule(
    "may lead to other models, and this token is for some only",
    "leave it out, or use a token for all models",
)


class _Message(msgspec.Struct, frozen=True):
    content: msgspec.Raw = _ABSENT
    output: msgspec.Raw = _ABSENT  # of a call, in an item of responses
    audio: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT


class _Part(msgspec.Struct, frozen=True):
    """A part of a message in any dialect, or the source of one."""

    type: str | None = None
    file_id: msgspec.Raw = _ABSENT
    file: msgspec.Raw = _ABSENT
    source: msgspec.Raw = _ABSENT
    content: msgspec.Raw = _ABSENT


_text = msgspec.json.Decoder(str)
_texts = msgspec.json.Decoder(list[str])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_messages = msgspec.json.Decoder(list[_Message])
_part = msgspec.json.Decoder(_Part)
_parts = msgspec.json.Decoder(list[_Part])


def require_plain(dialect: Dialect, body: Body, rule: Rule = GATEWAYS_KEY) -> None:
    """Raise :exc:`InvalidRequest` for the first that may cost or read more than its tokens.

    In a worker thread for a large ``body``; no step holds the interpreter for long.
    """
    plain, looked_into = _MEMBERS[dialect]  # nobody asks us in the words of Ollama
    for name, value in body.items():
        if name in plain or value in _NOTHING:
            continue
        find = looked_into.get(name)
        if find is None:
            raise _refused(name, rule)
        try:
            found = find(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = ""  # nothing that could be looked into
        if found is not None:
            raise _refused(f"{name}{found}", rule)


def require_plain_model(model: str) -> None:
    """Raise :exc:`InvalidRequest` for a provider's name that stands for more than a model."""
    if _WITH_MORE.search(model):
        raise _refused("model", GATEWAYS_KEY)


def _refused(place: str, rule: Rule) -> InvalidRequest:
    return InvalidRequest.at(place[:200], rule.reason, rule.remedy, fault=Fault.UNSUPPORTED)


def _one_of(known: Collection[str], value: bytes) -> str | None:
    return None if _text.decode(value) in known else ""


def _only_text(value: bytes) -> str | None:
    return None if set(_texts.decode(value)) <= {"text"} else ""


def _unstored(value: bytes) -> str | None:
    return None if value == b"false" else ""


def _usual_reasoning(value: bytes) -> str | None:
    mode = _object.decode(value).get("mode", _ABSENT)
    return None if _is_null(mode) or _text.decode(mode) == "standard" else ".mode"


def _only_clears(value: bytes) -> str | None:
    """Summing up costs tokens that an answer's usage leaves out."""
    for name, edits in _object.decode(value).items():
        if name != "edits":
            return f".{name}"
        for number, edit in enumerate(_objects.decode(edits)):
            if not _CLEARING.fullmatch(_text.decode(edit.get("type", _ABSENT))):
                return f".edits[{number}].type"
    return None


def _functions(known: frozenset[str], value: bytes) -> str | None:
    """Of OpenAI's dialects: two kinds are the caller's to run."""
    return _tools(value, known, lambda kind: kind in ("function", "custom"))


def _tools_of_messages(value: bytes) -> str | None:
    def is_the_callers(kind: str) -> bool:
        return kind == "custom" or _RUN_BY_CALLERS.fullmatch(kind) is not None

    return _tools(value, plain_members.MESSAGES_TOOL, is_the_callers)


def _tools(
    value: bytes, known: frozenset[str], is_the_callers: Callable[[str], bool]
) -> str | None:
    for number, tool in enumerate(_objects.decode(value)):
        kind = tool.get("type", _ABSENT)
        if not _is_null(kind) and not is_the_callers(_text.decode(kind)):
            return f"[{number}].type"
        for name, member in tool.items():
            if name not in known and not _is_null(member):
                return f"[{number}].{name}"
    return None


def _conversation(known: frozenset[str] | None, value: bytes) -> str | None:
    """In messages of any dialect; ``known`` types of parts, None where a parser knows them."""
    for number, message in enumerate(_messages.decode(_without_long_texts(value))):
        found = _in_message(message, known)
        if found is not None:
            return f"[{number}]{found}"
    return None


def _in_message(message: _Message, known: frozenset[str] | None) -> str | None:
    if not _is_null(message.audio):
        return ".audio"
    if not _is_null(message.tools):
        return ".tools"
    found = _content(message.content, known)
    if found is not None:
        return f".content{found}"
    found = _content(message.output, known)
    return None if found is None else f".output{found}"


def _content(value: msgspec.Raw, known: frozenset[str] | None) -> str | None:
    """In a text, a list of parts, or one of them."""
    if value is _ABSENT:
        return None
    match _first(value):
        case _Json.TEXT | _Json.NULL:
            return None
        case _Json.OBJECT:
            return _in_part(_part.decode(value), known)
    for number, part in enumerate(_parts.decode(value)):
        found = _in_part(part, known)
        if found is not None:
            return f"[{number}]{found}"
    return None


def _in_part(part: _Part, known: frozenset[str] | None) -> str | None:
    if known is not None and part.type is not None and part.type not in known:
        return ".type"
    if not _is_null(part.file_id):
        return _KEPT_THERE
    # The source of a search's result is an address, and one of a document another part.
    if not _is_null(part.source) and _first(part.source) != _Json.TEXT:
        found = _in_source(part.source, known)
        if found is not None:
            return f".source{found}"
    if not _is_null(part.file):
        found = _in_source(part.file, known)
        if found is not None:
            return f".file{found}"
    found = _content(part.content, known)
    return None if found is None else f".content{found}"


def _in_source(value: msgspec.Raw, known: frozenset[str] | None) -> str | None:
    source = _part.decode(value)
    if not _is_null(source.file_id):
        return _KEPT_THERE
    found = _content(source.content, known)
    return None if found is None else f".content{found}"


def _system(value: bytes) -> str | None:
    return _content(msgspec.Raw(value), plain_members.MESSAGES_BLOCKS)


def _items(value: bytes) -> str | None:
    """In the input of responses, whose parser knows all types of parts."""
    return None if value.startswith(b'"') else _conversation(None, value)


def _without_long_texts(value: bytes) -> bytes:
    """What is looked for are names and types, which are short."""
    if len(value) <= STEP:
        return value
    return Hollow.of(value, most_quotes=len(value)).text


def _is_null(value: msgspec.Raw) -> bool:
    return value is _ABSENT or _first(value) == _Json.NULL


def _first(value: msgspec.Raw) -> int:
    """What kind of JSON it is."""
    return memoryview(value)[0]


class _Json(IntEnum):
    """By its first byte."""

    NULL = ord("n")
    OBJECT = ord("{")
    TEXT = ord('"')


_tier = partial(_one_of, _PLAIN_TIERS)
_MEMBERS: Mapping[Dialect, tuple[frozenset[str], Mapping[str, _Find]]] = {
    Dialect.OPENAI: (
        plain_members.CHAT | plain_members.COMPATIBLE,
        {
            "messages": partial(_conversation, plain_members.CHAT_PARTS),
            "modalities": _only_text,
            "reasoning": _usual_reasoning,
            "service_tier": _tier,
            "store": _unstored,
            "tools": partial(_functions, plain_members.CHAT_TOOL),
        },
    ),
    Dialect.RESPONSES: (
        plain_members.RESPONSES,
        {
            "input": _items,
            "reasoning": _usual_reasoning,
            "service_tier": _tier,
            "tools": partial(_functions, plain_members.RESPONSES_TOOL),
        },
    ),
    Dialect.ANTHROPIC: (
        plain_members.MESSAGES,
        {
            "context_management": _only_clears,
            "inference_geo": partial(_one_of, ("global",)),
            "messages": partial(_conversation, plain_members.MESSAGES_BLOCKS),
            "service_tier": _tier,
            "speed": partial(_one_of, ("standard",)),
            "system": _system,
            "tools": _tools_of_messages,
        },
    ),
}
