"""Asking a provider how many tokens it counts in a prompt."""

from collections.abc import Callable, Mapping

import trio

from appliance.model.calls import ModelCall
from appliance.model.errors import UpstreamFailed
from appliance.protocols.answers import MalformedAnswer, count, decode_object
from appliance.protocols.json_body import INLINE_BYTES
from appliance.providers.http_provider import HttpProvider

_LARGEST = 64 * 1024  # bytes


async def counted(
    provider: HttpProvider,
    path: str,
    call: ModelCall,
    encode: Callable[[ModelCall], bytes],
    *,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> int:
    """The ``input_tokens`` that it answers at ``path``.

    Raises :exc:`ProviderFailure`, also from a provider that only speaks half of the API.
    """
    if sum(map(len, call.body.values())) <= INLINE_BYTES:
        body = encode(call)
    else:
        body = await trio.to_thread.run_sync(encode, call)
    answer = await provider.post(path, body, limit=_LARGEST, api_key=api_key, headers=headers)
    try:
        tokens = count(decode_object(answer).get("input_tokens"))
    except MalformedAnswer:
        tokens = None
    if tokens is None:
        raise UpstreamFailed(f"{provider.name} counted no tokens")
    return tokens
