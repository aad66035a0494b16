"""OpenAI's chat completions, and everything that speaks like them."""

from collections.abc import Sequence

from appliance.model.calls import Dialect, ModelCall
from appliance.protocols.answers import WholeAnswer
from appliance.protocols.openai_answers import Completion, StreamReader
from appliance.protocols.openai_chat import MaxTokensField, encode_request
from appliance.protocols.translation import translated
from appliance.providers.connections import Response
from appliance.providers.http_provider import listed_ids
from appliance.providers.openai_embeddings import OpenAiEmbeddings
from appliance.providers.replies import Context, RelayedReply


class OpenAiWire(OpenAiEmbeddings):
    dialect = Dialect.OPENAI
    chat_path = "/chat/completions"
    models_path = "/models"
    headers: Sequence[tuple[str, str]] = ()
    answer_types = frozenset({b"text/event-stream"})

    def __init__(self, *, max_tokens_field: MaxTokensField | None = None) -> None:
        self._max_tokens_field = max_tokens_field

    def authorization(self, api_key: str) -> tuple[str, str]:
        return "Authorization", f"Bearer {api_key}"

    def encode(self, call: ModelCall) -> bytes:
        return encode_request(
            translated(call, Dialect.OPENAI), max_tokens_field=self._max_tokens_field
        )

    def reply(self, response: Response, context: Context) -> RelayedReply:
        return RelayedReply(response, StreamReader(), context, dialect=Dialect.OPENAI)

    def read_whole(self, text: bytes) -> WholeAnswer:
        return Completion(text)

    def read_models(self, body: bytes) -> Sequence[str]:
        return listed_ids(body)
