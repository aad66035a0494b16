"""Calling a container engine's client."""

from pathlib import Path

import pytest
import trio

from appliance.sandboxes.base import SandboxFailed
from appliance.sandboxes.container_engine import CALL_TIMEOUT, ContainerEngine, diagnosis
from appliance.sandboxes.podman_arguments import Engine


def program(folder: Path, name: str, script: str = "true") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_podman_is_found_before_docker(tmp_path: Path) -> None:
    assert ContainerEngine.find(is_old_cgroups=False, path=str(tmp_path)) is None

    docker = program(tmp_path, "docker")
    found = ContainerEngine.find(is_old_cgroups=False, path=str(tmp_path))
    assert found is not None
    assert (found.kind, found.program, found.options) == (Engine.DOCKER, docker, ())

    podman = program(tmp_path, "podman")
    found = ContainerEngine.find(is_old_cgroups=False, path=str(tmp_path))
    assert found is not None
    assert (found.kind, found.program) == (Engine.PODMAN, podman)
    assert "--cgroup-manager=cgroupfs" in found.options


def test_where_both_versions_of_groups_are_mounted_runc_is_used(tmp_path: Path) -> None:
    program(tmp_path, "podman")
    runc = program(tmp_path, "runc")

    old = ContainerEngine.find(is_old_cgroups=True, path=str(tmp_path))
    new = ContainerEngine.find(is_old_cgroups=False, path=str(tmp_path))

    assert old is not None
    assert new is not None
    assert f"--runtime={runc}" in old.options
    assert not [option for option in new.options if option.startswith("--runtime")]


def test_only_what_names_images_is_passed_on_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "podman")
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("LD_PRELOAD", "/srv/x.so")
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", "/srv/storage.conf")
    found = ContainerEngine.find(is_old_cgroups=False, path=str(tmp_path))

    assert found is not None
    assert found.environment["CONTAINERS_STORAGE_CONF"] == "/srv/storage.conf"
    assert not {"DATABASE_PASSWORD", "LD_PRELOAD"} & found.environment.keys()


def engine(path: str) -> ContainerEngine:
    return ContainerEngine(kind=Engine.PODMAN, program=path, environment={"PATH": "/usr/bin:/bin"})


async def test_an_answer_is_what_the_client_printed(tmp_path: Path) -> None:
    client = engine(program(tmp_path, "podman", 'echo "got $*"'))

    assert await client.call("ps", "--all") == b"got ps --all\n"


async def test_a_failure_says_what_the_client_said(tmp_path: Path) -> None:
    client = engine(program(tmp_path, "podman", "echo 'Error: no space' >&2; exit 125"))

    with pytest.raises(SandboxFailed, match="podman failed: no space"):
        await client.call("create")


async def test_a_client_that_cannot_be_run_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(SandboxFailed, match="cannot be run"):
        await engine(str(tmp_path / "gone")).call("ps")
    with pytest.raises(SandboxFailed, match="cannot be run"):
        await engine(str(tmp_path / "gone")).start("ps")


async def test_a_client_that_hangs_is_given_up(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    client = engine(program(tmp_path, "podman", "exec sleep 600"))

    with pytest.raises(SandboxFailed, match="did not answer"):
        await client.call("ps")
    assert trio.current_time() >= CALL_TIMEOUT


def test_a_diagnosis_is_never_empty_and_never_long() -> None:
    assert diagnosis(b"") == "it gave no reason"
    assert diagnosis(b"Error: x\n") == "x"
    assert len(diagnosis(b"x" * 10_000)) == 2000
