"""``exec``: run a command in the sandbox, and wait for it or leave it running."""

import re
import signal
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from math import inf
from posixpath import join, normpath
from typing import Annotated, Any, Literal, Protocol

import trio
from msgspec import Meta

from appliance.model.exec_policy import Ask, ExecOrder, Security
from appliance.model.ids import new_id
from appliance.model.periods import to_ms
from appliance.sandboxes.base import WORKSPACE, TerminalSize
from appliance.services.command_output import readable
from appliance.services.processes import Opened, Process, ProcessFacts
from appliance.services.sandboxes.sandboxes import SandboxRequest, SandboxTenant
from appliance.services.tenant_state import SystemText
from appliance.services.tools.base import (
    Effect,
    Source,
    Tool,
    ToolCall,
    ToolFailed,
    ToolParams,
    ToolResult,
    ToolTenant,
)

# The kernel takes 128 KiB as one argument.
LARGEST_COMMAND = 100_000  # bytes
_LARGEST_ENVIRONMENT = 100_000  # bytes
_MOST_VARIABLES = 200
_LONGEST_DIRECTORY = 4_096  # bytes
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_BACKGROUND_LIMIT = 24 * 60 * 60.0  # seconds: a forgotten one must not keep a tenant awake
_LONGEST_YIELD = 120.0
_UPDATE_EVERY = 0.25
_LONGEST_UPDATE = 4_000  # characters
_SIZE = TerminalSize(columns=120, rows=40)
# It may print any file of the workspace, and anybody's text may be in one; with
# a way out, strangers speak through it at once. Were this not marked, ``cat``
# would be a way around the mark that the tool ``read`` puts on the same file.
OUTPUT_SOURCE = Source.COMMAND
# What runs is a shell of the sandbox's own, never the login shell of the host.
_SHELL = 'if [ -x /bin/bash ]; then exec /bin/bash -c "$1"; fi; exec /bin/sh -c "$1"'


class ExecParams(ToolParams, frozen=True, kw_only=True):
    command: Annotated[str, Meta(description="Shell command line (bash)")]
    workdir: (
        Annotated[
            str, Meta(description="Directory, relative to the workspace; default: the workspace")
        ]
        | None
    ) = None
    env: Annotated[dict[str, str], Meta(description="More environment variables")] | None = None
    yield_ms: (
        Annotated[
            int,
            Meta(ge=0, description="Leave it running in the background after so many milliseconds"),
        ]
        | None
    ) = None
    background: Annotated[bool, Meta(description="Leave it running at once")] = False
    timeout: Annotated[float, Meta(gt=0, description="End it after so many seconds")] | None = None
    pty: Annotated[bool, Meta(description="Give it a terminal (for interactive programs)")] = False
    security: (
        Annotated[
            Literal["deny", "allowlist", "full"], Meta(description="May only tighten the policy")
        ]
        | None
    ) = None
    ask: (
        Annotated[
            Literal["off", "on-miss", "always"], Meta(description="May only tighten the policy")
        ]
        | None
    ) = None
    host: Annotated[str, Meta(description="Leave out: there is only the sandbox")] | None = None
    node: Annotated[str, Meta(description="Leave out")] | None = None
    elevated: Annotated[bool, Meta(description="Leave out")] | None = None


class Commands(Protocol):
    """The part of ``services.sandboxes`` that is needed here."""

    def require(self) -> None: ...
    def open(self, tenant: SandboxTenant, request: SandboxRequest) -> Opened: ...


class OrderGate(Protocol):
    """The part of ``services.approvals`` that is needed here."""

    async def require_order(
        self,
        call: ToolCall,
        order: ExecOrder,
        *,
        security: Security | None = None,
        ask: Ask | None = None,
    ) -> bool: ...


