"""``GET /v1/models`` and ``/v1/models/{id}``: what this tenant may name."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from appliance.model.callers import Caller
from appliance.model.errors import MethodNotAllowed, ModelUnknown
from appliance.model.tokens import Scope
from appliance.services.routing import CatalogueEntry
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.callers import ACCEPTED_AT, read_headers
from appliance.transports.openai_api.answers import Answer
from appliance.transports.openai_api.chat import Door, Tenants

PATH = "/v1/models"


@dataclass(frozen=True, slots=True)
class ModelsRoute:
    door: Door
    tenants: Tenants
    list_models: Callable[[TenantRuntime], Awaitable[Sequence[CatalogueEntry]]]
    since: datetime  # when this gateway began to offer them; OpenAI's "created"

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        presented = read_headers(scope["headers"])
        answer = Answer(
            send,
            receive,
            request_id=presented.request_id,
            received_at=scope[ACCEPTED_AT],
            streams=False,
            keep_alive=self.door.config.server.sse_keepalive,
            send_timeout=self.door.config.server.body_timeout,
            limits=tuple,
        )
        caller: Caller | None = None
        try:
            if scope["method"] not in {"GET", "HEAD"}:
                raise MethodNotAllowed(f"{PATH} answers GET", allow="GET, HEAD")
            caller = self.door.admit(scope, presented)
            caller.require(Scope.CHAT if caller.may(Scope.CHAT) else Scope.READ)
            runtime = await self.tenants.runtime(caller.require_tenant())
            entries = await self.list_models(runtime)
            await answer.whole(_render(scope["path"], entries, int(self.since.timestamp())))
        except Exception as error:  # noqa: BLE001 - the edge: refuse logs what nobody foresaw
            await answer.fail(self.door.refuse(error, request_id=presented.request_id))
        finally:
            self.door.note(scope, caller, answer)


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
