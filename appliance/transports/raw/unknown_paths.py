"""Paths of OpenAI's and Anthropic's APIs that there is nothing at.

Their clients read an error in the form of their API, and nothing else of it.
"""

from collections.abc import Mapping

from appliance.model.errors import NotFound
from appliance.transports.gateway import Endpoint
from appliance.transports.raw.exchange import Exchange

LABEL = "unmatched"  # as the metrics call it

# Asked for by clients of either; which one is told by a header.
_OF_BOTH = (
    "assistants",
    "audio",
    "batches",
    "chat",
    "complete",
    "completions",
    "containers",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "moderations",
    "organizations",
    "realtime",
    "skills",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
)


class UnknownPathHandler:
    async def __call__(self, exchange: Exchange) -> None:
        request_id = exchange.answer.request_id.encode()
        exchange.more_headers = lambda: ((b"request-id", request_id),)
        raise NotFound("there is nothing at this path; GET /docs lists what there is")


def unknown_paths(
    *, either: Endpoint, openai: Endpoint, anthropic: Endpoint
) -> dict[str, Endpoint]:
    """Each path (a prefix ends in ``/``) with the endpoint that says so."""
    found: Mapping[str, Endpoint] = {
        path: either for name in _OF_BOTH for path in (f"/v1/{name}", f"/v1/{name}/")
    }
    return {**found, "/v1/embeddings/": openai, "/v1/messages/": anthropic}
