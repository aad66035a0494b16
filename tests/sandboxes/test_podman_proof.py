"""What is said of containers that cannot be had, or do not isolate."""

from pathlib import Path

import pytest

from appliance.sandboxes import podman_proof
from appliance.sandboxes.base import Proof
from appliance.sandboxes.groups import NoGroups
from appliance.sandboxes.podman import Podman
from appliance.sandboxes.podman_arguments import Engine
from tests.sandboxes.fake_engine import FakeEngine, fake_engine

GOOD = "".join(f"printf '%s\\t\\n' {name}\n" for name in podman_proof._NAMES)


@pytest.fixture
def fake(tmp_path: Path) -> FakeEngine:
    made = fake_engine(tmp_path / "engine", Engine.DOCKER)  # it is not looked at before the start
    made.set("image", "sha256:0\n")
    return made


async def prove(fake: FakeEngine, folder: Path, image: str = "base") -> Proof:
    podman = Podman(
        engine=fake.engine,
        image=image,
        uid=60_900,
        groups=NoGroups("no groups here"),
        state_dir=folder,
        directory=folder / "containers",
    )
    return await podman.prove()


async def test_it_holds_when_nothing_was_found(fake: FakeEngine, tmp_path: Path) -> None:
    fake.set("command", GOOD)
    proof = await prove(fake, tmp_path)

    assert proof.holds
    assert all(probe.passed for probe in proof.probes)
    assert proof.backend == "podman"
    assert "no groups here" in proof.warnings


async def test_docker_has_limits_of_its_own_and_a_warning(fake: FakeEngine, tmp_path: Path) -> None:
    fake.set("command", GOOD)
    proof = await prove(fake, tmp_path)

    assert proof.limits == "docker"
    assert "Docker" in proof.warnings[-1]


async def test_one_thing_found_is_a_problem(fake: FakeEngine, tmp_path: Path) -> None:
    fake.set("command", GOOD.replace("\\t\\n' network", "\\teth0\\n' network"))
    proof = await prove(fake, tmp_path)

    assert "network (eth0)" in proof.problem


async def test_silence_is_a_problem(fake: FakeEngine, tmp_path: Path) -> None:
    fake.set("command", "exit 0")
    proof = await prove(fake, tmp_path)

    assert "nothing was reported" in proof.problem
    assert not any(probe.passed for probe in proof.probes)


async def test_without_an_image_the_commands_that_make_one_are_named(
    fake: FakeEngine, tmp_path: Path
) -> None:
    proof = await prove(fake, tmp_path, image="")

    assert "mmdebstrap" in proof.problem
    assert "podman pull" in proof.problem
    assert fake.asked == []


async def test_an_image_that_is_missing_is_named(fake: FakeEngine, tmp_path: Path) -> None:
    (fake.folder / "image").unlink()
    proof = await prove(fake, tmp_path, image="registry/base:1")

    assert "docker pull registry/base:1" in proof.problem


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("unable to find catatonit", "apt install catatonit"),
        ("cgroups in hybrid mode not supported", "install runc"),
        ("no subuid ranges found", "--add-subuids"),
        ("what nobody has seen yet", "podman run --rm"),
    ],
)
async def test_a_container_that_does_not_start_comes_with_a_remedy(
    fake: FakeEngine, tmp_path: Path, said: str, remedy: str
) -> None:
    fake.set("create.fails", f"Error: {said}")
    proof = await prove(fake, tmp_path)

    assert said in proof.problem
    assert remedy in proof.problem
