"""``terminal.recordings.*``: what was recorded of terminals."""

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.storage.recordings import Recording
from appliance.transports.rpc.method import Method, MethodCall, NoParams
from appliance.transports.rpc.terminals_shapes import (
    RecordingDeleteResult,
    RecordingGetParams,
    RecordingGetResult,
    RecordingLine,
    RecordingParams,
    RecordingsResult,
)


async def list_all(call: MethodCall[NoParams]) -> RecordingsResult:
    found = await call.services.terminals.recordings.list(call.awake.id)
    return RecordingsResult(recordings=[line_of(each) for each in found])


async def get(call: MethodCall[RecordingGetParams]) -> RecordingGetResult:
    params, tenant = call.params, call.awake.id
    terminals = call.services.terminals
    terminals.require_recordings(call.caller, tenant)
    recording = await terminals.recordings.get(tenant, params.recording_id)
    data = await terminals.recordings.piece(tenant, params.recording_id, params.offset)
    following = params.offset + len(data)
    return RecordingGetResult(
        recording_id=recording.id,
        size=recording.size,
        data=data.decode(errors="replace"),
        next_offset=following if data and following < recording.size else None,
    )


async def delete(call: MethodCall[RecordingParams]) -> RecordingDeleteResult:
    recordings = call.services.terminals.recordings
    await recordings.delete(call.caller, call.awake.id, call.params.recording_id)
    return RecordingDeleteResult(deleted=True)


def line_of(recording: Recording) -> RecordingLine:
    header = recording.header
    seconds = recording.seconds
    return RecordingLine(
        recording_id=recording.id,
        title=header.title,
        agent_id=(header.own or {}).get("agent", ""),
        cols=header.columns,
        rows=header.rows,
        created_at=recording.begun_ms,
        size=recording.size,
        duration_ms=None if seconds is None else round(seconds * 1000),
        ended=recording.ended,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="terminal.recordings.list",
        summary="List the recordings of terminals",
        scope=OperatorScope.READ,
        needs=Scope.TERMINAL,
        result=RecordingsResult,
        handler=list_all,
    ),
    Method(
        name="terminal.recordings.get",
        summary="Read a recording, piece by piece",
        scope=OperatorScope.READ,
        needs=Scope.TERMINAL,
        params=RecordingGetParams,
        result=RecordingGetResult,
        handler=get,
    ),
    Method(
        name="terminal.recordings.delete",
        summary="Remove a recording",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=RecordingParams,
        result=RecordingDeleteResult,
        handler=delete,
        audited="terminal.recording.delete",
    ),
)
