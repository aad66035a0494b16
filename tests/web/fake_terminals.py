"""Terminals without a sandbox: shells on real PTYs, behind the gateway's own frames.

The methods are declared as the gateway declares its own, so everything around
them is real: the door, the handshake, rights, dispatch. Only the shells run as
whoever runs the tests, and with nothing around them.
"""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import trio

from appliance.model.errors import NotFound
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.services.clients import Client
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Params, Who

QUOTA = 4
SHELL = ("/bin/bash", "--norc", "--noprofile", "-i")


class Spawn(Params, frozen=True):
    cols: int = 80
    rows: int = 24


class Named(Params, frozen=True):
    terminal_id: str


class Attach(Named, frozen=True):
    offset: int | None = None
    mode: Literal["read", "write"] = "write"


class Write(Named, frozen=True):
    data: str


class Resize(Named, frozen=True):
    cols: int
    rows: int


class Ack(Named, frozen=True):
    offset: int


class Request(Params, frozen=True):
    mode: Literal["read", "write"]
    minutes: int
    reason: str
    terminal_id: str | None = None


class Resolve(Params, frozen=True):
    request_id: str
    decision: Literal["allow", "deny"]


class End(Params, frozen=True):
    request_id: str


@dataclass
class Shell:
    id: str
    process: "subprocess.Popen[bytes]"
    master: int
    cols: int
    rows: int
    kept: str = ""  # everything it ever said
    acked: int = 0
    mode: str = "write"
    exited: dict[str, Any] | None = None
    clients: list[Client] = field(default_factory=list)

    def tell(self, event: str, **payload: Any) -> None:
        for client in list(self.clients):
            if not client.send_event(event, {"terminalId": self.id, **payload}):
                self.clients.remove(client)


class FakeTerminals:
    """What the page talks to; tests reach in and do what a tenant or time would do."""

    def __init__(self, nursery: trio.Nursery, home: Path) -> None:
        self._nursery = nursery
        self._home = home
        self.shells: dict[str, Shell] = {}
        self.asked: list[str] = []  # methods, in order
        self.written: list[str] = []
        self.resolved: list[tuple[str, str]] = []
        self.support: list[dict[str, Any]] = []
        self.clients: list[Client] = []

    # -- what tests do -----------------------------------------------------

    @property
    def only(self) -> Shell:
        (shell,) = self.shells.values()
        return shell

    def say(self, shell: Shell, text: str) -> None:
        """Output that no shell made."""
        shell.kept += text
        shell.tell("terminal.output", data=text, offset=len(shell.kept))

    def tell_all(self, event: str, payload: dict[str, Any]) -> None:
        for client in self.clients:
            client.send_event(event, payload)

    def cut_connections(self) -> None:
        for client in self.clients:
            client.drop(1012, "the network went away")
        self.clients.clear()

    def close(self) -> None:
        for shell in self.shells.values():
            with suppress(ProcessLookupError):
                os.killpg(shell.process.pid, signal.SIGKILL)
            shell.process.wait()
            if shell.exited is None:
                os.close(shell.master)

    # -- the methods -------------------------------------------------------

    async def spawn(self, call: MethodCall[Spawn]) -> dict[str, Any]:
        self._note(call)
        process, master = _start(self._home, call.params.cols, call.params.rows)
        name = f"term-{len(self.shells) + 1}"
        shell = Shell(name, process, master, call.params.cols, call.params.rows)
        shell.clients.append(call.client)
        self.shells[name] = shell
        self._nursery.start_soon(self._read, shell)
        return {**self._listed(shell), "recording": False}

    async def list(self, call: MethodCall[NoParams]) -> dict[str, Any]:
        self._note(call)
        live = [self._listed(shell) for shell in self.shells.values() if shell.exited is None]
        return {"sessions": live, "quota": QUOTA}

    async def attach(self, call: MethodCall[Attach]) -> dict[str, Any]:
        self._note(call)
        shell = self._find(call.params)
        if call.client not in shell.clients:
            shell.clients.append(call.client)
        return {
            "terminalId": shell.id,
            "cols": shell.cols,
            "rows": shell.rows,
            "title": shell.id,
            "offset": len(shell.kept),
            "data": shell.kept[call.params.offset or 0 :],
            "truncated": False,
            "mode": shell.mode,
            "exited": shell.exited,
        }

    async def detach(self, call: MethodCall[Named]) -> dict[str, Any]:
        self._note(call)
        with suppress(ValueError):
            self._find(call.params).clients.remove(call.client)
        return {}

    async def write(self, call: MethodCall[Write]) -> dict[str, Any]:
        self._note(call)
        shell, rest = self._find(call.params), call.params.data.encode()
        self.written.append(call.params.data)
        while rest:
            await trio.lowlevel.wait_writable(shell.master)
            rest = rest[os.write(shell.master, rest) :]
        return {"written": len(call.params.data)}

    async def resize(self, call: MethodCall[Resize]) -> dict[str, Any]:
        self._note(call)
        shell = self._find(call.params)
        shell.cols, shell.rows = call.params.cols, call.params.rows
        _set_size(shell.master, shell.cols, shell.rows)
        return {"cols": shell.cols, "rows": shell.rows}

    async def ack(self, call: MethodCall[Ack]) -> dict[str, Any]:
        self._note(call)
        self._find(call.params).acked = call.params.offset
        return {}

    async def end(self, call: MethodCall[Named]) -> dict[str, Any]:
        self._note(call)
        shell = self._find(call.params)
        os.killpg(shell.process.pid, signal.SIGKILL)
        return {"closed": True}

    async def request_support(self, call: MethodCall[Request]) -> dict[str, Any]:
        self._note(call)
        params = call.params
        asked = {
            "requestId": f"sup-{len(self.support) + 1}",
            "state": "requested",
            "mode": params.mode,
            "admin": call.caller.credential,
            "reason": params.reason,
            "expiresAtMs": 1_795_000_000_000,
            "terminalId": params.terminal_id,
        }
        self.support.append(asked)
        for shell in self.shells.values():
            shell.mode = params.mode  # of whoever attaches from here on
        self.tell_all("terminal.support", asked)
        return asked

    async def list_support(self, call: MethodCall[NoParams]) -> dict[str, Any]:
        self._note(call)
        return {"requests": self.support}

    async def resolve(self, call: MethodCall[Resolve]) -> dict[str, Any]:
        self._note(call)
        self.resolved.append((call.params.request_id, call.params.decision))
        return {}

    async def end_support(self, call: MethodCall[End]) -> dict[str, Any]:
        self._note(call)
        self.resolved.append((call.params.request_id, "end"))
        return {}

    # -- how ---------------------------------------------------------------

    def _note(self, call: MethodCall[Any]) -> None:
        self.asked.append(call.method.name)
        if call.client not in self.clients:
            self.clients.append(call.client)

    def _find(self, params: Named) -> Shell:
        if params.terminal_id not in self.shells:
            raise NotFound("there is no such terminal")
        return self.shells[params.terminal_id]

    def _listed(self, shell: Shell) -> dict[str, Any]:
        return {
            "terminalId": shell.id,
            "pid": shell.process.pid,
            "cols": shell.cols,
            "rows": shell.rows,
            "title": shell.id,
            "attached": len(shell.clients),
        }

    async def _read(self, shell: Shell) -> None:
        while True:
            await trio.lowlevel.wait_readable(shell.master)
            try:
                data = os.read(shell.master, 64 * 1024)
            except BlockingIOError:
                continue
            except OSError:  # EIO: the last holder of the other end is gone
                break
            self.say(shell, data.decode(errors="replace"))
        code = await trio.to_thread.run_sync(shell.process.wait)
        os.close(shell.master)
        shell.exited = {"exitCode": code if code >= 0 else None, "signal": -code if code < 0 else 0}
        shell.tell("terminal.exit", reason="exit", **shell.exited)


