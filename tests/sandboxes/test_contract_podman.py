"""Podman keeps what every backend promises: ``make test-podman`` builds it an image."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from appliance.config.sandbox_schema import SandboxConfig
from appliance.sandboxes.cgroup_files import owner_mark, wait_until
from appliance.sandboxes.cgroup_mounts import find_mounts
from appliance.sandboxes.container_engine import ContainerEngine
from appliance.sandboxes.detection import choose_backend, choose_groups
from appliance.sandboxes.groups import Groups
from appliance.sandboxes.podman import Podman
from tests.sandboxes import grouped
from tests.sandboxes.contract import SandboxContract
from tests.sandboxes.workshop import IS_ROOT, UID, Workshop, workspace

IMAGE = os.environ.get("OPENCLAWMU_SANDBOX_IMAGE", "")

pytestmark = pytest.mark.skipif(not IMAGE, reason="needs Podman and an image: make test-podman")


@pytest.fixture
async def groups(tmp_path: Path) -> AsyncIterator[Groups]:
    chosen = await choose_groups(tmp_path)
    async with grouped.tidied(chosen):
        yield chosen


@pytest.fixture
def podman(tmp_path: Path, groups: Groups) -> Podman:
    engine = ContainerEngine.find(is_old_cgroups=bool(find_mounts().hierarchies))
    assert engine is not None
    return Podman(
        engine=engine,
        image=IMAGE,
        uid=UID if IS_ROOT else None,
        groups=groups,
        state_dir=tmp_path,
        directory=tmp_path / "containers",
    )


class TestPodman(SandboxContract):
    @pytest.fixture
    async def shop(self, tmp_path: Path, podman: Podman) -> AsyncIterator[Workshop]:
        with workspace(tmp_path) as (path, descriptor):
            yield Workshop(podman, path, descriptor)
        left = await podman._engine.call(
            "ps", "--all", "--quiet", f"--filter=label=openclawmu={owner_mark(tmp_path)}"
        )
        assert left == b""


async def test_the_isolation_of_a_container_is_proved(podman: Podman) -> None:
    proof = await podman.prove()

    assert proof.problem == ""
    assert len(proof.probes) > 8


async def test_a_configured_podman_is_chosen(tmp_path: Path, groups: Groups) -> None:
    config = SandboxConfig(backend="podman", image=IMAGE)
    backend, proof = await choose_backend(config, groups=groups, state_dir=tmp_path)

    assert backend is not None
    assert (backend.name, proof.holds, proof.limits) == ("podman", True, groups.level)


async def test_an_image_that_is_not_there_is_a_problem_with_a_remedy(
    tmp_path: Path, groups: Groups
) -> None:
    config = SandboxConfig(backend="podman", image="localhost/no-such-image:1")
    backend, proof = await choose_backend(config, groups=groups, state_dir=tmp_path)

    assert backend is None
    assert "podman pull localhost/no-such-image:1" in proof.problem


async def test_a_swept_container_is_gone(tmp_path: Path, podman: Podman) -> None:
    with workspace(tmp_path) as (path, descriptor):
        shop = Workshop(podman, path, descriptor)
        script = "while :; do echo >>beat; sleep 0.02; done"
        async with podman.open(shop.shell(script)) as sandbox:
            assert await wait_until((path / "beat").exists)
            with trio.fail_after(60):
                await podman.sweep()
                await sandbox.wait()
            size = (path / "beat").stat().st_size
            await trio.sleep(0.2)
            assert (path / "beat").stat().st_size == size
