"""OpenAI's Responses API, and everything that speaks like it. It is asked to keep nothing."""

from collections.abc import Sequence

from appliance.model.calls import Dialect, ModelCall
from appliance.protocols.answers import WholeAnswer
from appliance.protocols.responses.answers import ResponseAnswer, StreamReader
from appliance.protocols.responses.outgoing import encode_count, encode_request
from appliance.protocols.translation import translated
from appliance.providers.connections import Response
from appliance.providers.counting import counted
from appliance.providers.http_provider import HttpProvider, listed_ids
from appliance.providers.openai_embeddings import OpenAiEmbeddings
from appliance.providers.replies import Context, StreamedReply

_COUNT_PATH = "/responses/input_tokens"


class ResponsesWire(OpenAiEmbeddings):
    """Nothing is relayed: the ids of a response and what is kept of it are ours."""

    dialect = Dialect.RESPONSES
    chat_path = "/responses"
    models_path = "/models"
    headers: Sequence[tuple[str, str]] = ()
    answer_types = frozenset({b"text/event-stream"})

    def authorization(self, api_key: str) -> tuple[str, str]:
        return "Authorization", f"Bearer {api_key}"

    def encode(self, call: ModelCall) -> bytes:
        return encode_request(translated(call, Dialect.RESPONSES))

    def reply(self, response: Response, context: Context) -> StreamedReply:
        return StreamedReply(response, StreamReader(), context)

    def read_whole(self, text: bytes) -> WholeAnswer:
        return ResponseAnswer(text)

    def read_models(self, body: bytes) -> Sequence[str]:
        return listed_ids(body)


async def count_tokens(provider: HttpProvider, call: ModelCall, api_key: str | None = None) -> int:
    """How many tokens a provider of this dialect counts in the prompt of a call in it.

    Raises :exc:`ProviderFailure`, also from one that does not count.
    """
    return await counted(provider, _COUNT_PATH, call, encode_count, api_key=api_key)
