"""Shapes of terminals and their recordings."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from appliance.transports.schemas.base import View


class TerminalView(View, frozen=True):
    id: str
    agent: str
    title: str
    columns: int
    rows: int
    created_at: datetime
    last_activity_at: Annotated[datetime, Meta(description="When somebody typed or came.")]
    attached: Annotated[int, Meta(description="Connections.")]
    recording: bool
    support: Annotated[
        str | None, Meta(description="The label of the operator's key, if support is attached.")
    ]
    ended: Annotated[str | None, Meta(description="Why it ended; null while it is open.")]


class TerminalList(View, frozen=True):
    terminals: Sequence[TerminalView]


class RecordingView(View, frozen=True):
    id: str
    agent: str
    title: str
    columns: int
    rows: int
    created_at: datetime
    size: Annotated[int, Meta(description="Bytes.")]
    seconds: Annotated[float | None, Meta(description="null while it runs, or if it was cut off.")]
    ended: Annotated[str | None, Meta(description="Why it ended; null as above.")]


class RecordingList(View, frozen=True):
    recordings: Annotated[Sequence[RecordingView], Meta(description="The newest first.")]