class Exec:
    def __init__(
        self, sandboxes: Commands, gate: OrderGate, *, clock: Callable[[], datetime]
    ) -> None:
        self._sandboxes = sandboxes
        self._gate = gate
        self._clock = clock

    async def call(self, call: ToolCall, params: ExecParams) -> ToolResult:
        """Cancelled while it waits for the command, it ends the command."""
        _refuse_elsewhere(params)
        order = _order(params)
        settings = call.tenant.config.defaults.tools.exec
        table = call.tenant.state.processes
        self._sandboxes.require()
        if params.background:
            table.require_room(settings.max_processes)
        is_covered = await self._gate.require_order(
            call,
            order,
            security=Security(params.security) if params.security else None,
            ask=Ask(params.ask) if params.ask else None,
        )
        process = self._start(call, params, order, is_covered=is_covered)
        stays = False
        try:
            await process.begun.wait()
            if params.background:
                table.require_room(settings.max_processes)
            else:
                wait = settings.yield_after
                if params.yield_ms is not None:
                    wait = min(params.yield_ms / 1000, _LONGEST_YIELD)
                await _watch(call, process, wait)
                while not process.ended.is_set() and table.running >= settings.max_processes:
                    await _watch(call, process, _LONGEST_YIELD)
            if not process.ended.is_set():
                table.add(process)
                stays = True
                return _running(process)
        finally:
            if not stays:
                process.is_told = True
                await process.kill()
        return finished(process, process.output.text())

    def _start(
        self, call: ToolCall, params: ExecParams, order: ExecOrder, *, is_covered: bool
    ) -> Process:
        settings = call.tenant.config.defaults.tools.exec
        limit = min(params.timeout or settings.timeout, settings.timeout)
        if params.background:
            limit = min(params.timeout or inf, _BACKGROUND_LIMIT)
        facts = ProcessFacts(
            id=new_id("proc"),
            agent=call.key.agent,
            session=call.key.short,
            order=order,
            started_at_ms=to_ms(self._clock()),
            has_terminal=params.pty,
            takes_input=params.background or params.pty,
            is_covered=is_covered,
            limit=limit,
        )
        request = SandboxRequest(
            agent=call.key.agent,
            command=("/bin/sh", "-c", _SHELL, "sh", order.command),
            directory=order.directory,
            environment=order.environment,
            terminal=_SIZE if params.pty else None,
            session=call.key.short,
            run_id=call.run_id,
            credential=call.caller.credential,
        )
        process = Process(
            facts,
            partial(self._sandboxes.open, call.tenant, request),
            kept=settings.max_output_bytes,
        )
        process.on_end = partial(self._tell_end, call.tenant)
        process.work = call.tenant.start(process.run, caller=call.caller)
        return process

    def _tell_end(self, tenant: ToolTenant, process: Process) -> None:
        """Let the agent know of a background command that ended unwatched.

        Neither the command nor its output is in the text, which speaks to the
        model with the system's voice: strangers may have written them.
        """
        if (
            process.is_told
            or tenant.state.processes.find(process.facts.id, process.facts.agent) is None
        ):
            return
        text = f"The background command {process.facts.id} has ended: {how(process)}. "
        text += "Read its output with process log."
        said = SystemText(to_ms(self._clock()), text, process.facts.session)
        tenant.state.system_texts.append(said)


def tools(
    sandboxes: Commands, gate: OrderGate, *, clock: Callable[[], datetime]
) -> tuple[Tool[Any], ...]:
    return (
        Tool(
            name="exec",
            group="runtime",
            label="Run a command",
            description=(
                "Run a shell command in the sandbox, in the workspace. A command that takes long "
                "goes on in the background; follow it with the tool process."
            ),
            params=ExecParams,
            call=Exec(sandboxes, gate, clock=clock).call,
            effect=Effect.EXECUTE,
        ),
    )


def finished(process: Process, text: str) -> ToolResult:
    """What the model is told of a command that has ended, ``text`` being its output."""
    if process.failure is not None and process.ending is None:
        raise process.failure
    said = readable(text).rstrip()
    is_error = not _went_well(process)
    if is_error:
        said = f"{said}\n\n({how(process)})".lstrip()
    details = {
        "status": "failed" if is_error else "completed",
        "exitCode": None if process.ending is None else process.ending.exit_code,
        **_details(process),
    }
    return ToolResult(
        text=said or "(no output)", is_error=is_error, details=details, untrusted=OUTPUT_SOURCE
    )


