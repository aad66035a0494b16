"""What a model thought earlier, in a request that goes on as it came.

A conversation may begin with one model and go on with another. Thoughts that
one provider sealed mean nothing to the next, and OpenAI and Anthropic refuse a
request that holds such: they are taken out. Everything else stays as it is, and
a request without them is not even parsed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from appliance.model.calls import Dialect, ModelCall
from appliance.protocols.responses import seals

_messages = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_blocks = msgspec.json.Decoder(list[msgspec.Raw])

# Within a string the quotes around these would be escaped.
_IN_CHAT = b'"thinking_blocks"'
_THOUGHT = b'thinking"'  # of either kind
_HIDDEN = b'"redacted_thinking"'
_UNSIGNED = re.compile(rb'"signature"\s*:\s*""')
# Behind whose name a provider of chat completions may keep what Anthropic signed.
_CLAUDE = re.compile("claude", re.IGNORECASE)


def without_foreign_thoughts(call: ModelCall) -> ModelCall:
    """``call``, which goes to a provider of its own dialect, without thoughts of other ones."""
    messages = call.body.get("messages", b"")
    match call.dialect:
        case Dialect.ANTHROPIC if _may_be_foreign(messages):
            kept = _each(messages, _of_anthropic)
        case Dialect.OPENAI if _IN_CHAT in messages:
            kept = _each(messages, _of_claude if _CLAUDE.search(call.model) else _of_chat)
        case _:
            return call
    return replace(call, body={**call.body, "messages": kept})


def _may_be_foreign(message: bytes) -> bool:
    if _THOUGHT not in message:
        return False
    return _HIDDEN in message or _UNSIGNED.search(message) is not None


def _each(messages: bytes, kept: Callable[[msgspec.Raw], Sequence[msgspec.Raw]]) -> bytes:
    """The messages that are left of ``messages``; those of no known form are the provider's."""
    try:
        found = [each for message in _messages.decode(messages) for each in kept(message)]
    except msgspec.ValidationError:
        return messages
    return msgspec.json.encode(found)


def _of_anthropic(message: msgspec.Raw) -> Sequence[msgspec.Raw]:
    """Without a block that has no signature, or one that we wrote for another provider."""
    if not _may_be_foreign(bytes(message)):
        return [message]
    members = _members.decode(message)
    content = members.get("content", msgspec.Raw(b"null"))
    if not bytes(content).startswith(b"["):
        return [message]
    blocks = [each for block in _blocks.decode(content) for each in _kept_block(block)]
    if not blocks:
        return []  # an empty message is an error there
    members["content"] = _encoded(blocks)
    return [_encoded(members)]


def _kept_block(raw: msgspec.Raw) -> Sequence[msgspec.Raw]:
    if not _may_be_foreign(bytes(raw)):
        return [raw]
    match msgspec.json.decode(raw):
        case {"type": "thinking", "signature": ""}:
            return []
        case {"type": "redacted_thinking", "data": str(data)} as block if seals.is_ours(data):
            hidden = seals.hidden_of(data, Dialect.ANTHROPIC)
            return [] if hidden is None else [_encoded({**block, "data": hidden})]
    return [raw]


def _of_chat(message: msgspec.Raw) -> Sequence[msgspec.Raw]:
    """Without the seals. What was thought in plain words stands beside them."""
    if _IN_CHAT not in bytes(message):
        return [message]
    members = _members.decode(message)
    members.pop("thinking_blocks", None)
    return [_encoded(members)]


def _of_claude(message: msgspec.Raw) -> Sequence[msgspec.Raw]:
    """With those that Anthropic signed: whoever relays its models wants them back."""
    if _IN_CHAT not in bytes(message):
        return [message]
    members = _members.decode(message)
    blocks = msgspec.json.decode(members.pop("thinking_blocks", b"null"))
    if isinstance(blocks, list) and (signed := [each for each in blocks if _is_signed(each)]):
        members["thinking_blocks"] = _encoded(signed)
    return [_encoded(members)]


def _is_signed(block: object) -> bool:
    match block:
        case {"data": str(data)}:
            return not seals.is_ours(data)
        case {"signature": str(signature)}:
            return signature != ""
    return False


def _encoded(value: Mapping[str, Any] | Sequence[Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
