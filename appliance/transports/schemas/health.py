"""Health, readiness and status on the wire."""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from appliance.transports.schemas.base import View


class Alive(View, frozen=True):
    status: Literal["ok"] = "ok"


class CheckView(View, frozen=True):
    name: str
    verdict: Literal["ok", "warning", "broken"]
    found: str
    remedy: str = ""


class Ready(View, frozen=True):
    status: Literal["ready", "not ready"]
    reasons: Annotated[Sequence[str], Meta(description="Why not; empty while ready.")]
    warnings: Annotated[Sequence[str], Meta(description="What is wrong but stops nothing.")]
    loop_lag_ms: Annotated[
        float, Meta(description="How late the event loop ran: p99 of the last half minute.")
    ]
