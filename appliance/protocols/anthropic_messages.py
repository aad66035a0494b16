"""A call of Anthropic's Messages API as it goes out.

Reference: "Create a Message". A caller of this dialect has its members passed
on as they are; all others are translated first.
"""

import msgspec

from appliance.model.calls import Dialect, ModelCall
from appliance.protocols.anthropic_prompts import DEFAULT_MAX_TOKENS
from appliance.protocols.translation import translated

VERSION = "2023-06-01"

_OURS = frozenset({"model", "max_tokens", "stream"})


def encode_request(call: ModelCall) -> bytes:
    """Return the request body for ``call``; raise :exc:`InvalidRequest` naming the field.

    An answer to a caller of another dialect is always asked for as a stream,
    and put together from it where it is wanted in one piece: there is then one
    way to read it, and what a cancelled call used is known.
    """
    asked = translated(call, Dialect.ANTHROPIC)
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
