"""``GET /v1/models`` and ``/v1/models/{id}``: what this tenant may name."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

import msgspec

from appliance.model.errors import ModelUnknown
from appliance.model.tokens import Scope
from appliance.services.routing import CatalogueEntry
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.raw.exchange import Exchange

PATH = "/v1/models"


@dataclass(frozen=True, slots=True)
class ModelsHandler:
    list_models: Callable[[TenantRuntime], Awaitable[Sequence[CatalogueEntry]]]
    since: datetime  # when this gateway began to offer them; OpenAI's "created"

    async def __call__(self, exchange: Exchange) -> None:
        exchange.require_method("GET", "HEAD")
        exchange.admit(Scope.CHAT, Scope.READ)
        entries = await self.list_models(await exchange.wake())
        body = _render(exchange.path, entries, int(self.since.timestamp()))
        await exchange.answer.whole(body)


def _render(path: str, entries: Sequence[CatalogueEntry], created: int) -> bytes:
    # A slash in an id arrives encoded or not, depending on the client.
    wanted = unquote(path.removeprefix(PATH).removeprefix("/"))
    if not wanted:
        return msgspec.json.encode(
            {"object": "list", "data": [_model(e, created) for e in entries]}
        )
    for entry in entries:
        if entry.id == wanted:
            return msgspec.json.encode(_model(entry, created))
    raise ModelUnknown(f"there is no model {wanted[:200]!r}; GET {PATH} lists those there are")


def _model(entry: CatalogueEntry, created: int) -> dict[str, object]:
    return {
        "id": entry.id,
        "object": "model",
        "created": created,
        "owned_by": entry.owned_by,
    }
