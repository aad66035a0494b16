"""Ollama's embeddings, ``POST /api/embed``: texts to lists of numbers."""

import msgspec

from appliance.model.embeddings import EmbeddingAnswer, EmbeddingCall
from appliance.model.usage import TokenUsage
from appliance.protocols import long_json
from appliance.protocols.answers import count
from appliance.protocols.embeddings import answer_of, trouble_in


class _Embedded(msgspec.Struct):
    embeddings: list[msgspec.Raw]
    model: str = ""
    prompt_eval_count: int | float | None = None


_embedded = msgspec.json.Decoder(_Embedded)


def encode_request(call: EmbeddingCall) -> bytes:
    """The request in Ollama's words; it has none for tokens."""
    # Unless told otherwise, Ollama cuts what is too long and says nothing.
    request: dict[str, object] = {"model": call.model, "input": call.texts, "truncate": False}
    if call.dimensions is not None:
        request["dimensions"] = call.dimensions
    return long_json.encode(request)


def read_answer(text: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
    """Read an answer; raise :exc:`AnswerFailed` for one that is not whole."""
    try:
        answer = _embedded.decode(text)
    except (ValueError, RecursionError):
        raise trouble_in(text) from None
    tokens = count(answer.prompt_eval_count)
    return answer_of(
        answer.embeddings,
        call,
        model=answer.model or call.model,
        usage=TokenUsage(input=tokens) if tokens else None,
    )
