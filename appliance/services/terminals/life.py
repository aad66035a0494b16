"""One terminal, from its first byte to its last: a program in a sandbox, with a real tty.

It is a job of its tenant under the credential of whoever opened it, and ends
with either; no connection owns it. Whoever is attached hears it, and for how
long it lives without anybody is a matter of settings.
"""

import logging
from collections.abc import Callable
from math import inf
from uuid import uuid4

import trio

from appliance.model.callers import Caller
from appliance.model.errors import ApplianceError, Unavailable
from appliance.model.periods import to_ms
from appliance.model.terminals import EndReason
from appliance.sandboxes.base import Ending, Sandbox, TerminalSize
from appliance.services.audit import GATEWAY
from appliance.services.clients import Client
from appliance.services.sandboxes.sandboxes import SandboxRequest
from appliance.services.terminals.input import TerminalInput
from appliance.services.terminals.limits import TerminalLimits
from appliance.services.terminals.output import TerminalOutput, Viewer
from appliance.services.terminals.parts import TerminalParts, TerminalTenant, Wish
from appliance.services.terminals.recording import Recorder

log = logging.getLogger(__name__)

COALESCED = 0.004  # seconds in which what comes is sent as one
LINGERS = 60.0  # seconds that a terminal is shown after its end
_LOOK = 1.0  # seconds between two looks at who is there
_DRAINED = 5.0  # seconds for the last output of a program that has ended
_HANGING_UP = 0.5  # seconds for a shell to save its history
_KILLED = 10.0
_HANGUP = 1


