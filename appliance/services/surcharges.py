"""What a request asks of a provider beyond the tokens that are counted and priced.

Dearer tiers, other models than the one that is named, tools that the provider
runs and bills, sound, files and prompts that are stored with the key's owner:
with the gateway's own key somebody else pays for them, or is read. So only what
is known to be paid for by its tokens goes out with that key (see
``plain_members``), and of the rest what the operator gave a price in
``models.rate_card`` and the answer counts: searches of the web, and sound. All
else is refused by name unless the operator allows it with
``providers.<name>.extras``. With a tenant's own key it is its own business,
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
from appliance.services.estimates import MOST_SEARCHES

Body = Mapping[str, bytes]  # a request's top-level members as JSON text

# Tools that search, with their members.
_Searches = Mapping[str, frozenset[str]]
_Knows = Callable[[str], bool]  # types of parts
# Where in a member there is something that is not plain ("" for all of it), None if nowhere.
_Find = Callable[[bytes], str | None]

_NULL = b"null"
_NOTHING = (_NULL, b"[]")
_NOT_STREAMED = (_NULL, b"false")
_NO_SEARCHES: _Searches = {}
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
_SOUND = "input_audio"
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
LEFT_EARLY = Rule(
    "cannot be billed with sound in the answer: who leaves early is not told how much there was",
    "ask for the answer in one piece",
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
    input_audio: msgspec.Raw = _ABSENT
    name: msgspec.Raw = _ABSENT  # of a tool


_number = msgspec.json.Decoder(int)
_text = msgspec.json.Decoder(str)
_texts = msgspec.json.Decoder(list[str])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_messages = msgspec.json.Decoder(list[_Message])
_part = msgspec.json.Decoder(_Part)
_parts = msgspec.json.Decoder(list[_Part])


def require_plain(
    dialect: Dialect,
    body: Body,
    rule: Rule = GATEWAYS_KEY,
    priced: Collection[str] = (),
) -> None:
    """Raise :exc:`InvalidRequest` for the first that may cost or read more than its tokens.

    What is ``priced`` (keys of the rate card) may cost more. In a worker thread
    for a large ``body``; no step holds the interpreter for long.
    """
    plain, looked_into = _MEMBERS[dialect]  # nobody asks us in the words of Ollama
    for name, value in body.items():
        if name in plain or value in _NOTHING:
            continue
        found = _found(looked_into.get(name), value)
        if found is None:
            continue
        surcharge = _SURCHARGES[dialect].get(name)
        beyond = found if surcharge is None else _found(surcharge.find, value)
        if surcharge is None or beyond == found:
            raise _refused(f"{name}{found}", rule)
        if surcharge.key not in priced:
            raise _refused(f"{name}{found}", rule, surcharge.key)
        if beyond is not None:
            raise _refused(f"{name}{beyond}", rule)
        if surcharge.key == "output_audio" and body.get("stream", _NULL) not in _NOT_STREAMED:
            raise _refused("stream", LEFT_EARLY)


def _found(find: _Find | None, value: bytes) -> str | None:
    if find is None:
        return ""
    try:
        return find(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # nothing that could be looked into


def require_plain_model(model: str) -> None:
    """Raise :exc:`InvalidRequest` for a provider's name that stands for more than a model."""
    if _WITH_MORE.search(model):
        raise _refused("model", GATEWAYS_KEY)


def _refused(place: str, rule: Rule, key: str | None = None) -> InvalidRequest:
    """``key`` of the rate card would allow it."""
    remedy = rule.remedy
    if rule is GATEWAYS_KEY and key is not None:
        remedy = f"{remedy} or a price: models.rate_card.*.{key}"
    return InvalidRequest.at(place[:200], rule.reason, remedy, fault=Fault.UNSUPPORTED)


def _one_of(known: Collection[str], value: bytes) -> str | None:
    return None if _text.decode(value) in known else ""


def _modalities(known: Collection[str], value: bytes) -> str | None:
    return None if all(name in known for name in _texts.decode(value)) else ""


def _usual_voice(value: bytes) -> str | None:
    """One that is named; others belong to somebody."""
    return _only(("voice", "format"), _object.decode(value))


def _only(known: Collection[str], members: Mapping[str, msgspec.Raw]) -> str | None:
    for name, member in members.items():
        if name not in known or _first(member) != _Json.TEXT:
            return f".{name}"
    return None


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


def _functions(known: frozenset[str], searches: _Searches, value: bytes) -> str | None:
    """Of OpenAI's dialects: two kinds are the caller's to run."""
    return _tools(value, known, lambda kind: kind in ("function", "custom"), searches)


def _tools_of_messages(searches: _Searches, value: bytes) -> str | None:
    def is_the_callers(kind: str) -> bool:
        return kind == "custom" or _RUN_BY_CALLERS.fullmatch(kind) is not None

    return _tools(value, plain_members.MESSAGES_TOOL, is_the_callers, searches)


def _tools(
    value: bytes,
    known: frozenset[str],
    is_the_callers: Callable[[str], bool],
    searches: _Searches,
) -> str | None:
    """One tool may be one of ``searches``: what is reserved is for no more."""
    has_search = False
    for number, tool in enumerate(_objects.decode(value)):
        given = tool.get("type", _ABSENT)
        kind = "" if _is_null(given) else _text.decode(given)
        is_search = kind in searches and not has_search
        if not (is_search or _is_null(given) or is_the_callers(kind)):
            return f"[{number}].type"
        members = searches[kind] if is_search else known
        for name, member in tool.items():
            if name not in members and not _is_null(member):
                return f"[{number}].{name}"
        most = tool.get("max_uses", _ABSENT)
        if is_search and not _is_null(most) and not 0 < _number.decode(most) <= MOST_SEARCHES:
            return f"[{number}].max_uses"
        has_search = has_search or is_search
    return None


