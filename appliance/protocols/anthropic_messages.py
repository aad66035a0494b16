"""A call of Anthropic's Messages API as it goes out.

Reference: "Create a Message". A caller of this dialect has its members passed
on as they are; all others are translated first.
"""

from dataclasses import replace
from typing import Any

import msgspec

from appliance.model.calls import Dialect, ModelCall
from appliance.model.errors import InvalidRequest
from appliance.protocols.anthropic_prompts import DEFAULT_MAX_TOKENS
from appliance.protocols.translation import translated

VERSION = "2023-06-01"

_OURS = frozenset({"model", "max_tokens", "stream"})
_LEAST_THINKING = 1024  # tokens ("Extended thinking": the least budget)


def encode_request(call: ModelCall) -> bytes:
    """Return the request body for ``call``; raise :exc:`InvalidRequest` naming the field.

    An answer to a caller of another dialect is always asked for as a stream,
    and put together from it where it is wanted in one piece: there is then one
    way to read it, and what a cancelled call used is known.
    """
    asked = _thinking_less(translated(call, Dialect.ANTHROPIC))
    streams = call.stream or call.dialect is not Dialect.ANTHROPIC
    members = [b'{"model":' + msgspec.json.encode(call.model)]
    members += [
        msgspec.json.encode(name) + b":" + value
        for name, value in asked.body.items()
        if name not in _OURS
    ]
    if asked.output_limit is not None:
        members.append(b'"max_tokens":%d' % asked.output_limit)
    else:
        members.append(b'"max_tokens":' + asked.body.get("max_tokens", b"%d" % DEFAULT_MAX_TOKENS))
    if streams:
        members.append(b'"stream":true')
    return b",".join(members) + b"}"


def _thinking_less(call: ModelCall) -> ModelCall:
    """Fit the thinking into an answer that may not have all the tokens that were asked for.

    Its budget has to be less than ``max_tokens``, or the provider refuses the
    request for a figure that the caller never gave.
    """
    limit, thinking = call.output_limit, call.body.get("thinking")
    if limit is None or thinking is None:
        return call
    wanted, given = (_decode(call.body.get("max_tokens", b"null")), _decode(thinking))
    budget = given.get("budget_tokens") if isinstance(given, dict) else None
    if not isinstance(budget, int) or not isinstance(wanted, int) or not limit <= budget < wanted:
        return call
    if limit <= _LEAST_THINKING:
        raise InvalidRequest.at(
            "thinking",
            f"needs at least {_LEAST_THINKING} tokens besides the answer, which may have {limit}",
            "ask without it, or have the limit raised that leaves so few",
        )
    less = min(limit - 1, max(_LEAST_THINKING, budget * limit // wanted))
    fitting = msgspec.json.encode({**given, "budget_tokens": less})
    return replace(call, body={**call.body, "thinking": fitting})


def _decode(value: bytes) -> Any:
    return msgspec.json.decode(value)
