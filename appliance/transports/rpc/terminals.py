"""``terminal.*``: terminals in the tenant's sandboxes.

What must keep its order (typing, sizes, acknowledgements) is answered where it
is read; requests that wait are tasks, which overtake each other.
"""

from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ms
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.model.terminals import Mode
from appliance.model.tokens import Scope
from appliance.services.terminals.life import Terminal
from appliance.services.terminals.output import Replay
from appliance.services.terminals.parts import TerminalTenant
from appliance.services.terminals.support import SupportRequest
from appliance.services.terminals.terminals import SpawnRequest, Terminals
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Who
from appliance.transports.rpc.terminals_shapes import (
    AckParams,
    AckResult,
    AttachParams,
    AttachResult,
    CloseResult,
    DetachResult,
    Exited,
    ListResult,
    ResizeParams,
    ResizeResult,
    SpawnParams,
    SpawnResult,
    SupportShown,
    TerminalLine,
    TerminalParams,
    WriteParams,
    WriteResult,
)


async def spawn(call: MethodCall[SpawnParams]) -> SpawnResult:
    params, tenant = call.params, call.awake
    agent = params.agent_id or DEFAULT_AGENT
    call.services.agents.require(tenant, agent)
    terminal = await call.services.terminals.spawn(
        tenant,
        call.caller,
        call.client,
        SpawnRequest(
            columns=params.cols,
            rows=params.rows,
            directory=params.cwd,
            command=params.command,
            shell=params.shell,
            environment=params.env or {},
            agent=agent,
            title=params.title,
        ),
        welcome=lambda opened: call.respond(_spawned(opened)),
    )
    return _spawned(terminal)


def list_all(call: MethodCall[NoParams]) -> ListResult:
    terminals = call.services.terminals
    return ListResult(
        sessions=[line_of(terminals, *each) for each in terminals.list(call.tenant)],
        quota=None if call.tenant is None else call.tenant.meter.limits.terminals,
    )


async def attach(call: MethodCall[AttachParams]) -> AttachResult:
    params = call.params
    answers: list[AttachResult] = []

    def welcome(terminal: Terminal, replay: Replay, mode: Mode) -> None:
        answers.append(_attached(terminal, replay, mode))
        call.respond(answers[0])

    await call.services.terminals.attach(
        call.awake,
        call.caller,
        call.client,
        params.terminal_id,
        offset=params.offset,
        mode=params.mode,
        welcome=welcome,
    )
    return answers[0]


def detach(call: MethodCall[TerminalParams]) -> DetachResult:
    terminals = call.services.terminals
    return DetachResult(detached=terminals.detach(call.awake, call.client, call.params.terminal_id))


def write(call: MethodCall[WriteParams]) -> WriteResult:
    params = call.params
    written = call.services.terminals.write(
        call.awake, call.caller, call.client, params.terminal_id, params.data
    )
    return WriteResult(written=written)


def resize(call: MethodCall[ResizeParams]) -> ResizeResult:
    params = call.params
    size = call.services.terminals.resize(
        call.awake,
        call.caller,
        call.client,
        params.terminal_id,
        columns=params.cols,
        rows=params.rows,
    )
    return ResizeResult(cols=size.columns, rows=size.rows)


def acknowledge(call: MethodCall[AckParams]) -> AckResult:
    params = call.params
    noted = call.services.terminals.acknowledge(
        call.awake, call.client, params.terminal_id, params.offset
    )
    return AckResult(offset=noted)


async def close(call: MethodCall[TerminalParams]) -> CloseResult:
    await call.services.terminals.close(call.awake, call.caller, call.params.terminal_id)
    return CloseResult(closed=True)


def line_of(terminals: Terminals, tenant: TerminalTenant, terminal: Terminal) -> TerminalLine:
    helper = terminals.helper_of(tenant, terminal)
    return TerminalLine(
        terminal_id=terminal.id,
        tenant_id=tenant.id,
        agent_id=terminal.wish.agent,
        pid=terminal.pid,
        cols=terminal.size.columns,
        rows=terminal.size.rows,
        title=terminal.wish.title,
        created_at=to_ms(terminal.created_at),
        last_activity_at=to_ms(terminal.active_at),
        attached=len(terminal.output.viewers),
        recording=terminal.is_recorded,
        support=None if helper is None else shown(helper),
        exited=_exited(terminal),
    )


def shown(request: SupportRequest) -> SupportShown:
    return SupportShown(
        request_id=request.id,
        state=request.state.value,
        mode=request.mode,
        admin=request.admin,
        reason=request.reason,
        minutes=request.minutes,
        expires_at_ms=to_ms(request.expires_at),
        terminal_id=request.terminal_id,
    )


def _spawned(terminal: Terminal) -> SpawnResult:
    return SpawnResult(
        terminal_id=terminal.id,
        pid=terminal.pid,
        cols=terminal.size.columns,
        rows=terminal.size.rows,
        title=terminal.wish.title,
        created_at=to_ms(terminal.created_at),
        idle_timeout_ms=_ms(terminal.settings.idle_timeout),
        max_lifetime_ms=_ms(terminal.settings.max_lifetime),
        recording=terminal.is_recorded,
    )


def _attached(terminal: Terminal, replay: Replay, mode: Mode) -> AttachResult:
    return AttachResult(
        terminal_id=terminal.id,
        cols=terminal.size.columns,
        rows=terminal.size.rows,
        title=terminal.wish.title,
        offset=replay.offset,
        data=replay.data,
        truncated=replay.truncated,
        mode=mode,
        exited=_exited(terminal),
    )


def _exited(terminal: Terminal) -> Exited | None:
    if not terminal.has_ended:
        return None
    ending = terminal.ending
    return Exited(
        exit_code=None if ending is None else ending.exit_code,
        signal=None if ending is None else ending.signal,
        reason=str(terminal.reason),
    )


def _ms(seconds: float) -> int | None:
    return round(seconds * 1000) or None  # 0 is no limit


METHODS: tuple[Method, ...] = (
    Method(
        name="terminal.spawn",
        summary="Open a terminal in the sandbox; the connection is attached to it",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        params=SpawnParams,
        result=SpawnResult,
        handler=spawn,
        audited="terminal.open",
    ),
    Method(
        name="terminal.list",
        summary="List the terminals",
        scope=OperatorScope.READ,
        needs=Scope.TERMINAL,
        who=Who.ANYONE,
        result=ListResult,
        inline=list_all,
    ),
    Method(
        name="terminal.attach",
        summary="Get what a terminal said, and from now on what it says",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        params=AttachParams,
        result=AttachResult,
        handler=attach,
    ),
    Method(
        name="terminal.detach",
        summary="Get no more of a terminal's output; it goes on",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        params=TerminalParams,
        result=DetachResult,
        inline=detach,
    ),
    Method(
        name="terminal.write",
        summary="Type into a terminal",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        params=WriteParams,
        result=WriteResult,
        inline=write,
    ),
    Method(
        name="terminal.resize",
        summary="Change a terminal's size",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        params=ResizeParams,
        result=ResizeResult,
        inline=resize,
    ),
    Method(
        name="terminal.ack",
        summary="Say how much of the output was shown, so that no more comes than can be",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        params=AckParams,
        result=AckResult,
        inline=acknowledge,
    ),
    Method(
        name="terminal.close",
        summary="Close a terminal",
        scope=OperatorScope.WRITE,
        needs=Scope.TERMINAL,
        params=TerminalParams,
        result=CloseResult,
        handler=close,
        audited="terminal.close",
    ),
)
