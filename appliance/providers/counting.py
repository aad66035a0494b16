"""Asking a provider how many tokens it counts in a prompt."""

from collections.abc import Mapping

from appliance.model.errors import UpstreamFailed
from appliance.protocols.answers import MalformedAnswer, count, decode_object
from appliance.providers.http_provider import HttpProvider

_LARGEST = 64 * 1024  # bytes


async def counted(
    provider: HttpProvider,
    path: str,
    body: bytes,
    *,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> int:
    """The ``input_tokens`` that it answers at ``path``.

    Raises :exc:`ProviderFailure`, also from a provider that only speaks half of the API.
    """
    answer = await provider.post(path, body, limit=_LARGEST, api_key=api_key, headers=headers)
    try:
        tokens = count(decode_object(answer).get("input_tokens"))
    except MalformedAnswer:
        tokens = None
    if tokens is None:
        raise UpstreamFailed(f"{provider.name} counted no tokens")
    return tokens
