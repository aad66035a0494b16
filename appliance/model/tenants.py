"""A tenant as its ``tenant.json`` records it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from appliance.model.quotas import Quotas
from appliance.model.tokens import TokenRecord

LONGEST_NAME = 200  # characters


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """Everything that is true of a tenant whether or not it is awake.

    ``quotas`` holds only what was set for this tenant; :meth:`limits` puts it
    on top of the gateway's defaults. ``version`` grows by one with each write.
    """

    id: str
    name: str
    created_at: datetime
    disabled: bool = False
    disabled_reason: str = ""
    quotas: Mapping[str, int | None] = field(default_factory=dict)
    tokens: tuple[TokenRecord, ...] = ()
    version: int = 1

    def limits(self, defaults: Quotas) -> Quotas:
        return defaults.merged(self.quotas)

    def token(self, token_id: str) -> TokenRecord | None:
        return next((token for token in self.tokens if token.id == token_id), None)
