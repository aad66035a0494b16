"""Routes of a tenant's terminals and of what was recorded of them."""

from appliance.model.errors import TenantUnknown
from appliance.model.periods import from_ns
from appliance.model.tokens import Scope
from appliance.protocols.asciicast import MEDIA_TYPE
from appliance.services.terminals.life import Terminal
from appliance.services.terminals.parts import TerminalTenant
from appliance.services.terminals.terminals import Terminals
from appliance.storage.recordings import Recording
from appliance.transports.control.call import Call
from appliance.transports.control.route import Answer, Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery
from appliance.transports.schemas.terminals import (
    RecordingList,
    RecordingView,
    TerminalList,
    TerminalView,
)

_TERMINALS = "/v1/tenants/{id}/terminals"
_RECORDINGS = f"{_TERMINALS}/recordings"
_MS = 1_000_000  # nanoseconds


async def list_all(call: Call[NoBody, NoQuery]) -> TerminalList:
    if not call.services.holds(call.tenant):
        raise TenantUnknown("there is no such tenant")
    terminals = call.services.terminals
    tenant = terminals.find(call.tenant)
    found = () if tenant is None else terminals.list(tenant)
    return TerminalList(terminals=[_terminal(terminals, *each) for each in found])


async def close(call: Call[NoBody, NoQuery]) -> None:
    await call.services.terminals.close_in(call.caller, call.tenant, call.path["tid"])


async def list_recordings(call: Call[NoBody, NoQuery]) -> RecordingList:
    found = await call.services.terminals.recordings.list(call.tenant)
    return RecordingList(recordings=[_recording(each) for each in found])


async def download(call: Call[NoBody, NoQuery]) -> Answer:
    call.services.terminals.require_recordings(call.caller, call.tenant)
    name = call.path["rid"]
    data = await call.services.terminals.recordings.whole(call.tenant, name)
    # Found, so the name is one of ours and needs no quoting.
    headers = {"content-disposition": f'attachment; filename="{name}.cast"'}
    return Answer(data, media_type=MEDIA_TYPE, headers=headers)


async def delete_recording(call: Call[NoBody, NoQuery]) -> None:
    recordings = call.services.terminals.recordings
    await recordings.delete(call.caller, call.tenant, call.path["rid"])


def _terminal(terminals: Terminals, tenant: TerminalTenant, terminal: Terminal) -> TerminalView:
    helper = terminals.helper_of(tenant, terminal)
    return TerminalView(
        id=terminal.id,
        agent=terminal.wish.agent,
        title=terminal.wish.title,
        columns=terminal.size.columns,
        rows=terminal.size.rows,
        created_at=terminal.created_at,
        last_activity_at=terminal.active_at,
        attached=len(terminal.output.viewers),
        recording=terminal.is_recorded,
        support=None if helper is None else helper.admin,
        ended=str(terminal.reason) if terminal.has_ended else None,
    )


def _recording(recording: Recording) -> RecordingView:
    header = recording.header
    return RecordingView(
        id=recording.id,
        agent=(header.own or {}).get("agent", ""),
        title=header.title,
        columns=header.columns,
        rows=header.rows,
        created_at=from_ns(recording.begun_ms * _MS),
        size=recording.size,
        seconds=recording.seconds,
        ended=recording.ended,
    )


ROUTES = (
    Route(
        name="terminals.list",
        method="GET",
        path=_TERMINALS,
        who=Who.TENANT,
        summary="List the terminals",
        handler=list_all,
        scope=Scope.TERMINAL,
        answer=TerminalList,
    ),
    Route(
        name="terminals.close",
        method="DELETE",
        path=f"{_TERMINALS}/{{tid}}",
        who=Who.TENANT,
        summary="Close a terminal",
        handler=close,
        scope=Scope.TERMINAL,
        status=204,
    ),
    Route(
        name="terminals.recordings",
        method="GET",
        path=_RECORDINGS,
        who=Who.TENANT,
        summary="List the recordings of terminals",
        handler=list_recordings,
        scope=Scope.TERMINAL,
        answer=RecordingList,
    ),
    Route(
        name="terminals.recording",
        method="GET",
        path=f"{_RECORDINGS}/{{rid}}",
        who=Who.TENANT,
        summary="Download a recording (asciicast v2); an admin needs the tenant's consent",
        handler=download,
        scope=Scope.TERMINAL,
        failures=(413,),
        produces=(MEDIA_TYPE,),
    ),
    Route(
        name="terminals.recording_delete",
        method="DELETE",
        path=f"{_RECORDINGS}/{{rid}}",
        who=Who.TENANT,
        summary="Remove a recording",
        handler=delete_recording,
        scope=Scope.MANAGE,
        status=204,
    ),
)
