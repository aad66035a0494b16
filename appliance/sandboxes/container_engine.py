"""Podman's command line client, or Docker's, as a thing to call."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from subprocess import PIPE, CompletedProcess

import trio

from appliance.sandboxes.base import SandboxFailed
from appliance.sandboxes.host_layout import SYSTEM_PATH
from appliance.sandboxes.podman_arguments import Engine

CALL_TIMEOUT = 60.0  # seconds; 0.1 on an idle machine, more while it pages in
_LONGEST_DIAGNOSIS = 2000
# Where a user's images and configuration are. Nothing else of our environment is its business.
_PASSED = (
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "DOCKER_CONFIG",
    "DOCKER_HOST",
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEngine:
    kind: Engine
    program: str
    options: Sequence[str] = ()  # before the command of the client
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, *, is_old_cgroups: bool, path: str = SYSTEM_PATH) -> "ContainerEngine | None":
        """Podman if it is installed, else Docker, else None."""
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        environment = {"PATH": SYSTEM_PATH, **passed}
        if program := shutil.which("podman", path=path):
            options = ["--cgroup-manager=cgroupfs", "--events-backend=none"]
            if is_old_cgroups and (runc := shutil.which("runc", path=path)):
                # crun, the default, refuses a machine with both versions mounted.
                options.append(f"--runtime={runc}")
            return cls(
                kind=Engine.PODMAN, program=program, options=options, environment=environment
            )
        if program := shutil.which("docker", path=path):
            return cls(kind=Engine.DOCKER, program=program, environment=environment)
        return None

    def line(self, *arguments: str | bytes) -> list[str | bytes]:
        return [self.program, *self.options, *arguments]

    async def ask(self, *arguments: str | bytes) -> "CompletedProcess[bytes]":
        """Run the client to its end. Raises :exc:`SandboxFailed` if there is no end or no start."""
        try:
            with trio.fail_after(CALL_TIMEOUT):
                return await trio.run_process(
                    self.line(*arguments),
                    stdin=b"",
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    deliver_cancel=_kill,
                    env=self.environment,
                )
        except trio.TooSlowError as exc:
            raise SandboxFailed(f"{self.kind} did not answer in {CALL_TIMEOUT:.0f} s") from exc
        except OSError as exc:
            raise SandboxFailed(f"{self.program} cannot be run: {exc.strerror}") from exc

    async def call(self, *arguments: str | bytes) -> bytes:
        """The same; a failure of the client is a :exc:`SandboxFailed` with what it said."""
        answer = await self.ask(*arguments)
        if answer.returncode != 0:
            raise SandboxFailed(f"{self.kind} failed: {diagnosis(answer.stderr)}")
        return answer.stdout

    async def start(self, *arguments: str, terminal: int | None = None) -> trio.Process:
        """Start the client with three pipes, or with a terminal for all three.

        It has a session of its own: a Ctrl-C at the gateway's terminal is not for it.
        """
        try:
            return await trio.lowlevel.open_process(
                self.line(*arguments),
                stdin=PIPE if terminal is None else terminal,
                stdout=PIPE if terminal is None else terminal,
                stderr=PIPE if terminal is None else terminal,
                env={**self.environment, "TERM": "xterm-256color"},
                start_new_session=True,
            )
        except OSError as exc:
            raise SandboxFailed(f"{self.program} cannot be run: {exc.strerror}") from exc


async def _kill(client: trio.Process) -> None:
    # It had its time to answer.
    client.kill()


def diagnosis(errors: bytes) -> str:
    said = errors.decode(errors="replace").strip().removeprefix("Error: ")
    return said[-_LONGEST_DIAGNOSIS:] or "it gave no reason"