def how(process: Process) -> str:
    """How a command ended, in a few words."""
    ending = process.ending
    if process.timed_out:
        return f"it was ended after {process.facts.limit:g} s, its time limit"
    if process.failure is not None:
        return process.failure.detail
    if ending is None:
        return "it was ended together with what it belonged to"
    if ending.reason:
        return ending.reason
    if ending.out_of_memory:
        return "it was ended because it used more memory than it may"
    if ending.killed:
        return "it was killed"
    if ending.signal is not None:
        return f"it was ended by {_signal_name(ending.signal)}"
    return f"exit code {ending.exit_code}"


def source_of(tenant: ToolTenant) -> Source | None:
    """Who may have written what a command prints.

    Without a network it can print only what is in the workspace already, or
    what the model made up itself. With one, strangers speak through it.
    """
    return Source.COMMAND if tenant.config.egress.allow else None


def _went_well(process: Process) -> bool:
    ending = process.ending
    return (
        ending is not None
        and not process.timed_out
        and process.failure is None
        and ending.exit_code == 0
        and not ending.killed
    )


def _running(process: Process) -> ToolResult:
    said = readable(process.unseen()).rstrip()
    hint = (
        f"It is still running in the background as {process.facts.id}; "
        "follow it with process poll, log, write or kill."
    )
    details = {"status": "running", "sessionId": process.facts.id, **_details(process)}
    return ToolResult(text=f"{said}\n\n{hint}".lstrip(), details=details, untrusted=OUTPUT_SOURCE)


def _details(process: Process) -> Mapping[str, object]:
    return {
        "pid": process.pid,
        "cwd": process.facts.order.directory,
        "startedAt": process.facts.started_at_ms,
        "durationMs": round(process.seconds * 1000),
        "totalChars": process.output.total,
        "truncated": process.output.left_out > 0,
        "timedOut": process.timed_out,
    }


async def _watch(call: ToolCall, process: Process, limit: float) -> None:
    """Show what it prints until it ends or ``limit`` seconds are over."""
    shown, until = 0, trio.current_time() + limit
    while not process.ended.is_set() and trio.current_time() < until:
        with trio.move_on_at(min(until, trio.current_time() + _UPDATE_EVERY)):
            await process.ended.wait()
        if process.output.total > shown:
            call.update(readable(process.output.since(shown))[-_LONGEST_UPDATE:])
            shown = process.output.total


def _refuse_elsewhere(params: ExecParams) -> None:
    if params.node is not None or params.host not in {None, "", "auto", "sandbox"}:
        raise ToolFailed("commands run in the sandbox and nowhere else; leave out host and node")
    if params.elevated:
        raise ToolFailed("nothing runs outside of the sandbox; leave out elevated")


def _order(params: ExecParams) -> ExecOrder:
    """Exactly what will be run. Raises :exc:`ToolFailed` for what cannot be passed on."""
    _require_text("command", params.command, longest=LARGEST_COMMAND)
    if not params.command.strip():
        raise ToolFailed("the command is empty")
    directory = params.workdir or WORKSPACE
    _require_text("workdir", directory, longest=_LONGEST_DIRECTORY)
    environment = params.env or {}
    if len(environment) > _MOST_VARIABLES:
        raise ToolFailed(f"env has more than {_MOST_VARIABLES} variables")
    for name, value in environment.items():
        if _VARIABLE.fullmatch(name) is None:
            raise ToolFailed(f"env: {name[:80]!r} cannot be the name of a variable")
        _require_text(f"env {name}", value, longest=_LARGEST_ENVIRONMENT)
    if sum(len(n) + len(v.encode()) for n, v in environment.items()) > _LARGEST_ENVIRONMENT:
        raise ToolFailed(f"env is larger than {_LARGEST_ENVIRONMENT} bytes; use a file")
    # As the sandbox will read it, so that what is approved is what is done.
    directory = normpath(join(WORKSPACE, directory))
    return ExecOrder(command=params.command, directory=directory, environment=environment)


def _require_text(name: str, text: str, *, longest: int) -> None:
    if "\0" in text:
        raise ToolFailed(f"the {name} holds a NUL character, which no program can be given")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ToolFailed(f"the {name} is not valid Unicode") from None
    if size > longest:
        raise ToolFailed(
            f"the {name} is {size} bytes long, at most {longest} can be passed on; "
            "write it to a file with the tool write and run that"
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
