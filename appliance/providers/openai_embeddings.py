"""OpenAI's embeddings: a part of every wire whose base URL has ``/embeddings``."""

from appliance.model.embeddings import EmbeddingAnswer, EmbeddingCall
from appliance.protocols import embeddings


class OpenAiEmbeddings:
    embeddings_path = "/embeddings"

    def encode_embeddings(self, call: EmbeddingCall) -> bytes:
        return embeddings.encode_request(call)

    def read_embeddings(self, text: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
        return embeddings.read_answer(text, call)
