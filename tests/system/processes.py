"""Starting, asking and ending the processes under test."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
FROM_SOURCE = (sys.executable, "-m", "appliance")
FROZEN = ROOT / "dist" / "openclawmu"

ADMIN_KEY = "admin:system-tests-0123456789abcdefghijklmnopqrstuv"

# Long enough for a loaded machine; nothing waits for it when all is well.
PATIENCE = 60.0  # seconds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, *, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain for {what}"
        time.sleep(0.02)


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would steer a gateway."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    return kept | {"PYTHONUNBUFFERED": "1"} | more


@dataclass(slots=True)
class Process:
    """A program under test; what it says goes to files, so that no pipe can fill up."""

    command: Sequence[str]
    home: Path  # holds what it said
    environ: Mapping[str, str]
    _running: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def said(self) -> str:
        return "".join(
            path.read_text(errors="replace")
            for path in (self.home / "stdout", self.home / "stderr")
            if path.exists()
        )

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        assert self._running is not None
        return self._running.poll()

    def start(self) -> Self:
        self.home.mkdir(exist_ok=True)
        with (self.home / "stdout").open("ab") as out, (self.home / "stderr").open("ab") as err:
            self._running = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env=dict(self.environ),
            )
        return self

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, *, patience: float = PATIENCE) -> int:
        assert self._running is not None
        try:
            return self._running.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not leave; it said:\n{self.said[-4000:]}") from None

    def stop(self) -> int:
        """Ask it to leave, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        if self._running is not None and self._running.poll() is None:
            self._running.kill()
            self._running.wait()


@dataclass(slots=True)
class Gateway:
    """``serve`` on a state directory of its own."""

    process: Process
    port: int
    state: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self) -> Self:
        def ready() -> bool:
            code = self.process.exit_code
            assert code is None, f"it left with {code}; it said:\n{self.process.said[-4000:]}"
            try:
                return self.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, "the gateway to be ready")
        return self

    def get(self, path: str) -> httpx.Response:
        """What it answers to somebody it does not know."""
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE)

    def client(self, bearer: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {bearer}"}, timeout=PATIENCE
        )

    def create_tenant(self, tenant: str = "acme") -> str:
        """Create ``tenant`` and return its token."""
        with self.client(ADMIN_KEY) as admin:
            answer = admin.post("/v1/tenants", json={"id": tenant})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def chat(self, token: str, text: str, **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        body = {"model": "openclaw", "messages": [{"role": "user", "content": text}]} | more
        with self.client(token) as tenant:
            return tenant.post("/v1/chat/completions", json=body, headers=headers)


def answer_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


@dataclass(slots=True)
class Launcher:
    """Starts gateways, and ends whatever is still running after the test."""

    home: Path
    command: Sequence[str] = FROM_SOURCE
    environ: dict[str, str] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def config(self) -> Path:
        return self.state / "config.yaml"

    def configure(self, text: str) -> None:
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.config.write_text(text)
        self.config.chmod(0o600)

    def run(self, *arguments: str, patience: float = PATIENCE) -> Process:
        """Run one command to its end."""
        process = self.start(*arguments)
        process.wait(patience=patience)
        return process

    def start(self, *arguments: str, **environ: str) -> Process:
        process = Process(
            command=[*self.command, *arguments],
            home=self.home / f"process-{len(self.started)}",
            environ=environment(**self.environ | environ),
        )
        self.started.append(process)
        return process.start()

    def serve(
        self, *, ready: bool = True, port: int | None = None, admin_key: str = ADMIN_KEY
    ) -> Gateway:
        port = port or free_port()
        process = self.start(
            *("serve", "--bind", f"127.0.0.1:{port}", "--state-dir", str(self.state)),
            **({"OPENCLAW_ADMIN_KEY": admin_key} if admin_key else {}),
        )
        gateway = Gateway(process=process, port=port, state=self.state)
        return gateway.wait_ready() if ready else gateway


@contextmanager
def launching(home: Path, command: Sequence[str] = FROM_SOURCE) -> Iterator[Launcher]:
    launcher = Launcher(home=home, command=command)
    try:
        yield launcher
    finally:
        for process in reversed(launcher.started):
            process.kill()