class Terminal:
    """``request_id`` names the support access it was opened by, if it was."""

    def __init__(
        self,
        parts: TerminalParts,
        tenant: TerminalTenant,
        caller: Caller,
        wish: Wish,
        *,
        welcome: Callable[[], None],
        recorder: Recorder | None = None,
        request_id: str | None = None,
    ) -> None:
        self.id = str(uuid4())
        self.caller = caller
        self.wish = wish
        self.request_id = request_id
        self.settings = settings = tenant.config.defaults.sandbox.terminal
        self.output = TerminalOutput(
            self.id,
            scrollback_bytes=settings.scrollback_bytes,
            most_buffered=lambda: tenant.config.server.websocket.max_buffered_bytes,
            left=self._note_left,
        )
        self.input = TerminalInput()
        self.recorder = recorder
        self.size = wish.size
        self.pid: int | None = None
        self.created_at = self.active_at = parts.clock()
        self.opened = trio.Event()  # or it could not be: then there is a ``failure``
        self.ended = trio.Event()
        self.forgotten = trio.Event()
        self.failure: ApplianceError | None = None
        self.ending: Ending | None = None
        self.reason: EndReason | None = None
        self.is_open = False
        self.has_ended = False
        self._parts = parts
        self._tenant = tenant
        self._welcome = welcome
        self._closer: Caller | None = None
        self._told = trio.Event()
        self._drained = trio.Event()
        self._has_exited = False  # by itself, or because it was told to
        self._sandbox: Sandbox | None = None
        self._limits = TerminalLimits(settings)

    # -- what others ask of it -------------------------------------------

    @property
    def is_shown(self) -> bool:
        """Whether clients may see it: it was opened, and they are not done with it."""
        return self.is_open or self.ending is not None

    @property
    def is_recorded(self) -> bool:
        return self.recorder is not None and self.recorder.is_on

    def type(self, data: str) -> None:
        """Hand ``data`` to the program, in the order of the calls.

        Raises :exc:`RateLimited` while it does not read what it has.
        """
        self.input.put(data.encode())
        self.touch()

    def resize(self, size: TerminalSize, *, by: Client | None = None) -> None:
        """Set the size; all but ``by`` are told."""
        if self._sandbox is not None and not self.has_ended:
            self._sandbox.resize(size)
        self.size = size
        if self.recorder is not None:
            self.recorder.resize(size.columns, size.rows)
        payload = {"terminalId": self.id, "cols": size.columns, "rows": size.rows}
        self.output.tell("terminal.resized", payload, but=None if by is None else by.id)

    def touch(self) -> None:
        """Somebody is there."""
        self._limits.touch()
        self.active_at = self._parts.clock()

    def end(self, reason: EndReason, *, by: Caller | None = None) -> None:
        """Bring it to an end soon; the first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._closer = by
        self._told.set()

    def notice(self, kind: str, message: str, *, at_ms: int | None = None) -> None:
        """Tell whoever is attached."""
        payload: dict[str, object] = {"terminalId": self.id, "kind": kind, "message": message}
        if at_ms is not None:
            payload["atMs"] = at_ms
        self.output.tell("terminal.notice", payload)

    # -- life ------------------------------------------------------------

    async def run(self) -> None:
        """The tenant's job: open it, serve it, and show for a while how it ended."""
        try:
            try:
                async with self._parts.audit.action(
                    self.caller,
                    "terminal.open",
                    tenant=self._tenant.id,
                    target=self.id,
                    details=self._details(),
                ):
                    pass
                await self._live()
            except ApplianceError as error:
                self.failure = error
            finally:
                self._settle()
                if self.is_open:
                    self.is_open = False
                    await self._note_close()
                self.opened.set()
                self.ended.set()
            if self.ending is not None and self.reason is not EndReason.CLOSED:
                with trio.move_on_after(LINGERS):
                    await self.forgotten.wait()
        finally:
            self._tenant.state.terminals.discard(self)

    async def _live(self) -> None:
        request = self._request()
        async with self._parts.sandboxes.open(self._tenant, request) as sandbox:
            self._sandbox = sandbox
            self.pid = sandbox.inner_pid
            self.is_open = True
            async with trio.open_nursery() as nursery:
                if self.recorder is not None:
                    nursery.start_soon(self.recorder.run)
                try:
                    # Before it says a word, so that no word overtakes the greeting.
                    self._welcome()
                    self.opened.set()
                    await self._serve(sandbox)
                finally:
                    await self._bury(sandbox)

    async def _bury(self, sandbox: Sandbox) -> None:
        with trio.move_on_after(_KILLED, shield=True):
            await sandbox.kill()
            self.ending = await sandbox.wait()
        self._decide()
        if self.recorder is not None:
            await self.recorder.close(str(self.reason))

    async def _serve(self, sandbox: Sandbox) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, sandbox)
            nursery.start_soon(self.input.run, sandbox.input)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._hang_up_when_told, sandbox)
            await sandbox.wait()
            self._has_exited = True
            self.output.never_wait()
            with trio.move_on_after(_DRAINED):
                await self._drained.wait()
            nursery.cancel_scope.cancel()

    def _decide(self) -> None:
        """Settle on why it ended, if nobody has said."""
        if self.reason is not None:
            return
        if self._has_exited:
            self.reason = EndReason.EXIT
        elif not self._parts.is_live(self.caller):
            self.reason = EndReason.REVOKED
        else:
            was_cancelled = trio.current_effective_deadline() == -inf
            self.reason = EndReason.STOPPED if was_cancelled else EndReason.FAILED

    def _settle(self) -> None:
        self._decide()
        self.has_ended = True
        if not self.is_open or self.reason is None:
            return
        if self.reason.message:
            self.notice("closed", self.reason.message)
        self.output.tell("terminal.exit", {"terminalId": self.id, **self.exit_facts()})

    def exit_facts(self) -> dict[str, object]:
        ending = self.ending
        return {
            "exitCode": None if ending is None else ending.exit_code,
            "signal": None if ending is None else ending.signal,
            "reason": str(self.reason),
            "offset": self.output.end,
        }

    # -- bytes -----------------------------------------------------------

    async def _pump(self, sandbox: Sandbox) -> None:
        while data := await self._gather(sandbox.output):
            await self.output.wait_room()
            if self.recorder is not None:
                await self.recorder.wait_room()
            self._publish(data)
        self._publish(b"", final=True)
        self._drained.set()
        # Whatever still runs has let go of its terminal: nobody can reach it.
        await trio.sleep(_DRAINED)
        self.end(EndReason.EXIT)

    def _publish(self, data: bytes, *, final: bool = False) -> None:
        text = self.output.publish(data, final=final)
        if text and self.recorder is not None:
            self.recorder.output(text)

    async def _gather(self, stream: trio.abc.ReceiveStream) -> bytes:
        """What comes within a moment; nothing at the end."""
        most = self.output.piece
        parts = [await _receive(stream, most)]
        size = len(parts[0])
        if size:
            with trio.move_on_after(COALESCED):
                while size < most and (more := await _receive(stream, most - size)):
                    parts.append(more)
                    size += len(more)
        return b"".join(parts)

    # -- limits ----------------------------------------------------------

    async def _watch(self) -> None:
        """Let go of who has gone, and end what has lasted long enough."""
        while True:
            self.output.tend(self._is_there)
            self._limits.note_watched(bool(self.output.viewers))
            if (reason := self._limits.passed()) is not None:
                self.end(reason, by=GATEWAY)
                return
            for count in self._limits.warnings():
                at_ms = to_ms(self._parts.clock()) + round(count.seconds * 1000)
                self.notice(count.reason.value, count.message, at_ms=at_ms)
            await trio.sleep_until(min(trio.current_time() + _LOOK, self._limits.next_look()))

    def _is_there(self, client: Client) -> bool:
        return self._tenant.clients.find(client.id) is client

    def _note_left(self, viewer: Viewer) -> None:
        if viewer.request_id is None:
            return
        admin = viewer.client.caller.credential
        self.notice("support", f"{admin} of support has left")
        if self.recorder is not None:
            self.recorder.mark(f"support: {admin} left")

    async def _hang_up_when_told(self, sandbox: Sandbox) -> None:
        await self._told.wait()
        sandbox.interrupt(_HANGUP)
        with trio.move_on_after(_HANGING_UP):
            await sandbox.wait()
        await sandbox.kill()

    # -- the books -------------------------------------------------------

    def _request(self) -> SandboxRequest:
        wish = self.wish
        return SandboxRequest(
            agent=wish.agent,
            command=wish.command,
            directory=wish.directory,
            environment={"TERM": "xterm-256color", "COLORTERM": "truecolor", **wish.environment},
            purpose="terminal",
            terminal=wish.size,
            credential=self.caller.credential,
        )

    def _details(self) -> dict[str, object]:
        details: dict[str, object] = {"agent": self.wish.agent, "command": list(self.wish.command)}
        if self.request_id is not None:
            details["support"] = self.request_id
        if self.recorder is not None:
            details["recording"] = self.recorder.id
        return details

    async def _note_close(self) -> None:
        facts = self.exit_facts()
        try:
            async with self._parts.audit.action(
                self._closer or self.caller,
                "terminal.close",
                tenant=self._tenant.id,
                target=self.id,
                details={
                    "reason": facts["reason"],
                    "exit_code": facts["exitCode"],
                    "seconds": round(self._limits.age),
                },
            ):
                pass
        except ApplianceError as error:
            log.error(  # noqa: TRY400 - an expected failure, its text says it all
                "the end of a terminal is not in the audit log",
                extra={"terminal": self.id, "reason": error.detail},
            )


def never_opened() -> ApplianceError:
    return Unavailable("the terminal ended before it was open; try again", retry_after=1)


async def _receive(stream: trio.abc.ReceiveStream, most: int) -> bytes:
    """The next bytes; nothing at the end, which a tty reports as a failure."""
    try:
        return bytes(await stream.receive_some(most))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""
