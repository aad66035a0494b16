"""A request of the Responses API as a provider gets it: nothing of it is kept there.

What a provider stores is found again by ids of its own, so ids are left out,
and so is what only we could read.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import InvalidRequest, ProviderFailure, QuotaExceeded
from appliance.protocols import request_members
from appliance.protocols.responses import seals
from appliance.protocols.responses.asides import HOSTED
from appliance.protocols.responses.items import TOOL_CALL, Item, input_items
from appliance.protocols.responses.messages import SUMMARY
from appliance.protocols.responses.options import ENCRYPTED_REASONING, TOOL_CALLS, read_include

_OURS = frozenset(
    {
        "background",
        "context_management",
        "conversation",
        "include",
        "input",
        "max_output_tokens",
        "model",
        "previous_response_id",
        "store",
        "stream",
        "stream_options",
        "type",
    }
)
# What a count reads; it refuses the rest.
_COUNTED = frozenset(
    {
        "instructions",
        "parallel_tool_calls",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    }
)
LEAST_OUTPUT = 16  # tokens; the API takes no lower limit
# OpenAI's that do not think: they refuse to be asked for their thoughts.
_THOUGHTLESS = re.compile(r"(?:chatgpt-|gpt-)(?:3\.5|4)")


class LimitTooLow(ProviderFailure, InvalidRequest):
    """The caller wants fewer tokens than this API can be told; another one may do."""


class TooLittleLeft(ProviderFailure, QuotaExceeded):
    """The gateway allows fewer tokens than this API can be told.

    Not retryable: it says nothing about the provider, which is not to cool down for it.
    """

    retryable = False


def require_limit(limit: int | None, name: str) -> None:
    """Raise :exc:`LimitTooLow` for a limit below the least there is; ``name`` is the caller's.

    A higher one in its place would be exceeded, and billed.
    """
    if limit is not None and limit < LEAST_OUTPUT:
        raise LimitTooLow.at(
            name,
            f"this model's provider takes no limit below {LEAST_OUTPUT} tokens",
            "raise it, or use another model",
        )


def encode_request(call: ModelCall) -> bytes:
    """Return the body for ``call``, which is in this dialect; the answer is always a stream.

    An answer in one piece is put together from the stream: ids and state of the
    response are ours. Raises :exc:`InvalidRequest` and :exc:`TooLittleLeft`.
    """
    members = {name: value for name, value in call.body.items() if name not in _OURS}
    members["model"] = msgspec.json.encode(call.model)
    members["input"] = request_members.encoded("input", _input(call.body))
    members["stream"] = b"true"
    members["store"] = b"false"
    if include := _include(call):
        members["include"] = msgspec.json.encode(include)
    if call.output_limit is not None:
        if call.output_limit < LEAST_OUTPUT:
            raise TooLittleLeft(
                f"{call.output_limit} tokens are left for the answer by a budget, a rate or a "
                f"guardrail, and this model's provider takes no limit below {LEAST_OUTPUT}"
            )
        members["max_output_tokens"] = b"%d" % call.output_limit
    elif "max_output_tokens" in call.body:
        members["max_output_tokens"] = call.body["max_output_tokens"]
    # The members hold JSON text already.
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in members.items()})


def encode_count(call: ModelCall) -> bytes:
    """The body that asks how many tokens ``call``, which is in this dialect, has."""
    members = {name: value for name, value in call.body.items() if name in _COUNTED}
    members["model"] = msgspec.json.encode(call.model)
    members["input"] = request_members.encoded("input", _input(call.body))
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in members.items()})


def _include(call: ModelCall) -> Sequence[str]:
    included = read_include(request_members.read_member(call.body, "include")) - {TOOL_CALLS}
    if not _THOUGHTLESS.match(call.model.rpartition("/")[2]):
        included |= {ENCRYPTED_REASONING}
    return sorted(included)


def _input(body: Mapping[str, bytes]) -> Sequence[Item]:
    raw = request_members.read_member(body, "input")
    items = () if raw is None else input_items(raw, "input")
    return [sent for item in items for sent in _sent(item)]


def _sent(item: Item) -> Iterator[Item]:
    bare = {name: value for name, value in item.items() if name not in {"id", "status"}}
    match item:
        case {"type": "message"}:
            yield {**bare, "content": [_part(part) for part in item["content"]]}
        case {"type": "reasoning"}:
            if thought := _thought(bare):
                yield thought
        case {"type": "compaction", "encrypted_content": sealed}:
            summary = seals.summary_of(sealed)
            if summary is None:
                yield bare  # a provider's own
            else:
                yield {"type": "message", "role": "user", "content": SUMMARY + summary}
        case {"type": kind} if kind == TOOL_CALL:
            call = {name: item[name] for name in ("call_id", "name", "arguments")}
            yield {"type": "function_call", **call}
            output = item["output"]
            yield {
                "type": "function_call_output",
                "call_id": item["call_id"],
                "output": output,
            }
        case {"type": "function_call_output" | "custom_tool_call_output", "output": list(parts)}:
            yield {**bare, "output": [_part(part) for part in parts]}
        case {"type": kind, "id": str(item_id)} if kind in HOSTED:
            yield {**item, "id": _disguised(item_id, HOSTED[kind])}
        case {"type": "mcp_approval_response", "approval_request_id": str(request_id)}:
            prefix = HOSTED["mcp_approval_request"]
            yield {**bare, "approval_request_id": _disguised(request_id, prefix)}
        case _:
            yield bare


def _disguised(item_id: str, prefix: str) -> str:
    """An id for an item that must have one there.

    Whatever a caller calls an item, this is the name of nothing that is kept with
    the key's owner. It is the same each time, because approvals refer to it.
    """
    return f"{prefix}_{hashlib.sha256(item_id.encode()).hexdigest()[:48]}"


def _thought(item: Item) -> Item | None:
    """None for one that no provider of this API made, or that nothing is left of."""
    sealed = item.get("encrypted_content", "")
    if not seals.is_ours(sealed):
        return item if sealed or item.get("content") else None
    hidden = seals.hidden_of(sealed, Dialect.RESPONSES)
    return None if hidden is None else {**item, "encrypted_content": hidden}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is only told about an answer, and without nulls."""
    told = {"logprobs"} if part.get("annotations") else {"logprobs", "annotations"}
    return {name: value for name, value in part.items() if name not in told and value is not None}
