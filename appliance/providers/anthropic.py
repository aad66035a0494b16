"""Anthropic's Messages API."""

from collections.abc import Sequence

from appliance.model.calls import Dialect, ModelCall
from appliance.protocols.answers import WholeAnswer
from appliance.protocols.anthropic_answers import StreamReader
from appliance.protocols.anthropic_messages import VERSION, encode_request
from appliance.protocols.openai_answers import Completion
from appliance.providers.connections import Response
from appliance.providers.http_provider import listed_ids
from appliance.providers.replies import Context, StreamedReply


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

    def reply(self, response: Response, context: Context) -> StreamedReply:
        return StreamedReply(response, StreamReader(), context)

    def read_whole(self, text: bytes) -> WholeAnswer:
        return Completion(text)

    def read_models(self, body: bytes) -> Sequence[str]:
        return listed_ids(body)
