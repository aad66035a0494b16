"""The self-test proves the isolation here, and notices when it is broken."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from appliance.sandboxes import bubblewrap_arguments, host_layout, proving
from appliance.sandboxes.base import Probe, Proof
from appliance.sandboxes.bubblewrap_arguments import Invocation
from appliance.sandboxes.groups import NoGroups
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP
from tests.sandboxes.workshop import bubblewrap as make_backend

pytestmark = pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)


def failed(proof: Proof) -> dict[str, str]:
    return {probe.name: probe.detail for probe in proof.probes if not probe.passed}


async def test_the_isolation_is_proved() -> None:
    backend = make_backend(NoGroups("nobody limits memory"))
    proof = await backend.prove()
    await backend.aclose()

    assert proof.problem == ""
    assert proof.holds
    assert proof.limits == "rlimits"
    assert proof.warnings == ("nobody limits memory",)
    assert len(proof.probes) >= 15
    assert failed(proof) == {}


def weaken(monkeypatch: pytest.MonkeyPatch, change: Callable[[Invocation], Invocation]) -> None:
    build = bubblewrap_arguments.build

    def weak(*arguments: object, **options: object) -> Invocation:
        return change(build(*arguments, **options))  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(bubblewrap_arguments, "build", weak)


def replacing(old: Sequence[str], new: Sequence[str]) -> Callable[[Invocation], Invocation]:
    before, after = ("\0".join(words).encode() for words in (old, new))

    def change(invocation: Invocation) -> Invocation:
        assert before in invocation.arguments
        return replace(invocation, arguments=invocation.arguments.replace(before, after, 1))

    return change


@pytest.mark.parametrize(
    ("old", "new", "probe"),
    [
        (["--unshare-all"], ["--unshare-pid"], "network"),
        (["--cap-drop", "ALL"], ["--cap-add", "CAP_NET_ADMIN"], "capabilities"),
        (["--seccomp", "6"], ["--sync-fd", "6"], "seccomp"),
        (["--remount-ro", "/", "--chdir"], ["--chdir"], "read-only"),
        (["--remount-ro", "/dev"], ["--dir", "/dev/x"], "read-only"),
        (["--ro-bind", "/usr", "/usr"], ["--bind", "/usr", "/usr"], "read-only"),
        (["--hostname"], ["--ro-bind", "/", "/srv", "--hostname"], "host-files"),
        (["--ro-bind", "/dev/null", "/proc/kallsyms"], ["--chmod", "0755", "/etc"], "kernel"),
        (["--uid", "1000"], ["--uid", "1001"], "user"),
        (["--clearenv"], ["--setenv", "OPENCLAWMU_CANARY", "x"], "environment"),
    ],
)
async def test_a_weaker_sandbox_is_refused(
    old: list[str], new: list[str], probe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken(monkeypatch, replacing(old, new))
    if old == ["--seccomp", "6"]:
        # Both of bwrap's walls against namespaces at once.
        weaken(monkeypatch, replacing(["--disable-userns"], []))
    proof = await make_backend().prove()

    assert not proof.holds
    # Without it bwrap may not even start: that is no proof either.
    assert probe in failed(proof) or "cannot be started" in proof.problem


async def test_a_descriptor_that_gets_in_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    leaked = os.open("/", os.O_PATH | os.O_DIRECTORY)
    backend = make_backend()
    weaken(monkeypatch, lambda built: replace(built, descriptors={**built.descriptors, 40: leaked}))
    try:
        assert failed(await backend.prove()) == {"descriptors": "40"}
    finally:
        os.close(leaked)


async def test_what_this_process_was_started_with_stays_outside() -> None:
    leaked, far = os.pipe()
    os.set_inheritable(leaked, True)  # noqa: FBT003 - Python's own signature
    try:
        proof = await make_backend().prove()
        assert not os.get_inheritable(leaked)
    finally:
        os.close(leaked)
        os.close(far)
    assert proof.holds


async def test_a_missing_program_is_the_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_layout, "SYSTEM_PATH", str(tmp_path))
    proof = await make_backend().prove()

    assert "apt install bubblewrap" in proof.problem
    assert not proof.holds


async def test_a_bwrap_that_fails_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weaken(monkeypatch, replacing(["--hostname"], ["--no-such-option"]))
    proof = await make_backend().prove()

    assert "Unknown option --no-such-option" in proof.problem
    assert "too old" in proof.problem


async def test_a_sandbox_that_hangs_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: object) -> Sequence[Probe]:
        with trio.move_on_after(0.1):
            await trio.sleep_forever()
        return ()

    monkeypatch.setattr(proving, "read_report", hang)
    proof = await make_backend().prove()

    assert not proof.holds
