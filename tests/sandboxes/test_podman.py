"""The Podman backend with an engine that makes no containers; the contract has a real one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import Access, EgressDoor, Limits, SandboxFailed
from appliance.sandboxes.groups import NoGroups
from appliance.sandboxes.podman import Podman
from appliance.sandboxes.podman_arguments import Engine
from tests.sandboxes.fake_engine import FakeEngine, fake_engine
from tests.sandboxes.workshop import IS_ROOT, UID, Workshop, workspace


@pytest.fixture
def fake(tmp_path: Path) -> FakeEngine:
    return fake_engine(tmp_path / "engine")


def backend(fake: FakeEngine, folder: Path, image: str = "base") -> Podman:
    return Podman(
        engine=fake.engine,
        image=image,
        uid=UID,
        groups=NoGroups(),
        state_dir=folder,
        directory=folder / "containers",
    )


@pytest.fixture
def shop(fake: FakeEngine, tmp_path: Path) -> Iterator[Workshop]:
    with workspace(tmp_path) as (path, descriptor):
        yield Workshop(backend(fake, tmp_path), path, descriptor)


async def test_a_container_is_made_set_up_started_looked_at_and_removed(
    shop: Workshop, fake: FakeEngine
) -> None:
    fake.set("state", "exited false 3\n")
    result = await shop.sh("true", access=Access.NONE)

    words = [next(word for word in call[1:] if not word.startswith("-")) for call in fake.asked]
    assert words == ["create", "init", "inspect", "start", "inspect", "rm"]
    assert (result.output, result.errors) == (b"out\n", b"err\n")
    assert result.ending.exit_code == 3


async def test_who_it_is_on_the_host_is_never_root(shop: Workshop, fake: FakeEngine) -> None:
    await shop.sh("true", access=Access.NONE)

    [create] = fake.calls("create")
    assert (f"--user={UID}:{UID}" if IS_ROOT else "--user=1000:1000") in create


async def test_variables_are_read_from_a_private_file_that_is_gone_afterwards(
    shop: Workshop, fake: FakeEngine, tmp_path: Path
) -> None:
    await shop.sh("true", access=Access.NONE, environment={"KEY": "hunter2"})

    assert "KEY=hunter2" in (fake.folder / "variables").read_text()
    assert (fake.folder / "modes").read_text().startswith("-rw-------")
    assert [path.name for path in (tmp_path / "containers").iterdir()] == ["seccomp.json"]
    assert not [call for call in fake.asked if "hunter2" in " ".join(call)]


async def test_a_container_that_cannot_be_made_is_a_failure_and_removed(
    shop: Workshop, fake: FakeEngine
) -> None:
    fake.set("create.fails", "Error: no space left")

    with pytest.raises(SandboxFailed, match="no space left"):
        await shop.sh("true")

    assert len(fake.calls("rm")) == 1
    assert not fake.calls("start")


async def test_another_directory_than_the_workspace_is_noticed_before_anything_runs(
    shop: Workshop, fake: FakeEngine
) -> None:
    # This process has no /workspace, let alone that one.
    fake.set("pid", str(os.getpid()))

    with pytest.raises(SandboxFailed, match="workspace"):
        await shop.sh("true")

    assert not fake.calls("start")
    assert len(fake.calls("rm")) == 1


async def test_a_directory_that_is_missing_is_refused_before_anything_is_made(
    shop: Workshop, fake: FakeEngine
) -> None:
    shop.write("file", "")
    for directory in ("/workspace/missing", "/workspace/file", "/workspace/file/deep"):
        with pytest.raises(InvalidRequest, match="no such directory"):
            await shop.sh("true", directory=directory)

    assert fake.asked == []


async def test_memory_that_ran_out_is_reported_by_the_engine(
    shop: Workshop, fake: FakeEngine
) -> None:
    fake.set("state", "exited true 137\n")

    ending = (await shop.sh("true", access=Access.NONE)).ending

    assert (ending.exit_code, ending.signal, ending.out_of_memory) == (137, 9, True)


async def test_without_an_answer_the_clients_status_is_the_commands(
    shop: Workshop, fake: FakeEngine
) -> None:
    fake.set("state", "")
    fake.set("command", "exit 5")

    assert (await shop.sh("true", access=Access.NONE)).ending.exit_code == 5


async def test_the_doors_certificates_come_with_the_systems(
    shop: Workshop, fake: FakeEngine, tmp_path: Path
) -> None:
    fake.set("command", f"cat {tmp_path}/containers/*.pem")
    door = EgressDoor(socket=-1, path="/run/egress.sock", certificates="OURS")

    result = await shop.sh("true", access=Access.NONE, egress=door)

    assert result.output.endswith(b"OURS")
    assert not list((tmp_path / "containers").glob("*.pem"))


async def test_docker_has_nothing_to_set_up_and_gets_no_group(tmp_path: Path) -> None:
    fake = fake_engine(tmp_path / "engine", Engine.DOCKER)
    with workspace(tmp_path) as (path, descriptor):
        shop = Workshop(backend(fake, tmp_path), path, descriptor)
        await shop.sh("true", limits=Limits(pids=5))

    assert not fake.calls("init")
    assert not [word for call in fake.asked for word in call if "cgroup-parent" in word]


async def test_a_killed_client_ends_the_sandbox(shop: Workshop, fake: FakeEngine) -> None:
    fake.set("command", "exec sleep 600")
    fake.set("state", "exited false 137\n")
    async with shop.backend.open(shop.shell("true", access=Access.NONE)) as sandbox:
        with trio.fail_after(60):
            await sandbox.kill()
            ending = await sandbox.wait()

    assert (ending.exit_code, ending.killed) == (137, True)


async def test_only_containers_of_this_state_directory_are_swept(
    shop: Workshop, fake: FakeEngine, tmp_path: Path
) -> None:
    fake.set("containers", "abc\ndef\n")
    other = fake_engine(tmp_path / "other")

    await shop.backend.sweep()
    await backend(other, tmp_path / "elsewhere").sweep()

    [ours], [theirs] = fake.calls("ps"), other.calls("ps")
    assert ours[-1].startswith("--filter=label=openclawmu=")
    assert ours[-1] != theirs[-1]
    assert fake.calls("rm")[0][-2:] == ["abc", "def"]
    assert not other.calls("rm")


async def test_closing_leaves_no_file(shop: Workshop, tmp_path: Path) -> None:
    await shop.sh("true", access=Access.NONE)

    await shop.backend.aclose()

    assert list((tmp_path / "containers").iterdir()) == []
