"""``process``: what has become of the commands that were left running."""

import signal
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta

from appliance.model.exec_policy import ExecOrder
from appliance.model.terminal_keys import key_bytes
from appliance.services.command_output import readable
from appliance.services.processes import InputRefused, Process
from appliance.services.tools.base import (
    Effect,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
)
from appliance.services.tools.exec import OUTPUT_SOURCE, finished, how

_LONGEST_POLL = 300.0  # seconds
_LINES = 200  # of a log, where nobody says how many
_LARGEST_INPUT = 1_000_000  # characters at once
_MOST_KEYS = 200
_LONGEST_NAME = 100  # characters of a command in the list

Action = Literal[
    "list", "poll", "log", "write", "send-keys", "submit", "paste", "resize", "kill", "clear",
    "remove",
]  # fmt: skip


class ProcessParams(ToolParams, frozen=True, kw_only=True):
    action: Annotated[
        Action,
        Meta(
            description="list all; poll: what is new; log: all output, by lines; write, submit "
            "(with Enter), paste and send-keys: input; resize its terminal; kill; clear an ended "
            "one; remove: kill and clear"
        ),
    ]
    session_id: Annotated[str, Meta(description="As exec named it; not for list")] | None = None
    data: Annotated[str, Meta(description="For write, submit and paste")] | None = None
    keys: Annotated[list[str] | None, Meta(description="For send-keys, such as C-c, Enter, Up")] = (
        None
    )
    eof: Annotated[bool, Meta(description="For write: close the input afterwards")] = False
    offset: Annotated[int, Meta(ge=0, description="For log: first line")] | None = None
    limit: Annotated[int, Meta(ge=1, description="For log: number of lines")] | None = None
    timeout_ms: (
        Annotated[int, Meta(ge=0, description="For poll: wait so long for something new")] | None
    ) = None
    columns: Annotated[int, Meta(ge=1, le=1000, description="For resize")] | None = None
    rows: Annotated[int, Meta(ge=1, le=1000, description="For resize")] | None = None


class InputGate(Protocol):
    """The part of ``services.approvals`` that is needed here."""

    async def require_input(
        self, call: ToolCall, order: ExecOrder, text: str, *, is_covered: bool
    ) -> None: ...


class ProcessTool:
    def __init__(self, gate: InputGate) -> None:
        self._gate = gate

    async def call(self, call: ToolCall, params: ProcessParams) -> ToolResult:
        if params.action == "list":
            return _list(call)
        process = _require(call, params.session_id)
        try:
            return await self._do(call, process, params)
        except InputRefused as refusal:
            raise ToolFailed(f"{process.facts.id}: {refusal}") from None

    async def _do(self, call: ToolCall, process: Process, params: ProcessParams) -> ToolResult:
        match params.action:
            case "poll":
                return await _poll(call, process, limit=(params.timeout_ms or 0) / 1000)
            case "log":
                return _log(call, process, params)
            case "resize":
                process.resize(params.columns or 120, params.rows or 40)
                return ToolResult(text="resized")
            case "kill":
                await _kill(process)
                return ToolResult(text=f"{process.facts.id}: {how(process)}")
            case "clear" | "remove":
                return await _remove(call, process, kills=params.action == "remove")
            case _:
                return await self._tell(call, process, params)

    async def _tell(self, call: ToolCall, process: Process, params: ProcessParams) -> ToolResult:
        """Give it input, if that may be."""
        if not process.facts.takes_input:
            raise InputRefused("it was started without input; start it with background or pty")
        data = _input(process, params)
        shown = data.decode(errors="replace") + (
            " (and the end of the input)" if params.eof else ""
        )
        await self._gate.require_input(
            call, process.facts.order, shown, is_covered=process.facts.is_covered
        )
        if data == b"\x03" and not process.facts.has_terminal:
            process.interrupt(signal.SIGINT)
        elif data:
            await process.write(data)
        if params.eof:
            await process.close_input()
        return ToolResult(text=f"{len(data)} bytes written", details={"written": len(data)})


def tools(gate: InputGate) -> tuple[Tool[Any], ...]:
    return (
        Tool(
            name="process",
            group="runtime",
            label="Follow a command",
            description="Look after commands that exec left running in the background.",
            params=ProcessParams,
            call=ProcessTool(gate).call,
            effect=Effect.EXECUTE,
            is_parallel=False,
        ),
    )


