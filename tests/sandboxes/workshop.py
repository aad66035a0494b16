"""Real sandboxes for tests: a workspace that they can use, whoever runs the tests."""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from appliance.sandboxes.base import Ending, Sandbox, SandboxBackend, SandboxSpec
from appliance.sandboxes.bubblewrap import Bubblewrap
from appliance.sandboxes.groups import Groups, NoGroups
from appliance.sandboxes.host_layout import SYSTEM_PATH

UID = 60_900  # what root's sandboxes are on the host
IS_ROOT = os.geteuid() == 0
HAS_BWRAP = shutil.which("bwrap", path=SYSTEM_PATH) is not None
NO_BWRAP = "needs bubblewrap: apt install bubblewrap"


@dataclass(frozen=True, slots=True)
class Result:
    output: bytes
    errors: bytes
    ending: Ending

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace").replace("\r\n", "\n").rstrip("\n")


def bubblewrap(groups: Groups | None = None) -> Bubblewrap:
    return Bubblewrap(uid=UID if IS_ROOT else None, groups=groups or NoGroups())


@dataclass(frozen=True, slots=True)
class Workshop:
    """A backend with a workspace."""

    backend: SandboxBackend
    folder: Path
    descriptor: int

    def spec(self, *command: str, **changes: Any) -> SandboxSpec:
        spec = SandboxSpec(group="group", workspace=self.descriptor, command=command)
        return replace(spec, **changes)

    def shell(self, script: str, *arguments: str, **changes: Any) -> SandboxSpec:
        return self.spec("/bin/sh", "-c", script, "sh", *arguments, **changes)

    async def run(self, spec: SandboxSpec, *, stdin: bytes = b"") -> Result:
        async with self.backend.open(spec) as sandbox:
            return await finish(sandbox, stdin=stdin)

    async def sh(self, script: str, *arguments: str, **changes: Any) -> Result:
        return await self.run(self.shell(script, *arguments, **changes))

    def write(self, name: str, contents: str | bytes, *, mode: int = 0o644) -> Path:
        path = self.folder / name
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        path.chmod(mode)
        give(path)
        return path


async def finish(sandbox: Sandbox, *, stdin: bytes = b"", hang_up: bool = True) -> Result:
    """Feed it, read all it says, and wait."""
    parts: Mapping[str, list[bytes]] = {"output": [], "errors": []}

    async def read(name: str, stream: trio.abc.ReceiveStream | None) -> None:
        if stream is not None:
            while chunk := await stream.receive_some():
                parts[name].append(bytes(chunk))

    async def write() -> None:
        try:
            await sandbox.input.send_all(stdin)
            if hang_up and sandbox.errors is not None:
                await sandbox.input.aclose()
        except trio.BrokenResourceError:
            pass  # it does not read

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "output", sandbox.output)
            nursery.start_soon(read, "errors", sandbox.errors)
            nursery.start_soon(write)
        ending = await sandbox.wait()
    return Result(b"".join(parts["output"]), b"".join(parts["errors"]), ending)


def give(path: Path) -> None:
    """Make it the sandboxes'."""
    if IS_ROOT:
        os.chown(path, UID, UID, follow_symlinks=False)


@contextmanager
def workspace(folder: Path) -> Iterator[tuple[Path, int]]:
    """A directory of the sandboxes' below one that nobody else may enter."""
    path = folder / "tenants" / "workspace"
    path.mkdir(parents=True)
    path.parent.chmod(0o700)
    path.chmod(0o700)
    give(path)
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield path, descriptor
    finally:
        os.close(descriptor)


@asynccontextmanager
async def opened(folder: Path, groups: Groups | None = None) -> AsyncIterator[Workshop]:
    backend = bubblewrap(groups)
    with workspace(folder) as (path, descriptor):
        try:
            yield Workshop(backend, path, descriptor)
        finally:
            await backend.aclose()


async def wait_until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await trio.sleep(0.01)


def running(*command: str) -> list[int]:
    """Processes, zombies apart, whose command line ends like this."""
    wanted = b"\0" + b"\0".join(word.encode() for word in command) + b"\0"
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        # A zombie has no command line.
        if (b"\0" + read_or_nothing(path)).endswith(wanted)
    ]


def read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
