"""``logs.tail``: the latest log lines, the tenant's own or the whole gateway's."""

from typing import Annotated

import msgspec
from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.method import Method, MethodCall, Params, Result, Who

_TOLD = frozenset({"method", "path", "status", "outcome", "reason", "reference"})
_SUBSYSTEM = '{"subsystem":"gateway"}'  # a text with JSON in it, as clients parse it
_SAFE = 2**53 - 1  # what every JSON reader can hold


class LogsTailParams(Params, frozen=True):
    cursor: (
        Annotated[int, Meta(ge=0, le=_SAFE, description="Of the answer before; from there on.")]
        | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=5000, description="Lines.")] = 500
    max_bytes: Annotated[int, Meta(ge=1, le=1_000_000)] = 250_000


class LogsTailResult(Result, frozen=True):
    file: Annotated[str, Meta(description="A name for people; no file of that name exists.")]
    cursor: int
    size: int
    lines: list[str]
    truncated: Annotated[bool, Meta(description="Older lines are left out.")]
    reset: Annotated[bool, Meta(description="The cursor is no longer known: begin anew.")]


async def logs_tail(call: MethodCall[LogsTailParams]) -> LogsTailResult:
    params = call.params
    tail = call.services.logs.tail(
        None if call.tenant is None else call.tenant.id,
        cursor=params.cursor,
        limit=params.limit,
        max_bytes=params.max_bytes,
        since=None if call.tenant is None else call.tenant.record.created_at,
    )
    return LogsTailResult(
        file=tail.file,
        cursor=tail.cursor,
        size=tail.size,
        lines=[_for_clients(line) for line in tail.lines],
        truncated=tail.truncated,
        reset=tail.reset,
    )


def _for_clients(line: str) -> str:
    """``line`` with the members that OpenClaw's clients show: a text, a time, a level.

    Their own gateway's logger numbers the parts of a message and keeps the rest
    in ``_meta``; ours stay beside it.
    """
    try:
        fields = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line
    if not isinstance(fields, dict):
        return line
    details = " ".join(f"{name}={value}" for name, value in fields.items() if name in _TOLD)
    event = str(fields.get("event", ""))
    fields["0"] = f"{event} {details}" if details else event
    fields["time"] = fields.get("ts")
    fields["_meta"] = {
        "logLevelName": str(fields.get("level", "info")).upper(),
        "name": _SUBSYSTEM,
    }
    return msgspec.json.encode(fields).decode()


METHODS = (
    Method(
        name="logs.tail",
        summary="Read the latest log lines: a tenant its own, an admin the whole gateway's",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=LogsTailParams,
        result=LogsTailResult,
        who=Who.ANYONE,
        handler=logs_tail,
    ),
)
