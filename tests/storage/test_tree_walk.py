"""Walks through trees that were made to be hard to walk through."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from appliance.storage import tree_walk
from appliance.storage.tree_walk import TreeTooLarge, walk


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def names(path: Path, **how: frozenset[str]) -> list[str]:
    """``top/name`` of all that is visited, sorted."""
    found: list[str] = []
    with opened(path) as top:
        for _ in walk(
            top, lambda _fd, name, first, _status: found.append(f"{first}:{name}"), **how
        ):
            pass
    return sorted(found)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted


def nest(top: Path, depth: int, name: str, *beside: str) -> None:
    """Directories deeper than any path may be long, each with others beside it."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        for each in (name, *beside):
            os.mkdir(each, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_everything_is_visited_once_with_the_name_it_lies_below(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "top").touch()

    assert names(tmp_path) == ["a:a", "a:b", "a:file", "top:top"]
    assert names(tmp_path, skipped=frozenset({"a"})) == ["top:top"]


def test_no_link_is_followed_and_nothing_but_directories_opened(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (outside / "secret").mkdir(parents=True)
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "dangling").symlink_to("/nowhere")
    os.mkfifo(inside / "pipe")  # opening it would wait for ever

    assert names(inside) == ["dangling:dangling", "link:link", "loop:loop", "pipe:pipe"]


def test_names_may_be_anything(tmp_path: Path) -> None:
    long, odd = "x" * 255, os.fsdecode(b"\xff\xfe \n")
    for name in (long, odd):
        (tmp_path / name).mkdir()
        (tmp_path / name / "below").touch()

    assert names(tmp_path) == sorted(
        [f"{odd}:{odd}", f"{odd}:below", f"{long}:{long}", f"{long}:below"]
    )


def test_directories_deeper_than_a_path_may_be_long_are_walked(tmp_path: Path) -> None:
    nest(tmp_path, 100, "d" * 200)

    before = descriptors()
    assert "d" * 200 + ":bottom" in names(tmp_path)
    assert descriptors() == before


def test_what_is_too_deep_or_too_wide_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever the order of names, some wait at most levels while one goes on down.
    nest(tmp_path, 100, "d" * 200, *"abcdefgh")
    before = descriptors()
    monkeypatch.setattr(tree_walk, "MOST_BASES", 3)
    with pytest.raises(TreeTooLarge, match="deeply"):
        names(tmp_path)
    monkeypatch.setattr(tree_walk, "MOST_WAITING", 0)
    with pytest.raises(TreeTooLarge, match="directories in one place"):
        names(tmp_path)
    assert descriptors() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="no mode keeps root out")
def test_nothing_is_hidden_by_a_mode(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "hidden").touch()
    closed.chmod(0)

    assert names(tmp_path) == ["closed:closed", "closed:hidden"]
    assert stat.S_IMODE(closed.stat().st_mode) == 0


def test_a_walk_that_is_not_wanted_any_more_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_walk, "EVERY", 2)
    (tmp_path / "a").mkdir()
    for number in range(10):
        (tmp_path / f"a/{number}").touch()

    before = descriptors()
    with opened(tmp_path) as top, closing(walk(top, lambda *_: None)) as steps:
        assert next(steps) == 2
        assert next(steps) == 4
    assert descriptors() == before


def test_what_vanishes_or_becomes_a_link_meanwhile_is_left_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "secret").mkdir(parents=True)
    inside = tmp_path / "inside"
    for name in ("gone", "swapped"):
        (inside / name).mkdir(parents=True)
    seen: list[str] = []

    def visit(_fd: int, name: str, _top: str, _status: os.stat_result) -> None:
        seen.append(name)
        if len(seen) == 2:  # both were seen, none was looked into
            (inside / "gone").rmdir()
            (inside / "swapped").rmdir()
            (inside / "swapped").symlink_to(outside)

    with opened(inside) as top:
        for _ in walk(top, visit):
            pass
    assert sorted(seen) == ["gone", "swapped"]


def test_a_disk_that_fails_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tree_walk, "_open", fail)
    with pytest.raises(OSError, match="Input/output"):
        names(tmp_path)
