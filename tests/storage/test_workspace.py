"""A directory into which hostile programs write, and we too."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.model.errors import DiskFull, QuotaExceeded
from appliance.storage.paths import PathRefused, TenantRoot
from appliance.storage.workspace import Workspace
from appliance.storage.workspace_handover import hand_over
from tests.books import tenant_root

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
SOMEBODY = 60_901
HIDDEN = frozenset({"agents"})


@pytest.fixture
def root(tmp_path: Path) -> Iterator[TenantRoot]:
    with tenant_root(tmp_path / "tenant") as root:
        yield root


@pytest.fixture
def home(tmp_path: Path, root: TenantRoot) -> Path:
    return tmp_path / "tenant/workspace"


@pytest.fixture
def workspace(root: TenantRoot) -> Iterator[Workspace]:
    with Workspace.open(root, "workspace", hidden=HIDDEN) as workspace:
        yield workspace


def test_it_is_made_where_there_is_none(root: TenantRoot, home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Workspace.find(root, "workspace")

    with Workspace.open(root, "workspace") as workspace, workspace.handle() as fd:
        assert os.path.samestat(os.fstat(fd), home.stat())
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    with pytest.raises(ValueError, match="closed"), workspace.handle():
        pass
    Workspace.find(root, "workspace").close()


@pytest.mark.parametrize("what", ["link", "file"])
def test_nothing_else_is_taken_for_it(root: TenantRoot, home: Path, what: str) -> None:
    home.symlink_to("/") if what == "link" else home.touch()

    with pytest.raises(PathRefused):
        Workspace.open(root, "workspace")


def test_it_stays_the_same_when_another_is_put_in_its_place(
    workspace: Workspace, home: Path
) -> None:
    home.rename(home.with_name("elsewhere"))
    home.symlink_to("/etc")

    workspace.write_atomic("passwd", b"mine")
    assert (home.with_name("elsewhere") / "passwd").read_bytes() == b"mine"


def test_what_is_hidden_is_neither_shown_nor_touched(workspace: Workspace, home: Path) -> None:
    assert (home / "agents").is_dir()
    (home / "agents/SOUL.md").write_text("another's")
    (home / "mine").touch()

    assert workspace.listdir() == ["mine"]
    attempts: list[Callable[[], object]] = [
        lambda: workspace.listdir("agents"),
        lambda: workspace.read_bytes("agents/SOUL.md", limit=99),
        lambda: workspace.stat("agents"),
        lambda: workspace.write_atomic("agents/SOUL.md", b"x"),
        lambda: workspace.mkdir("agents/new"),
        lambda: workspace.rename("agents", "mine2"),
        lambda: workspace.rename("mine", "agents/mine"),
        lambda: workspace.remove_tree("agents"),
        lambda: workspace.open_file("agents/new", os.O_CREAT | os.O_WRONLY),
    ]
    for attempt in attempts:
        with pytest.raises(PathRefused, match="other agents"):
            attempt()
    assert [path.name for path in (home / "agents").iterdir()] == ["SOUL.md"]


def test_a_link_in_the_place_of_what_is_hidden_is_refused(root: TenantRoot, home: Path) -> None:
    home.mkdir()
    (home / "agents").symlink_to("/etc")

    with pytest.raises(PathRefused):
        Workspace.open(root, "workspace", hidden=HIDDEN)


def test_files_are_written_whole_and_only_files_are_replaced(
    workspace: Workspace, home: Path
) -> None:
    workspace.mkdir("a/b")
    workspace.mkdir("a/b")
    workspace.write_atomic("a/b/file", b"one", mode=0o750)
    workspace.write_atomic("a/b/file", b"two", mode=0o750)
    os.mkfifo(home / "pipe")

    assert (home / "a/b/file").read_bytes() == b"two"
    assert stat.S_IMODE((home / "a/b/file").stat().st_mode) == 0o750
    for name in ("pipe", "a"):
        with pytest.raises(PathRefused, match="not a regular file"):
            workspace.write_atomic(name, b"x")
    with pytest.raises(PathRefused, match="not a directory"):
        workspace.mkdir("pipe")


def test_nothing_is_written_where_there_is_no_room(workspace: Workspace, home: Path) -> None:
    workspace.room.told(left=10, refusal=None)
    workspace.write_atomic("a", b"1234567")
    with pytest.raises(QuotaExceeded, match="room for 3 more bytes"):
        workspace.write_atomic("b", b"1234")

    workspace.room.told(left=0, refusal=lambda: DiskFull("there is no space left"))
    with pytest.raises(DiskFull):
        workspace.write_atomic("c", b"")
    with pytest.raises(DiskFull):
        workspace.mkdir("d")
    with pytest.raises(DiskFull):
        workspace.open_file("e", os.O_CREAT | os.O_WRONLY)
    workspace.read_bytes("a", limit=9)
    workspace.room.is_stale = False
    workspace.unlink("a")
    assert workspace.room.is_stale
    assert sorted(path.name for path in home.iterdir()) == ["agents"]


@pytest.mark.skipif(os.geteuid() == 0, reason="no mode keeps root out")
def test_what_is_closed_by_its_mode_is_refused(workspace: Workspace, home: Path) -> None:
    workspace.mkdir("closed")
    workspace.write_atomic("file", b"x", mode=0)
    (home / "closed").chmod(0)

    attempts: list[Callable[[], object]] = [
        lambda: workspace.read_bytes("file", limit=9),
        lambda: workspace.listdir("closed"),
        lambda: workspace.read_bytes("closed/x", limit=9),
        lambda: workspace.write_atomic("closed/x", b""),
        lambda: workspace.unlink("closed/x"),
    ]
    for attempt in attempts:
        with pytest.raises(PathRefused, match="closed by its mode"):
            attempt()


def test_other_failures_stay_what_they_are(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "mkdir", fail)
    with pytest.raises(DiskFull):
        workspace.mkdir("new")


@needs_root
def test_what_we_make_belongs_to_those_who_run_in_it(root: TenantRoot, home: Path) -> None:
    with Workspace.open(root, "workspace", owner=SOMEBODY) as workspace:
        workspace.mkdir("a/b")
        workspace.write_atomic("a/b/file", b"x")
        os.close(workspace.open_file("a/opened", os.O_CREAT | os.O_WRONLY))

    made = [home / name for name in ("a", "a/b", "a/b/file", "a/opened")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(SOMEBODY, SOMEBODY)}


@needs_root
class TestHandover:
    def workspace(self, root: TenantRoot) -> Workspace:
        return Workspace.open(root, "workspace", owner=SOMEBODY, hidden=HIDDEN)

    def give(self, root: TenantRoot) -> Workspace:
        workspace = self.workspace(root)
        for _ in hand_over(workspace):
            pass
        return workspace

    def test_what_an_earlier_release_wrote_is_given_away_once(
        self, root: TenantRoot, home: Path
    ) -> None:
        (home / "deep").mkdir(parents=True)
        (home / "deep/AGENTS.md").touch()
        (home / "link").symlink_to("/etc/passwd")
        assert not self.workspace(root).is_handed_over

        assert self.give(root).is_handed_over
        for path in (home, home / "deep", home / "deep/AGENTS.md", home / "link"):
            assert path.lstat().st_uid == SOMEBODY, path
        assert Path("/etc/passwd").stat().st_uid == 0
        (home / "later").touch()
        self.give(root)
        assert (home / "later").stat().st_uid == 0, "it is looked through only once"

    def test_other_agents_things_stay_theirs(self, root: TenantRoot, home: Path) -> None:
        (home / "agents/pirate").mkdir(parents=True)

        self.give(root)
        assert (home / "agents").stat().st_uid == 0
        assert (home / "agents/pirate").stat().st_uid == 0

    def test_a_file_that_has_another_name_somewhere_is_not_given_away(
        self, root: TenantRoot, home: Path, tmp_path: Path
    ) -> None:
        home.mkdir()
        (tmp_path / "ours").touch()
        (home / "theirs").hardlink_to(tmp_path / "ours")

        self.give(root)
        assert (tmp_path / "ours").stat().st_uid == 0

    def test_what_was_interrupted_begins_again(self, root: TenantRoot, home: Path) -> None:
        home.mkdir()
        for number in range(600):
            (home / str(number)).touch()
        steps = hand_over(self.workspace(root))
        next(steps)
        steps.close()
        assert not self.workspace(root).is_handed_over

        assert self.give(root).is_handed_over
        assert (home / "599").stat().st_uid == SOMEBODY


def test_what_is_ours_already_is_not_looked_through(root: TenantRoot, home: Path) -> None:
    with Workspace.open(root, "workspace") as workspace:
        (home / "file").touch()
        assert workspace.is_handed_over
        assert list(hand_over(workspace)) == []
