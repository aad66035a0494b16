"""The written list of escape probes: in a sandbox, and in an open one, where they must fail."""

import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.sandboxes.base import Limits, TerminalSize
from appliance.sandboxes.host_layout import Programs
from appliance.sandboxes.seccomp_tables import NUMBERS, Architecture
from tests.sandboxes.workshop import HAS_BWRAP, IS_ROOT, NO_BWRAP, UID, give, opened

SCRIPT = Path(__file__).with_name("escape_probes.sh")
MANUAL = Path(__file__).resolve().parents[2] / "docs" / "sandbox.md"

pytestmark = [
    pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP),
    pytest.mark.skipif(not Path("/usr/bin/perl").exists(), reason="needs perl"),
]


def probe_ids() -> list[str]:
    """As they are written: the second word of a line, or the second after a semicolon."""
    verbs = "fails|works|empty|gone|locked|call|sock|reach|tty"
    text = SCRIPT.read_text().partition("# files\n")[2]
    return re.findall(rf"^(?:[^#\n]*; )?(?:{verbs}) ([a-z0-9]+\.[a-z0-9-]+)", text, re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bait:
    """What there is on the host to be reached."""

    secret: Path
    port: int
    abstract: str

    @property
    def arguments(self) -> list[str]:
        return [str(self.secret), str(self.port), self.abstract]


@pytest.fixture
def bait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bait]:
    monkeypatch.setenv("OPENCLAWMU_CANARY", "planted")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        abstract = f"openclawmu-probe-{os.getpid()}"
        unix.bind(f"\0{abstract}")
        unix.listen()
        yield Bait(secret, tcp.getsockname()[1], abstract)


def numbers() -> dict[str, str]:
    table = NUMBERS[Architecture(platform.machine())]
    return {f"SYS_{name}": str(number) for name, number in table.items()} | {
        "SYS_no_such_call": "9999"
    }


def read(report: str) -> dict[str, tuple[str, str]]:
    lines = [line.split("\t") for line in report.replace("\r", "").splitlines()]
    return {line[1]: (line[0], line[2]) for line in lines if len(line) == 3}


@pytest.mark.parametrize("terminal", [None, TerminalSize(80, 24)], ids=["pipes", "terminal"])
async def test_no_probe_escapes(tmp_path: Path, bait: Bait, terminal: TerminalSize | None) -> None:
    async with opened(tmp_path) as shop:
        shop.write("probes.sh", SCRIPT.read_text())
        spec = shop.spec(
            *("/bin/sh", "/workspace/probes.sh", *bait.arguments),
            environment=numbers(),
            limits=Limits(memory_bytes=None, pids=64),
            terminal=terminal,
        )
        result = await shop.run(spec)
    report = read(result.text)

    escaped = {name: said for name, said in report.items() if said[0] == "ESCAPED"}
    assert escaped == {}
    assert set(report) - {"end"} == set(probe_ids())
    assert "end" in report, result.text[-500:]
    skipped = {name for name, said in report.items() if said[0] == "skip"}
    # Calls of another architecture, and no more.
    assert skipped == ({"kernel.cookie"} if platform.machine() == "aarch64" else set()) & skipped


def test_the_probes_find_what_an_open_sandbox_leaves_open(tmp_path: Path, bait: Bait) -> None:
    """The same list in a bwrap that only changes the root: half of it must escape."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o755)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    give(workspace)
    programs = Programs.find()
    become = [programs.setpriv, f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    done = subprocess.run(
        [
            *(become if IS_ROOT else []),
            *(programs.bwrap, "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc"),
            *("/bin/sh", "-s", "--", *bait.arguments),
        ],
        # Without what fills the host's memory or its table of processes.
        input=re.sub(
            r"^.*(files\.fill-|limits\.|files\.tmp|proc\.count|locked |files\.remount).*$",
            "",
            SCRIPT.read_text(),
            flags=re.MULTILINE,
        ),
        env={**numbers(), "WORK": str(workspace), "PATH": os.defpath, "OPENCLAWMU_CANARY": "x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    report = read(done.stdout)
    escaped = {name for name, said in report.items() if said[0] == "ESCAPED"}

    assert len(escaped) > 40, done.stderr[-500:]
    assert escaped >= {
        *("files.secret", "files.setuid", "net.host-loopback", "net.abstract", "net.vsock"),
        *("ns.user-root", "proc.canary", "env.canary", "trace.me", "dev.list"),
    }


def test_every_probe_is_in_the_manual_and_has_one_name() -> None:
    ids = probe_ids()
    assert len(ids) == len(set(ids)) > 170

    manual = MANUAL.read_text()
    assert [name for name in ids if f"`{name}`" not in manual] == []
