"""Which backend and which control groups are chosen, and what is said if there are none."""

from pathlib import Path

import pytest

from appliance.config.sandbox_schema import SandboxConfig
from appliance.sandboxes.base import Limits
from appliance.sandboxes.detection import choose_backend, choose_groups
from appliance.sandboxes.groups import NoGroups
from appliance.sandboxes.host_layout import Programs
from appliance.sandboxes.podman_arguments import Engine
from tests.fakes.cgroups import FakeCgroupFs
from tests.sandboxes.fake_engine import fake_engine
from tests.sandboxes.test_podman_proof import GOOD
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP


def proc(folder: Path, mountinfo: str, cgroup: str = "0::/\n") -> Path:
    (folder / "self").mkdir(parents=True)
    (folder / "self/mountinfo").write_text(mountinfo)
    (folder / "self/cgroup").write_text(cgroup)
    return folder


def mount(point: Path, kind: str, options: str) -> str:
    return f"30 23 0:26 / {point} rw - {kind} {kind} {options}\n"


async def test_a_delegated_subtree_comes_first(tmp_path: Path) -> None:
    fs = FakeCgroupFs()
    fs.mount_v2(tmp_path / "unified", "memory", "pids", "cpu")
    fs.mount_v1(tmp_path / "pids", "pids")
    fs.mount_v1(tmp_path / "memory", "memory")
    lines = mount(tmp_path / "unified", "cgroup2", "rw")
    lines += mount(tmp_path / "pids", "cgroup", "rw,pids")
    lines += mount(tmp_path / "memory", "cgroup", "rw,memory")

    groups = await choose_groups(tmp_path, proc=proc(tmp_path / "proc", lines), fs=fs)

    assert (groups.level, list(groups.warnings)) == ("cgroup v2", [])


async def test_the_old_hierarchies_come_next(tmp_path: Path) -> None:
    fs = FakeCgroupFs()
    fs.mount_v2(tmp_path / "unified", "hugetlb")
    fs.mount_v1(tmp_path / "pids", "pids")
    fs.mount_v1(tmp_path / "memory", "memory")
    lines = mount(tmp_path / "unified", "cgroup2", "rw")
    lines += mount(tmp_path / "pids", "cgroup", "rw,pids")
    lines += mount(tmp_path / "memory", "cgroup", "rw,memory")

    groups = await choose_groups(tmp_path, proc=proc(tmp_path / "proc", lines), fs=fs)

    assert groups.level == "cgroup v1"
    group = await groups.open("acme", Limits(), None)
    assert group.runtime_parent.startswith("/openclawmu-")
    await group.close()


async def test_without_either_the_reasons_and_a_remedy_are_told(tmp_path: Path) -> None:
    lines = mount(tmp_path / "unified", "cgroup2", "rw")
    fs = FakeCgroupFs()
    fs.mount_v2(tmp_path / "unified/user.slice/session", "memory", "pids")
    where = proc(tmp_path / "proc", lines, "0::/user.slice/session\n")

    groups = await choose_groups(tmp_path, proc=where, fs=fs)

    assert groups.level == "rlimits"
    assert "Delegate=yes" in groups.warnings[0]
    assert "cgroup v1" in groups.warnings[0]


@pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)
async def test_bubblewrap_is_chosen_where_its_isolation_holds(tmp_path: Path) -> None:
    engine = fake_engine(tmp_path / "engine")

    backend, proof = await choose_backend(
        SandboxConfig(), groups=NoGroups(), state_dir=tmp_path, path=str(engine.folder)
    )

    assert backend is not None
    assert (backend.name, proof.holds) == ("bubblewrap", True)
    assert engine.asked == []
    await backend.aclose()


@pytest.fixture
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    find = Programs.find

    def missing() -> Programs:
        monkeypatch.setattr("appliance.sandboxes.host_layout.SYSTEM_PATH", "/nowhere")
        return find()

    monkeypatch.setattr(Programs, "find", missing)


@pytest.mark.usefixtures("no_bubblewrap")
async def test_podman_stands_in_and_a_warning_says_why(tmp_path: Path) -> None:
    engine = fake_engine(tmp_path / "engine", Engine.DOCKER)
    engine.set("image", "sha256:0\n")
    engine.set("command", GOOD)

    backend, proof = await choose_backend(
        SandboxConfig(image="base"),
        groups=NoGroups(),
        state_dir=tmp_path,
        path=str(engine.folder),
    )

    assert backend is not None
    assert (backend.name, proof.holds) == ("podman", True)
    assert "apt install bubblewrap" in proof.warnings[0]


@pytest.mark.usefixtures("no_bubblewrap")
async def test_without_any_the_first_remedy_comes_first(tmp_path: Path) -> None:
    backend, proof = await choose_backend(
        SandboxConfig(), groups=NoGroups(), state_dir=tmp_path, path=str(tmp_path)
    )

    assert backend is None
    assert proof.problem.index("apt install bubblewrap") < proof.problem.index("podman")


@pytest.mark.usefixtures("no_bubblewrap")
async def test_what_is_configured_is_not_replaced_by_something_else(tmp_path: Path) -> None:
    engine = fake_engine(tmp_path / "engine")

    backend, proof = await choose_backend(
        SandboxConfig(backend="bubblewrap"),
        groups=NoGroups(),
        state_dir=tmp_path,
        path=str(engine.folder),
    )

    assert backend is None
    assert proof.backend == "bubblewrap"
    assert engine.asked == []


async def test_podman_without_an_image_is_refused_with_a_remedy(tmp_path: Path) -> None:
    engine = fake_engine(tmp_path / "engine")

    backend, proof = await choose_backend(
        SandboxConfig(backend="podman"),
        groups=NoGroups(),
        state_dir=tmp_path,
        path=str(engine.folder),
    )

    assert backend is None
    assert "sandbox.image" in proof.problem


@pytest.mark.usefixtures("no_bubblewrap")
async def test_what_was_mended_is_found_the_next_time(tmp_path: Path) -> None:
    config = SandboxConfig(image="base")

    async def choose() -> str:
        _, proof = await choose_backend(
            config, groups=NoGroups(), state_dir=tmp_path, path=str(tmp_path / "engine")
        )
        return proof.problem

    assert "podman" in await choose()
    engine = fake_engine(tmp_path / "engine", Engine.DOCKER)
    engine.set("image", "sha256:0\n")
    engine.set("command", GOOD)
    assert await choose() == ""