def _start(home: Path, cols: int, rows: int) -> "tuple[subprocess.Popen[bytes], int]":
    master, slave = pty.openpty()
    _set_size(master, cols, rows)
    process = subprocess.Popen(
        SHELL,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=home,
        env={"TERM": "xterm-256color", "PS1": "$ ", "HOME": str(home), "PATH": "/usr/bin:/bin"},
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(slave)
    os.set_blocking(master, False)
    return process, master


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _set_size(master: int, cols: int, rows: int) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def methods(terminals: FakeTerminals, others: Sequence[Method]) -> tuple[Method, ...]:
    """``others`` with these in place of the gateway's own."""

    def method(
        name: str, params: type[Params], handler: Callable[..., Any], who: Who = Who.TENANT
    ) -> Method:
        return Method(
            name=name,
            summary="",
            scope=OperatorScope.WRITE,
            needs=Scope.TERMINAL,
            who=who,
            params=params,
            handler=handler,
        )

    made = (
        method("terminal.spawn", Spawn, terminals.spawn),
        method("terminal.list", NoParams, terminals.list),
        method("terminal.attach", Attach, terminals.attach),
        method("terminal.detach", Named, terminals.detach),
        method("terminal.write", Write, terminals.write),
        method("terminal.resize", Resize, terminals.resize),
        method("terminal.ack", Ack, terminals.ack),
        method("terminal.close", Named, terminals.end),
        method("terminal.support.request", Request, terminals.request_support, Who.ADMIN),
        method("terminal.support.list", NoParams, terminals.list_support),
        method("terminal.support.resolve", Resolve, terminals.resolve),
        method("terminal.support.end", End, terminals.end_support),
    )
    names = {each.name for each in made}
    return (*(other for other in others if other.name not in names), *made)
