"""Terminals of tenants: opened, found, used and closed by whoever may.

A tenant's terminals belong to the tenant, not to a connection: any of its
clients may attach to one and type into it. An operator, also one who acts for
the tenant, does neither without its consent (:mod:`~appliance.services.terminals.support`).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from appliance.model.callers import Caller
from appliance.model.errors import Forbidden, InvalidRequest, NotFound
from appliance.model.terminals import (
    MOST_VARIABLES,
    EndReason,
    Mode,
    fitting_size,
    shown_title,
    utf16_length,
)
from appliance.protocols.asciicast import Header
from appliance.sandboxes.base import WORKSPACE, TerminalSize
from appliance.services.clients import Client
from appliance.services.terminals.life import Terminal, never_opened
from appliance.services.terminals.output import Replay, Viewer
from appliance.services.terminals.parts import TerminalParts, TerminalTenant, Wish
from appliance.services.terminals.recording import Recorder
from appliance.services.terminals.recordings import Recordings
from appliance.services.terminals.support import SupportDesk, SupportRequest, no_consent
from appliance.storage.recordings import RecordingStore, new_recording_id

_OPENED = 30.0  # seconds for a sandbox to start
_CLOSED = 10.0
_NAMED = 128  # characters of a variable's name


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnRequest:
    """What a client asks for; nothing of it was looked at."""

    columns: int = 80
    rows: int = 24
    directory: str | None = None
    command: str | None = None
    shell: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    agent: str
    title: str | None = None


class Terminals:
    def __init__(
        self,
        parts: TerminalParts,
        *,
        recordings: Recordings,
        awake: Callable[[], Iterable[TerminalTenant]],
        wake: Callable[[str], Awaitable[TerminalTenant]],
    ) -> None:
        self._parts = parts
        self._awake = awake
        self.wake = wake  # raises ``TenantUnknown`` and the like
        self.recordings = recordings
        self.support = SupportDesk(audit=parts.audit, clock=parts.clock)

    # -- opening ---------------------------------------------------------

    async def spawn(
        self,
        tenant: TerminalTenant,
        caller: Caller,
        client: Client,
        request: SpawnRequest,
        *,
        welcome: Callable[[Terminal], None],
    ) -> Terminal:
        """Open a terminal, to which ``client`` is attached.

        ``welcome`` is called before the first output can be sent. Raises
        ``QuotaExceeded``, ``SandboxUnavailable``, ``SandboxFailed``,
        :exc:`InvalidRequest`, and :exc:`Forbidden` for an operator without consent.
        """
        access = None
        if caller.is_admin:
            access = self.support.require(tenant, caller, None, Mode.WRITE)
        wish = _wish(tenant, request, access)
        request_id = None if access is None else access.id

        def begin() -> None:
            terminal.output.attach(client, Mode.WRITE, request_id=request_id)
            welcome(terminal)
            if access is not None:
                _announce(terminal, access, Mode.WRITE)

        terminal = Terminal(
            self._parts,
            tenant,
            caller,
            wish,
            welcome=begin,
            recorder=self._recorder(tenant, wish),
            request_id=request_id,
        )
        book = tenant.state.terminals
        book.add(terminal, most=tenant.meter.limits.terminals)
        try:
            started = tenant.start(terminal.run, caller=caller)
        except BaseException:
            book.discard(terminal)
            raise
        try:
            with trio.move_on_after(_OPENED):
                await terminal.opened.wait()
        finally:
            if not terminal.opened.is_set():
                started.cancel()  # whoever asked is gone, or waited long enough
        if terminal.failure is not None:
            raise terminal.failure
        if not terminal.is_shown:
            raise never_opened()
        return terminal

    # -- looking ---------------------------------------------------------

    def find(self, tenant: str) -> TerminalTenant | None:
        """A tenant that is awake; one that sleeps has no terminals."""
        return next((each for each in self._awake() if each.id == tenant), None)

    def list(self, tenant: TerminalTenant | None) -> Sequence[tuple[TerminalTenant, Terminal]]:
        """The terminals of a tenant; all there are, for an operator who names none."""
        tenants = self._awake() if tenant is None else (tenant,)
        return [(each, terminal) for each in tenants for terminal in each.state.terminals.all]

    def helper_of(self, tenant: TerminalTenant, terminal: Terminal) -> SupportRequest | None:
        """The support access by which somebody is attached or the terminal was opened."""
        support = tenant.state.terminals.support
        attached = (viewer.request_id for viewer in terminal.output.viewers.values())
        for request_id in (terminal.request_id, *attached):
            if request_id is not None and request_id in support:
                return support[request_id]
        return None

    # -- using -----------------------------------------------------------

    async def attach(
        self,
        tenant: TerminalTenant,
        caller: Caller,
        client: Client,
        terminal_id: str,
        *,
        offset: int | None = None,
        mode: Mode | None = None,
        welcome: Callable[[Terminal, Replay, Mode], None],
    ) -> None:
        """Send ``client`` what the terminal says from ``offset`` on.

        ``welcome`` is called before anything can overtake the replay. Without a
        ``mode`` it is what the caller may do. Raises ``NotFound``, and
        :exc:`Forbidden` for an operator without consent.
        """
        terminal = tenant.state.terminals.require(terminal_id)
        access = None
        if caller.is_admin:
            access = self._access(tenant, caller, terminal, mode)
            mode = mode or access.mode
            await self._note_visit(tenant, caller, terminal, access, mode)
            # The log took its time: the consent may be gone.
            terminal = tenant.state.terminals.require(terminal_id)
            access = self.support.require(tenant, caller, terminal, mode)
        mode = mode or Mode.WRITE
        request_id = None if access is None else access.id
        replay = terminal.output.attach(client, mode, offset=offset, request_id=request_id)
        welcome(terminal, replay, mode)
        terminal.output.catch_up(client.id)
        if terminal.has_ended:
            terminal.output.detach(client.id)
        elif access is not None:
            _announce(terminal, access, mode)
        else:
            terminal.touch()

    def detach(self, tenant: TerminalTenant, client: Client, terminal_id: str) -> bool:
        """Send ``client`` nothing more of it; return whether it was attached."""
        return tenant.state.terminals.require(terminal_id).output.detach(client.id)

    def write(
        self, tenant: TerminalTenant, caller: Caller, client: Client, terminal_id: str, data: str
    ) -> int:
        """Type ``data``; return its length as clients count.

        Calls are carried out in order. Raises ``NotFound``, ``RateLimited``
        while the program does not read, :exc:`Forbidden` for who only looks on.
        """
        terminal = self._typing(tenant, caller, client, terminal_id)
        terminal.type(data)
        return utf16_length(data)

    def resize(
        self,
        tenant: TerminalTenant,
        caller: Caller,
        client: Client,
        terminal_id: str,
        *,
        columns: int,
        rows: int,
    ) -> TerminalSize:
        """Set the nearest size that a terminal may have, and return it."""
        terminal = self._typing(tenant, caller, client, terminal_id)
        size = TerminalSize(*fitting_size(columns, rows))
        terminal.resize(size, by=client)
        return size

    def acknowledge(
        self, tenant: TerminalTenant, client: Client, terminal_id: str, offset: int
    ) -> int:
        """Note how far ``client`` has come; return what is noted."""
        terminal = tenant.state.terminals.require(terminal_id)
        return terminal.output.acknowledge(client.id, offset)

    async def close(self, tenant: TerminalTenant, caller: Caller, terminal_id: str) -> None:
        """End a terminal and wait for that; one that has ended is shown no longer."""
        terminal = tenant.state.terminals.require(terminal_id)
        if terminal.has_ended:
            terminal.forgotten.set()
            tenant.state.terminals.discard(terminal)
            return
        terminal.end(EndReason.CLOSED, by=caller)
        with trio.move_on_after(_CLOSED):
            await terminal.ended.wait()

    async def close_in(self, caller: Caller, tenant_id: str, terminal_id: str) -> None:
        """The same from outside of the tenant, which may sleep."""
        tenant = self.find(tenant_id)
        if tenant is None:
            raise NotFound("there is no such terminal")
        await self.close(tenant, caller, terminal_id)

    def shut_down(self) -> None:
        """The gateway stops: nobody comes back to these."""
        for tenant in self._awake():
            for terminal in tenant.state.terminals.all:
                terminal.end(EndReason.STOPPED)
                terminal.forgotten.set()

    # -- rights ----------------------------------------------------------

    def require_recordings(self, caller: Caller, tenant_id: str) -> None:
        """An operator sees what was said only with the tenant's consent."""
        if not caller.is_admin:
            return
        tenant = self.find(tenant_id)
        if tenant is None:
            raise no_consent(Mode.READ)
        self.support.require(tenant, caller, None, Mode.READ)

    def _typing(
        self, tenant: TerminalTenant, caller: Caller, client: Client, terminal_id: str
    ) -> Terminal:
        terminal = tenant.state.terminals.require_live(terminal_id)
        viewer: Viewer | None = terminal.output.viewers.get(client.id)
        if viewer is not None and viewer.mode is Mode.READ:
            raise Forbidden("this connection is attached to look on only")
        if caller.is_admin:
            if viewer is None:
                raise Forbidden("attach first, so that the tenant sees who types")
            self.support.require(tenant, caller, terminal, Mode.WRITE)
        return terminal

    def _access(
        self, tenant: TerminalTenant, caller: Caller, terminal: Terminal, mode: Mode | None
    ) -> SupportRequest:
        if mode is None:
            access = self.support.find(tenant, caller, terminal, Mode.WRITE)
            if access is not None:
                return access
        return self.support.require(tenant, caller, terminal, mode or Mode.READ)

    async def _note_visit(
        self,
        tenant: TerminalTenant,
        caller: Caller,
        terminal: Terminal,
        access: SupportRequest,
        mode: Mode,
    ) -> None:
        async with self._parts.audit.action(
            caller,
            "terminal.support.attach",
            tenant=tenant.id,
            target=terminal.id,
            details={"request": access.id, "mode": mode.value},
        ):
            pass

    def _recorder(self, tenant: TerminalTenant, wish: Wish) -> Recorder | None:
        settings = tenant.config.defaults.sandbox.terminal
        if not settings.record or not settings.recordings_kept:
            return None
        now = self._parts.clock()
        book = tenant.state.terminals
        header = Header(
            columns=wish.size.columns,
            rows=wish.size.rows,
            timestamp=int(now.timestamp()),
            title=wish.title,
            program=wish.command[0],
            own={"agent": wish.agent},
        )
        return Recorder(
            RecordingStore(tenant.root),
            new_recording_id(now),
            header,
            most_bytes=settings.max_recording_bytes,
            kept=settings.recordings_kept,
            room=tenant.root.room,
            spare=lambda: {each.recorder.id for each in book.live if each.recorder is not None},
        )


