"""Ollama's own API. (It speaks OpenAI's too: ``dialect: openai`` with ``…/v1`` works as well.)"""

from collections.abc import Sequence

import msgspec

from appliance.model.calls import Dialect, ModelCall
from appliance.model.embeddings import EmbeddingAnswer, EmbeddingCall
from appliance.protocols import ollama_embeddings
from appliance.protocols.answers import WholeAnswer
from appliance.protocols.ollama_chat import StreamReader, encode_request
from appliance.protocols.openai_answers import Completion
from appliance.providers.connections import Response
from appliance.providers.errors import refuse_tokens
from appliance.providers.replies import Context, StreamedReply


class _Model(msgspec.Struct):
    name: str


class _Tags(msgspec.Struct):
    models: list[_Model]


class OllamaWire:
    dialect = Dialect.OLLAMA
    chat_path = "/api/chat"
    models_path = "/api/tags"
    embeddings_path = "/api/embed"
    headers: Sequence[tuple[str, str]] = ()
    answer_types = frozenset({b"application/x-ndjson"})

    def authorization(self, api_key: str) -> tuple[str, str]:
        return "Authorization", f"Bearer {api_key}"

    def encode(self, call: ModelCall) -> bytes:
        return encode_request(call)

    def reply(self, response: Response, context: Context) -> StreamedReply:
        return StreamedReply(response, StreamReader(), context)

    def read_whole(self, text: bytes) -> WholeAnswer:
        return Completion(text)

    def read_models(self, body: bytes) -> Sequence[str]:
        return [model.name for model in msgspec.json.decode(body, type=_Tags).models]

    def encode_embeddings(self, call: EmbeddingCall) -> bytes:
        refuse_tokens(call, "Ollama")
        return ollama_embeddings.encode_request(call)

    def read_embeddings(self, text: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
        return ollama_embeddings.read_answer(text, call)
