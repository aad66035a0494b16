"""What lies in a workspace: pages, entries, files on their way in."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from appliance.model.errors import PreconditionFailed, TooLarge, Unavailable
from appliance.storage import workspace_entries
from appliance.storage.paths import PathRefused
from appliance.storage.workspace import Workspace
from appliance.storage.workspace_entries import (
    Entry,
    EntryKind,
    NewFile,
    describe,
    list_page,
    remove,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def workspace(place: Path) -> Iterator[Workspace]:
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with Workspace(fd, hidden=frozenset({"agents"})) as opened:
        (place / "agents").mkdir()
        yield opened


def names(
    workspace: Workspace, relative: str = "", *, limit: int = 100, after: str = ""
) -> list[str]:
    page = list_page(workspace, relative, limit=limit, after=after)
    return [entry.name for entry in page.entries]


def put(workspace: Workspace, relative: str, data: bytes) -> Entry:
    with NewFile(workspace, relative) as new:
        new.write(data)
        return new.commit()


# -- pages -------------------------------------------------------------------


def test_a_page_tells_what_each_entry_is(place: Path, workspace: Workspace) -> None:
    (place / "file").write_bytes(b"12345")
    (place / "folder").mkdir()
    (place / "link").symlink_to("/etc/passwd")
    os.mkfifo(place / "pipe")

    page = list_page(workspace, "", limit=10)

    assert [(entry.name, entry.kind, entry.size) for entry in page.entries] == [
        ("file", EntryKind.FILE, 5),
        ("folder", EntryKind.DIRECTORY, 0),
        ("link", EntryKind.LINK, 0),
        ("pipe", EntryKind.OTHER, 0),
    ]
    assert not page.more


def test_pages_follow_each_other_whatever_comes_and_goes(place: Path, workspace: Workspace) -> None:
    for number in range(10):
        (place / f"f{number}").touch()
    first = list_page(workspace, "", limit=4)
    (place / "f0").unlink()
    (place / "a").touch()
    (place / "f45").touch()

    second = list_page(workspace, "", limit=4, after=first.entries[-1].name)
    third = list_page(workspace, "", limit=4, after=second.entries[-1].name)

    assert [entry.name for entry in first.entries] == ["f0", "f1", "f2", "f3"]
    assert [entry.name for entry in second.entries] == ["f4", "f45", "f5", "f6"]
    assert [entry.name for entry in third.entries] == ["f7", "f8", "f9"]
    assert (first.more, second.more, third.more) == (True, True, False)


def test_entries_can_be_skipped(place: Path, workspace: Workspace) -> None:
    for number in range(6):
        (place / f"f{number}").touch()

    page = list_page(workspace, "", limit=2, skip=3)

    assert [entry.name for entry in page.entries] == ["f3", "f4"]
    assert page.more


def test_a_page_of_plain_entries_leaves_out_what_json_cannot_name(
    place: Path, workspace: Workspace
) -> None:
    (place / "file").touch()
    (place / "folder").mkdir()
    (place / "link").symlink_to("file")
    os.mkfifo(place / "pipe")
    (place / os.fsdecode(b"\xff")).touch()

    page = list_page(workspace, "", limit=1, plain=True)

    assert [entry.name for entry in page.entries] == ["file"]
    assert (page.total, page.more) == (2, True)
    assert list_page(workspace, "", limit=1, after="file").total == 5


def test_names_of_any_bytes_and_length_are_listed(place: Path, workspace: Workspace) -> None:
    odd = [b"\xff\xfe", b"a\nb", b"x" * 255, "ü".encode()]
    for name in odd:
        os.close(os.open(os.path.join(os.fsencode(place), name), os.O_CREAT | os.O_WRONLY))  # noqa: PTH118 - bytes

    assert {os.fsencode(name) for name in names(workspace)} == set(odd)


def test_other_agents_are_hidden_at_the_top_only(place: Path, workspace: Workspace) -> None:
    (place / "src" / "agents").mkdir(parents=True)

    assert names(workspace) == ["src"]
    assert names(workspace, "src") == ["agents"]
    with pytest.raises(PathRefused):
        list_page(workspace, "agents", limit=1)


def test_a_directory_without_end_is_refused(
    place: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_entries, "MOST_NAMES", 5)
    for number in range(7):
        (place / str(number)).touch()

    with pytest.raises(TooLarge, match="look at it with find"):
        list_page(workspace, "", limit=1)


@pytest.mark.parametrize("name", ["file", "link", "pipe", "outside"])
def test_only_directories_are_listed(place: Path, workspace: Workspace, name: str) -> None:
    (place / "file").touch()
    (place / "link").symlink_to("folder")
    (place / "outside").symlink_to("/etc")
    (place / "folder").mkdir()
    os.mkfifo(place / "pipe")

    with pytest.raises(PathRefused):
        list_page(workspace, name, limit=1)


# -- one entry ---------------------------------------------------------------


def test_a_tag_changes_with_the_file(place: Path, workspace: Workspace) -> None:
    before = put(workspace, "a", b"one")
    assert describe(workspace, "a") == before
    found = (place / "a").stat()

    after = put(workspace, "a", b"two")
    os.utime(place / "a", ns=(found.st_atime_ns, found.st_mtime_ns))

    assert after.size == before.size
    assert len({before.etag, after.etag, describe(workspace, "a").etag}) == 3


def test_a_link_is_not_described(place: Path, workspace: Workspace) -> None:
    (place / "link").symlink_to("/etc/passwd")

    with pytest.raises(PathRefused, match="is a link"):
        describe(workspace, "link")
    with pytest.raises(FileNotFoundError):
        describe(workspace, "ghost")


# -- removing ----------------------------------------------------------------


def remove_it(workspace: Workspace, relative: str, *, recursive: bool = False, **more: str) -> None:
    remove(workspace, relative, recursive=recursive, etag=more.get("etag"), seconds=10)


def test_anything_can_be_removed_without_touching_what_it_leads_to(
    place: Path, workspace: Workspace, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (place / "file").touch()
    (place / "link").symlink_to(outside)
    os.mkfifo(place / "pipe")
    (place / "full" / "below").mkdir(parents=True)
    (place / "full" / "link").symlink_to(outside)

    for name in ("file", "link", "pipe"):
        remove_it(workspace, name)
    remove_it(workspace, "full", recursive=True)

    assert names(workspace) == []
    assert (outside / "kept").exists()


def test_a_full_directory_goes_only_on_request(place: Path, workspace: Workspace) -> None:
    (place / "full" / "below").mkdir(parents=True)

    with pytest.raises(FileExistsError):
        remove_it(workspace, "full")
    remove_it(workspace, "full/below")
    remove_it(workspace, "full")

    assert names(workspace) == []


def test_what_changed_since_is_not_removed(place: Path, workspace: Workspace) -> None:
    entry = put(workspace, "a", b"one")
    changed = put(workspace, "a", b"two")

    with pytest.raises(PreconditionFailed):
        remove_it(workspace, "a", etag=entry.etag)
    remove_it(workspace, "a", etag=changed.etag)

    assert not (place / "a").exists()


def test_other_agents_are_not_removed(place: Path, workspace: Workspace) -> None:
    (place / "agents" / "blue").mkdir()

    for name in ("agents", "agents/blue"):
        with pytest.raises(PathRefused):
            remove_it(workspace, name, recursive=True)
    assert (place / "agents" / "blue").exists()


def test_whoever_keeps_filling_a_directory_does_not_keep_us(
    place: Path, workspace: Workspace
) -> None:
    (place / "full").mkdir()
    stop = threading.Event()

    def fill() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                (place / "full" / str(number)).touch()
            except OSError:
                return

    filler = threading.Thread(target=fill)
    filler.start()
    began = monotonic()
    try:
        remove(workspace, "full", recursive=True, etag=None, seconds=0.3)
    except Unavailable:
        pass  # or it was quicker than the other
    finally:
        stop.set()
        filler.join()
    assert monotonic() - began < 30


# -- files on their way in ---------------------------------------------------


def test_nobody_sees_a_file_before_it_is_whole(place: Path, workspace: Workspace) -> None:
    put(workspace, "a", b"old")
    (place / "a").chmod(0o755)
    with NewFile(workspace, "a") as new:
        new.write(b"new ")
        new.write(b"content")
        assert (place / "a").read_bytes() == b"old"
        entry = new.commit()

    assert (place / "a").read_bytes() == b"new content"
    assert stat.S_IMODE((place / "a").stat().st_mode) == 0o755
    assert entry == describe(workspace, "a")
    assert names(workspace) == ["a"]


@pytest.mark.parametrize("nameless", [True, False])
def test_what_is_given_up_leaves_nothing(
    place: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_RDWR)
    with NewFile(workspace, "a") as new:
        new.write(b"x")
    with pytest.raises(PreconditionFailed), NewFile(workspace, "a") as new:
        new.commit(_refuse)
    assert names(workspace) == []

    put(workspace, "a", b"x")

    assert (place / "a").read_bytes() == b"x"
    assert names(workspace) == ["a"]


def _refuse(_: Entry | None) -> None:
    raise PreconditionFailed("no")


@pytest.mark.parametrize("name", ["link", "pipe", "folder", "agents", "file/below", "away/x"])
def test_only_a_file_is_replaced(
    place: Path, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    (place / "file").touch()
    (place / "link").symlink_to(tmp_path / "victim")
    (place / "away").symlink_to(tmp_path)
    (place / "folder").mkdir()
    os.mkfifo(place / "pipe")

    with pytest.raises(PathRefused):
        put(workspace, name, b"x")

    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_new_file_belongs_to_whoever_runs_in_there(place: Path) -> None:
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with Workspace(fd, owner=60_900) as workspace:
        put(workspace, "a", b"x")

    assert (place / "a").stat().st_uid == 60_900