def _announce(terminal: Terminal, access: SupportRequest, mode: Mode) -> None:
    what = "types and looks on" if mode is Mode.WRITE else "looks on"
    terminal.notice("support", f"{access.admin} of support {what}: {access.reason}")
    if terminal.recorder is not None:
        terminal.recorder.mark(f"support: {access.admin} joined ({mode.value})")


def _wish(tenant: TerminalTenant, request: SpawnRequest, access: SupportRequest | None) -> Wish:
    settings = tenant.config.defaults.sandbox.terminal
    shell = request.shell or settings.shell
    _check_text(shell, "shell")
    if not shell.startswith("/"):
        raise InvalidRequest.at("shell", "is not an absolute path", "such as /bin/bash")
    command: tuple[str, ...] = (shell,)
    if request.command is not None:
        _check_text(request.command, "command")
        command = (shell, "-c", request.command)
    if request.directory is not None:
        _check_text(request.directory, "cwd")
    for name, value in request.environment.items():
        _check_variable(name, value)
    if len(request.environment) > MOST_VARIABLES:
        raise InvalidRequest.at("env", f"holds more than {MOST_VARIABLES} variables")
    title = shown_title(request.title or request.command or shell.rpartition("/")[2])
    return Wish(
        command=command,
        size=TerminalSize(*fitting_size(request.columns, request.rows)),
        agent=request.agent,
        title=title if access is None else shown_title(f"support ({access.admin}): {title}"),
        directory=request.directory or WORKSPACE,
        environment=dict(request.environment),
    )


def _check_variable(name: str, value: str) -> None:
    if not name.isidentifier() or not name.isascii() or len(name) > _NAMED:
        raise InvalidRequest.at(
            "env", f"holds a name that is none: {name[:80]!a}", "use letters, digits and '_'"
        )
    _check_text(value, f"env.{name}", may_be_empty=True)


def _check_text(text: str, field_name: str, *, may_be_empty: bool = False) -> None:
    if "\0" in text:
        raise InvalidRequest.at(field_name, "holds a NUL character")
    if not text and not may_be_empty:
        raise InvalidRequest.at(field_name, "is empty")
