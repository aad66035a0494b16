"""Parameters and answers of ``terminal.*``."""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from appliance.model.terminals import COLUMNS, ROWS, Mode
from appliance.transports.rpc.fields import (
    AgentIdText,
    RecordingIdText,
    SupportRequestIdText,
    TenantIdText,
    TerminalIdText,
)
from appliance.transports.rpc.method import Params, Result

# What does not fit is brought within bounds, as clients of other gateways expect.
Columns = Annotated[
    int, Meta(ge=1, le=100_000, description=f"Brought within {COLUMNS[0]} to {COLUMNS[-1]}.")
]
Rows = Annotated[
    int, Meta(ge=1, le=100_000, description=f"Brought within {ROWS[0]} to {ROWS[-1]}.")
]
Offset = Annotated[
    int, Meta(ge=0, le=2**53 - 1, description="Characters of the output since its beginning.")
]
Typed = Annotated[str, Meta(max_length=100_000)]
Path = Annotated[str, Meta(min_length=1, max_length=4096)]
Variable = Annotated[str, Meta(max_length=32_768)]
Moment = Annotated[int, Meta(description="ms since 1970.")]


class SpawnParams(Params, frozen=True, kw_only=True):
    cols: Columns = 80
    rows: Rows = 24
    cwd: (
        Annotated[Path, Meta(description="In the workspace, or an absolute path inside.")] | None
    ) = None
    command: Annotated[Path, Meta(description="For the shell; it ends with it.")] | None = None
    shell: Annotated[Path, Meta(description="An absolute path inside.")] | None = None
    env: Annotated[dict[str, Variable], Meta(max_length=200)] | None = None
    agent_id: AgentIdText | None = None
    title: Annotated[str, Meta(max_length=200)] | None = None


class SpawnResult(Result, frozen=True, kw_only=True):
    terminal_id: str
    pid: Annotated[int | None, Meta(description="As it is seen inside.")]
    cols: int
    rows: int
    title: str
    created_at: Moment
    idle_timeout_ms: Annotated[int | None, Meta(description="null: none.")]
    max_lifetime_ms: Annotated[int | None, Meta(description="null: none.")]
    recording: bool


class TerminalParams(Params, frozen=True, kw_only=True):
    terminal_id: TerminalIdText


class AttachParams(TerminalParams, frozen=True, kw_only=True):
    offset: (
        Annotated[Offset, Meta(description="Where to go on; all that is kept without it.")] | None
    ) = None
    mode: Mode | None = None


class Exited(Result, frozen=True, kw_only=True):
    exit_code: int | None
    signal: int | None
    reason: str


class AttachResult(Result, frozen=True, kw_only=True):
    terminal_id: str
    cols: int
    rows: int
    title: str
    offset: Annotated[int, Meta(description="Where data ends.")]
    data: str
    truncated: Annotated[bool, Meta(description="Not all that was asked for is kept.")]
    mode: Mode
    exited: Exited | None


class DetachResult(Result, frozen=True, kw_only=True):
    detached: bool


class WriteParams(TerminalParams, frozen=True, kw_only=True):
    data: Typed


class WriteResult(Result, frozen=True, kw_only=True):
    written: Annotated[int, Meta(description="UTF-16 units.")]


class ResizeParams(TerminalParams, frozen=True, kw_only=True):
    cols: Columns
    rows: Rows


class ResizeResult(Result, frozen=True, kw_only=True):
    cols: int
    rows: int


class AckParams(TerminalParams, frozen=True, kw_only=True):
    offset: Offset


class AckResult(Result, frozen=True, kw_only=True):
    offset: int


class CloseResult(Result, frozen=True, kw_only=True):
    closed: bool


class SupportShown(Result, frozen=True, kw_only=True):
    """A request of support, or its access."""

    request_id: str
    state: Literal["requested", "granted", "denied", "ended"]
    mode: Mode
    admin: Annotated[str, Meta(description="The label of the operator's key.")]
    reason: str
    minutes: Annotated[int, Meta(description="For how long it is asked.")]
    expires_at_ms: Annotated[int, Meta(description="ms since 1970: the request, or the access.")]
    terminal_id: Annotated[str | None, Meta(description="Left out for all of the tenant's.")] = None


class TerminalLine(Result, frozen=True, kw_only=True):
    terminal_id: str
    tenant_id: str
    agent_id: str
    pid: int | None
    cols: int
    rows: int
    title: str
    created_at: Moment
    last_activity_at: Annotated[Moment, Meta(description="When somebody typed or came.")]
    attached: Annotated[int, Meta(description="Connections.")]
    recording: bool
    support: SupportShown | None
    exited: Exited | None


class ListResult(Result, frozen=True, kw_only=True):
    sessions: Sequence[TerminalLine]
    quota: Annotated[int | None, Meta(description="null: unlimited.")]


# -- support -----------------------------------------------------------------


class SupportAskParams(Params, frozen=True, kw_only=True):
    tenant_id: TenantIdText | None = None
    terminal_id: TerminalIdText | None = None
    mode: Mode = Mode.READ
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    minutes: Annotated[int, Meta(ge=1, le=1440)] | None = None


class SupportListParams(Params, frozen=True, kw_only=True):
    tenant_id: TenantIdText | None = None


class SupportParams(Params, frozen=True, kw_only=True):
    request_id: SupportRequestIdText


class SupportEndParams(SupportParams, frozen=True, kw_only=True):
    tenant_id: TenantIdText | None = None


class SupportResolveParams(SupportParams, frozen=True, kw_only=True):
    decision: Literal["allow", "deny"]


class SupportListResult(Result, frozen=True, kw_only=True):
    requests: Sequence[SupportShown]


# -- recordings --------------------------------------------------------------


class RecordingLine(Result, frozen=True, kw_only=True):
    recording_id: str
    title: str
    agent_id: str
    cols: int
    rows: int
    created_at: Moment
    size: Annotated[int, Meta(description="Bytes.")]
    duration_ms: Annotated[
        int | None, Meta(description="null while it runs, or if it was cut off.")
    ]
    ended: Annotated[str | None, Meta(description="Why it ended; null as above.")]


class RecordingsResult(Result, frozen=True, kw_only=True):
    recordings: Annotated[Sequence[RecordingLine], Meta(description="The newest first.")]


class RecordingParams(Params, frozen=True, kw_only=True):
    recording_id: RecordingIdText


class RecordingGetParams(RecordingParams, frozen=True, kw_only=True):
    offset: Annotated[int, Meta(ge=0, le=2**53 - 1, description="Bytes.")] = 0


class RecordingGetResult(Result, frozen=True, kw_only=True):
    recording_id: str
    size: int
    data: Annotated[str, Meta(description="Whole lines of an asciicast, about a megabyte.")]
    next_offset: Annotated[int | None, Meta(description="null: there is no more.")]


class RecordingDeleteResult(Result, frozen=True, kw_only=True):
    deleted: bool