def _conversation(knows: _Knows, value: bytes) -> str | None:
    """In messages of any dialect, of whose parts these types are known."""
    for number, message in enumerate(_messages.decode(_without_long_texts(value))):
        found = _in_message(message, knows)
        if found is not None:
            return f"[{number}]{found}"
    return None


def _in_message(message: _Message, knows: _Knows) -> str | None:
    if not _is_null(message.audio):
        return ".audio"
    if not _is_null(message.tools):
        return ".tools"
    found = _content(message.content, knows)
    if found is not None:
        return f".content{found}"
    found = _content(message.output, knows)
    return None if found is None else f".output{found}"


def _content(value: msgspec.Raw, knows: _Knows) -> str | None:
    """In a text, a list of parts, or one of them."""
    if value is _ABSENT:
        return None
    match _first(value):
        case _Json.TEXT | _Json.NULL:
            return None
        case _Json.OBJECT:
            return _in_part(_part.decode(value), knows)
    for number, part in enumerate(_parts.decode(value)):
        found = _in_part(part, knows)
        if found is not None:
            return f"[{number}]{found}"
    return None


def _in_part(part: _Part, knows: _Knows) -> str | None:
    if part.type is not None and not knows(part.type):
        return ".type"
    if part.type == "server_tool_use" and _text.decode(part.name) != "web_search":
        return ".name"
    if not _is_null(part.input_audio):
        if not knows(_SOUND):
            return ".input_audio"
        found = _only(("data", "format"), _object.decode(part.input_audio))
        if found is not None:
            return f".input_audio{found}"
    if not _is_null(part.file_id):
        return _KEPT_THERE
    # The source of a search's result is an address, and one of a document another part.
    if not _is_null(part.source) and _first(part.source) != _Json.TEXT:
        found = _in_source(part.source, knows)
        if found is not None:
            return f".source{found}"
    if not _is_null(part.file):
        found = _in_source(part.file, knows)
        if found is not None:
            return f".file{found}"
    found = _content(part.content, knows)
    return None if found is None else f".content{found}"


def _in_source(value: msgspec.Raw, knows: _Knows) -> str | None:
    source = _part.decode(value)
    if not _is_null(source.file_id):
        return _KEPT_THERE
    found = _content(source.content, knows)
    return None if found is None else f".content{found}"


def _system(value: bytes) -> str | None:
    return _content(msgspec.Raw(value), plain_members.MESSAGES_BLOCKS.__contains__)


def _items(knows: _Knows, value: bytes) -> str | None:
    """In the input of responses, whose parser knows all types of parts."""
    return None if value.startswith(b'"') else _conversation(knows, value)


def _is_not_sound(kind: str) -> bool:
    return kind != _SOUND


def _is_any(_kind: str) -> bool:
    return True


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
            "messages": partial(_conversation, plain_members.CHAT_PARTS.__contains__),
            "modalities": partial(_modalities, ("text",)),
            "reasoning": _usual_reasoning,
            "service_tier": _tier,
            "store": _unstored,
            "tools": partial(_functions, plain_members.CHAT_TOOL, _NO_SEARCHES),
        },
    ),
    Dialect.RESPONSES: (
        plain_members.RESPONSES,
        {
            "input": partial(_items, _is_not_sound),
            "reasoning": _usual_reasoning,
            "service_tier": _tier,
            "tools": partial(_functions, plain_members.RESPONSES_TOOL, _NO_SEARCHES),
        },
    ),
    Dialect.ANTHROPIC: (
        plain_members.MESSAGES,
        {
            "context_management": _only_clears,
            "inference_geo": partial(_one_of, ("global",)),
            "messages": partial(_conversation, plain_members.MESSAGES_BLOCKS.__contains__),
            "service_tier": _tier,
            "speed": partial(_one_of, ("standard",)),
            "system": _system,
            "tools": partial(_tools_of_messages, _NO_SEARCHES),
        },
    ),
}


@dataclass(frozen=True, slots=True)
class _Surcharge:
    """What is left to find in a member where ``key`` of the rate card has a price."""

    key: str
    find: _Find


_SEARCHED = plain_members.MESSAGES_BLOCKS | plain_members.SEARCH_BLOCKS
_HEARD = plain_members.CHAT_PARTS | {_SOUND}
_SURCHARGES: Mapping[Dialect, Mapping[str, _Surcharge]] = {
    Dialect.OPENAI: {
        "audio": _Surcharge("output_audio", _usual_voice),
        "messages": _Surcharge("input_audio", partial(_conversation, _HEARD.__contains__)),
        "modalities": _Surcharge("output_audio", partial(_modalities, ("text", "audio"))),
    },
    Dialect.RESPONSES: {
        "input": _Surcharge("input_audio", partial(_items, _is_any)),
        "tools": _Surcharge(
            "web_search",
            partial(_functions, plain_members.RESPONSES_TOOL, plain_members.RESPONSES_SEARCHES),
        ),
    },
    Dialect.ANTHROPIC: {
        "messages": _Surcharge("web_search", partial(_conversation, _SEARCHED.__contains__)),
        "tools": _Surcharge(
            "web_search", partial(_tools_of_messages, plain_members.MESSAGES_SEARCHES)
        ),
    },
}