def _require(call: ToolCall, process_id: str | None) -> Process:
    if not process_id:
        raise ToolFailed("sessionId is missing; process list shows those there are")
    process = call.tenant.state.processes.find(process_id, call.key.agent)
    if process is None:
        raise ToolFailed(f"there is no command {process_id[:80]!r}; process list shows all")
    return process


def _list(call: ToolCall) -> ToolResult:
    found = call.tenant.state.processes.of(call.key.agent)
    rows = [
        {
            "sessionId": process.facts.id,
            "status": _status(process),
            "command": process.facts.order.command[:_LONGEST_NAME],
            "startedAt": process.facts.started_at_ms,
            "runtimeMs": round(process.seconds * 1000),
            "pid": process.pid,
            "pty": process.facts.has_terminal,
        }
        for process in found
    ]
    lines = [
        f"{process.facts.id}  {_status(process)}  {process.seconds:.0f} s  "
        f"{readable(process.facts.order.command[:_LONGEST_NAME]).splitlines()[0]}"
        for process in found
    ]
    return ToolResult(text="\n".join(lines) or "nothing is running", details={"sessions": rows})


def _status(process: Process) -> str:
    if not process.ended.is_set():
        return "running"
    return f"ended ({how(process)})"


async def _poll(call: ToolCall, process: Process, *, limit: float) -> ToolResult:
    # Whoever waits for the end need not be told of it another way.
    was_told, process.is_told = process.is_told, True
    try:
        await process.wait_news(limit=min(limit, _LONGEST_POLL))
    finally:
        process.is_told = was_told or process.ended.is_set()
    text = process.unseen()
    if process.ended.is_set():
        return finished(process, text)
    said = readable(text).rstrip() or "(nothing new)"
    return ToolResult(
        text=f"{said}\n\n(still running)",
        details={"status": "running", "sessionId": process.facts.id},
        untrusted=OUTPUT_SOURCE,
    )


def _log(call: ToolCall, process: Process, params: ProcessParams) -> ToolResult:
    lines = readable(process.output.text()).splitlines()
    count = params.limit or _LINES
    first = max(0, len(lines) - count) if params.offset is None else params.offset
    part = lines[first : first + count]
    about = f"(lines {first + 1} to {first + len(part)} of {len(lines)}; {_status(process)})"
    process.is_told = process.is_told or process.ended.is_set()
    return ToolResult(
        text="\n".join([*part, "", about]).lstrip("\n"),
        details={
            "status": "completed" if process.ended.is_set() else "running",
            "totalLines": len(lines),
            "totalChars": process.output.total,
            "truncated": process.output.left_out > 0,
        },
        untrusted=OUTPUT_SOURCE,
    )


async def _kill(process: Process) -> None:
    process.is_told = True
    await process.kill()


async def _remove(call: ToolCall, process: Process, *, kills: bool) -> ToolResult:
    if not process.ended.is_set():
        if not kills:
            raise ToolFailed(f"{process.facts.id} is still running; kill it, or use remove")
        await _kill(process)
    call.tenant.state.processes.discard(process)
    return ToolResult(text=f"{process.facts.id} is removed")


def _input(process: Process, params: ProcessParams) -> bytes:
    """What is sent to the command."""
    text = params.data or ""
    if len(text) > _LARGEST_INPUT:
        raise ToolFailed(f"data is longer than {_LARGEST_INPUT} characters; write a file")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ToolFailed("data is not valid Unicode") from None
    enter = b"\r" if process.facts.has_terminal else b"\n"
    match params.action:
        case "submit":
            return data + enter
        case "paste" if process.facts.has_terminal:
            # A paste must not be able to end itself and type on, nor with what is left of an end.
            inside = data.replace(b"\x1b[201~", b"").replace(b"\x1b", b"")
            return b"\x1b[200~" + inside + b"\x1b[201~"
        case "send-keys":
            return _keys(params.keys or [])
        case _:
            if not data and not params.eof:
                raise ToolFailed("data is missing")
            return data


def _keys(names: list[str]) -> bytes:
    if not 0 < len(names) <= _MOST_KEYS:
        raise ToolFailed(f"keys holds 1 to {_MOST_KEYS} names of keys")
    try:
        return b"".join(map(key_bytes, names))
    except (ValueError, UnicodeEncodeError) as error:
        raise ToolFailed(f"keys: {error}") from None
