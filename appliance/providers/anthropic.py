"""Anthropic's Messages API."""

from collections.abc import Sequence

import msgspec

from appliance.model.calls import Dialect, ModelCall
from appliance.protocols.answers import WholeAnswer
from appliance.protocols.anthropic_answers import MessageAnswer, StreamReader
from appliance.protocols.anthropic_messages import VERSION, encode_request
from appliance.providers.connections import Response
from appliance.providers.counting import counted
from appliance.providers.http_provider import HttpProvider, listed_ids
from appliance.providers.replies import Context, RelayedReply

_COUNT_PATH = "/v1/messages/count_tokens"


class AnthropicWire:
    dialect = Dialect.ANTHROPIC
    chat_path = "/v1/messages"
    models_path = "/v1/models?limit=1000"
    headers: Sequence[tuple[str, str]] = (("Anthropic-Version", VERSION),)
    answer_types = frozenset({b"text/event-stream"})

    def authorization(self, api_key: str) -> tuple[str, str]:
        return "X-Api-Key", api_key

    def encode(self, call: ModelCall) -> bytes:
        return encode_request(call)

    def reply(self, response: Response, context: Context) -> RelayedReply:
        reader = StreamReader(prompt_bytes=context.prompt_bytes)
        return RelayedReply(response, reader, context, dialect=Dialect.ANTHROPIC)

    def read_whole(self, text: bytes) -> WholeAnswer:
        return MessageAnswer(text)

    def read_models(self, body: bytes) -> Sequence[str]:
        return listed_ids(body)


async def count_tokens(provider: HttpProvider, call: ModelCall, api_key: str | None = None) -> int:
    """How many tokens a provider of this dialect counts in the prompt of a call in it.

    Raises :exc:`ProviderFailure`, also from a provider that only speaks half of the API.
    """
    return await counted(
        provider, _COUNT_PATH, call, _prompt, api_key=api_key, headers=call.headers
    )


def _prompt(call: ModelCall) -> bytes:
    members = [b'{"model":' + msgspec.json.encode(call.model)]
    members += [
        msgspec.json.encode(name) + b":" + value
        for name, value in call.body.items()
        if name != "model"
    ]
    return b",".join(members) + b"}"
