"""One suite for both ways of opening: ``openat2`` and the walk."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import DiskFull, TenantUnknown, TooLarge
from appliance.storage import paths
from appliance.storage.beneath import (
    OpenBeneath,
    choose_opener,
    open_by_walking,
    open_with_openat2,
)
from appliance.storage.paths import ConfinedDirectory, PathRefused, TenantRoot, split_path

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="making a device needs root")


@pytest.fixture(params=[open_with_openat2, open_by_walking], ids=["openat2", "walk"])
def opener(request: pytest.FixtureRequest) -> OpenBeneath:
    if request.param is open_with_openat2 and choose_opener() is not open_with_openat2:
        pytest.skip("this kernel or container has no openat2")
    return request.param  # type: ignore[no-any-return] # pytest does not type parameters


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What nobody may reach from the tenant's directory."""
    (tmp_path / "secret").write_bytes(b"precious")
    return tmp_path


@pytest.fixture
def inside(outside: Path) -> Path:
    path = outside / "tenants" / "acme"
    (path / "workspace").mkdir(parents=True)
    return path


@pytest.fixture
def root(inside: Path, outside: Path, opener: OpenBeneath) -> Iterator[TenantRoot]:
    state = ConfinedDirectory(os.open(outside, os.O_PATH), opener=opener)
    with state, TenantRoot.open(state, "acme") as root:
        yield root


def read(root: ConfinedDirectory, relative: str) -> bytes:
    return root.read_bytes(relative, limit=1_000_000)


# What may be done with a path. Each of these must refuse a path that leads astray.
def _open_and_close(root: ConfinedDirectory, relative: str) -> None:
    os.close(root.open_file(relative, os.O_RDWR | os.O_CREAT))


VERBS: dict[str, Callable[[ConfinedDirectory, str], object]] = {
    "open_file": _open_and_close,
    "read_bytes": read,
    "write_atomic": lambda root, relative: root.write_atomic(relative, b"x"),
    "mkdir": lambda root, relative: root.mkdir(relative),
    "stat": lambda root, relative: root.stat(relative),
    "exists": lambda root, relative: root.exists(relative),
    "unlink": lambda root, relative: root.unlink(relative),
    "rename from": lambda root, relative: root.rename(relative, "new"),
    "rename to": lambda root, relative: root.rename("workspace", relative),
    "remove_tree": lambda root, relative: root.remove_tree(relative),
    "sqlite_path": lambda root, relative: root.sqlite_path(relative),
}


@pytest.fixture(params=list(VERBS.values()), ids=list(VERBS))
def verb(request: pytest.FixtureRequest) -> Callable[[ConfinedDirectory, str], object]:
    return request.param  # type: ignore[no-any-return] # pytest does not type parameters


@pytest.mark.parametrize(
    "relative",
    ["", "/", "/etc/passwd", "..", "../secret", "a/../../secret", "workspace/..", ".", "./a",
     "a//b", "a/", "a\0b", "\ud800", "n" * 256, "é" * 128, "a/" * 3000 + "a"],
)  # fmt: skip
def test_a_path_that_does_not_plainly_point_down_is_refused(
    root: TenantRoot, verb: Callable[[ConfinedDirectory, str], object], relative: str
) -> None:
    with pytest.raises(PathRefused):
        verb(root, relative)


def test_a_refusal_is_fit_to_be_shown(root: TenantRoot) -> None:
    with pytest.raises(PathRefused) as caught:
        read(root, "../\x1b[31m\n" + "x" * 1000)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 250


@pytest.mark.parametrize("name", ["n" * 255, "ключ", "with space", "-rf", "a\nb", "\udcff", "~"])
def test_any_name_that_linux_allows_may_be_used(root: TenantRoot, name: str) -> None:
    root.write_atomic(f"workspace/{name}", b"x")
    assert read(root, f"workspace/{name}") == b"x"
    assert root.listdir("workspace") == [name]


@pytest.mark.parametrize("target", ["../../secret", "nowhere", "workspace", "/etc/passwd", "loop"])
def test_a_link_in_place_of_a_file_is_refused(
    root: TenantRoot, inside: Path, outside: Path, target: str
) -> None:
    (inside / "loop").symlink_to(target)
    for name, verb in VERBS.items():
        # These touch the link itself and nothing behind it.
        if name in {"unlink", "rename from", "rename to", "remove_tree"}:
            continue
        with pytest.raises(PathRefused):
            verb(root, "loop")
    assert (outside / "secret").read_bytes() == b"precious"
    assert (inside / "loop").is_symlink()


@pytest.mark.parametrize("target", ["../..", "/etc", "nowhere", "workspace", "dir", "/proc/self"])
def test_a_link_on_the_way_is_refused(
    root: TenantRoot,
    inside: Path,
    outside: Path,
    verb: Callable[[ConfinedDirectory, str], object],
    target: str,
) -> None:
    (inside / "dir").symlink_to(target)
    (inside / "workspace" / "passwd").touch()
    for name in ("secret", "passwd", "new/deeper"):
        with pytest.raises(PathRefused):
            verb(root, f"dir/{name}")
    assert (outside / "secret").read_bytes() == b"precious"
    assert sorted(found.name for found in inside.iterdir()) == ["dir", "workspace"]


def test_a_magic_link_of_proc_is_refused(opener: OpenBeneath) -> None:
    with ConfinedDirectory(os.open("/proc", os.O_PATH), opener=opener) as proc:
        for path in ("self/root/etc/passwd", "self/cwd/x", f"{os.getpid()}/root/etc/passwd"):
            with pytest.raises(PathRefused):
                read(proc, path)


def test_removing_a_link_removes_the_link(root: TenantRoot, inside: Path, outside: Path) -> None:
    verbs: list[Callable[[str], None]] = [root.unlink, root.remove_tree]
    for verb in verbs:
        (inside / "link").symlink_to("../../secret")
        verb("link")
        assert not (inside / "link").is_symlink()
    (inside / "link").symlink_to("../../secret")
    (inside / "file").write_bytes(b"mine")
    root.rename("file", "link")
    assert read(root, "link") == b"mine"
    assert (outside / "secret").read_bytes() == b"precious"


def test_what_is_no_regular_file_is_refused_without_waiting(
    root: TenantRoot, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(inside / "fifo")
    monkeypatch.chdir(inside)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name in ("fifo", "socket", "workspace"):
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
                with pytest.raises(PathRefused):
                    root.open_file(name, flags)
            with pytest.raises(PathRefused):
                root.write_atomic(name, b"x")
            with pytest.raises(PathRefused):
                root.sqlite_path(name)


@ROOT_ONLY
def test_a_device_is_refused(root: TenantRoot, inside: Path) -> None:
    os.mknod(inside / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    with pytest.raises(PathRefused):
        read(root, "null")
    with pytest.raises(PathRefused):
        root.write_atomic("null", b"x")


def test_a_file_on_the_way_is_refused(root: TenantRoot) -> None:
    root.write_atomic("file", b"x")
    for name, verb in VERBS.items():
        with pytest.raises(PathRefused):
            verb(root, "file/below")
        assert name


def test_what_is_not_there_is_not_found(root: TenantRoot) -> None:
    assert not root.exists("nothing")
    for name in ("open_file", "read_bytes", "stat", "unlink", "rename from", "sqlite_path"):
        with pytest.raises(FileNotFoundError):
            VERBS[name](root, "nowhere/nothing")
    for name in ("read_bytes", "stat", "unlink", "rename from", "remove_tree"):
        with pytest.raises(FileNotFoundError):
            VERBS[name](root, "nothing")
    with pytest.raises(FileNotFoundError):
        root.write_atomic("nowhere/file", b"x")


def test_a_directory_swapped_for_a_link_while_we_look_leads_nowhere(
    root: TenantRoot, inside: Path, outside: Path
) -> None:
    """A sandbox swaps as fast as it can; no look-up may see the outside."""
    (outside / "target").mkdir()
    (outside / "target" / "file").write_bytes(b"precious")
    (inside / "workspace" / "dir").mkdir()
    (inside / "workspace" / "dir" / "file").write_bytes(b"mine")
    (inside / "workspace" / "link").symlink_to("../../../target")
    swap = (
        "import ctypes, sys; libc = ctypes.CDLL(None); sys.stdout.write('x'); sys.stdout.flush()\n"
        "while True: libc.renameat2(-100, b'dir', -100, b'link', 2)"  # RENAME_EXCHANGE
    )
    with subprocess.Popen(
        [sys.executable, "-c", swap], cwd=inside / "workspace", stdout=subprocess.PIPE
    ) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.read(1)
        seen = set()
        for _ in range(3000):
            try:
                seen.add(read(root, "workspace/dir/file"))
                root.write_atomic("workspace/dir/own", b"x")
            except PathRefused:
                seen.add(b"refused")
        swapper.kill()
    assert seen <= {b"mine", b"refused"}
    assert sorted(found.name for found in (outside / "target").iterdir()) == ["file"]


def test_another_directory_in_place_of_the_tenant_s_does_not_redirect_an_open_root(
    root: TenantRoot, inside: Path
) -> None:
    root.write_atomic("file", b"mine")
    inside.rename(inside.with_name("moved"))
    (inside / "workspace").mkdir(parents=True)
    (inside / "file").write_bytes(b"another's")
    assert read(root, "file") == b"mine"
    root.write_atomic("file", b"still mine")
    assert (inside / "file").read_bytes() == b"another's"
    assert (inside.with_name("moved") / "file").read_bytes() == b"still mine"
    assert root.sqlite_path("db").startswith(f"{inside.with_name('moved')}/")


def test_a_link_in_place_of_the_tenant_s_directory_is_refused(
    outside: Path, inside: Path, opener: OpenBeneath
) -> None:
    (inside.parent / "evil").symlink_to("acme")
    (inside.parent / "file").touch()
    with ConfinedDirectory(os.open(outside, os.O_PATH), opener=opener) as state:
        with pytest.raises(PathRefused):
            TenantRoot.open(state, "evil")
        with pytest.raises(PathRefused):
            TenantRoot.open(state, "file")
        for unknown in ("nobody", "..", "acme/workspace", "ACME", "", "acme\n", "a" * 33):
            with pytest.raises(TenantUnknown):
                TenantRoot.open(state, unknown)


def test_one_tenant_s_root_does_not_reach_another_s_files(root: TenantRoot, inside: Path) -> None:
    (inside.parent / "other").mkdir()
    (inside.parent / "other" / "file").write_bytes(b"other's")
    (inside / "link").symlink_to("../other")
    for path in ("../other/file", "link/file", "workspace/../../other/file"):
        with pytest.raises(PathRefused):
            read(root, path)


def test_a_file_is_opened_for_what_was_asked(root: TenantRoot, inside: Path) -> None:
    fd = root.open_file("new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(fd, b"first")
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert stat.S_IMODE((inside / "new").stat().st_mode) & ~0o640 == 0
    with pytest.raises(FileExistsError):
        root.open_file("new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    fd = root.open_file("new", os.O_WRONLY | os.O_APPEND)
    os.write(fd, b" second")
    os.close(fd)
    assert read(root, "new") == b"first second"
    os.close(root.open_file("new", os.O_WRONLY | os.O_TRUNC))
    assert read(root, "new") == b""


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_not(root: TenantRoot) -> None:
    root.write_atomic("file", b"x" * 10_000)
    assert len(root.read_bytes("file", limit=10_000)) == 10_000
    with pytest.raises(TooLarge) as caught:
        root.read_bytes("file", limit=9_999)
    assert caught.value.facts == {"limit": 9_999}
    root.write_atomic("empty", b"")
    assert root.read_bytes("empty", limit=0) == b""


def test_a_file_that_grows_while_it_is_read_does_not_pass_the_limit(
    root: TenantRoot, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inside / "file").write_bytes(b"x" * 10)
    real = os.read

    def growing(fd: int, count: int) -> bytes:
        with (inside / "file").open("ab") as file:
            file.write(b"y" * 10_000)
        return real(fd, count)

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(TooLarge):
        root.read_bytes("file", limit=100)


def test_directories_are_made_with_those_above_them_for_us_alone(
    root: TenantRoot, inside: Path
) -> None:
    root.mkdir("a/b/c")
    root.mkdir("a/b/c")
    assert stat.S_IMODE((inside / "a" / "b").stat().st_mode) == 0o700
    assert root.exists("a/b/c")
    assert root.listdir() == ["a", "workspace"]


def test_a_listing_has_an_end(root: TenantRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MOST_ENTRIES", 2)
    for name in ("a", "b", "c"):
        root.write_atomic(f"workspace/{name}", b"")
    with pytest.raises(TooLarge):
        root.listdir("workspace")


def test_only_files_are_unlinked(root: TenantRoot) -> None:
    root.write_atomic("file", b"x")
    root.unlink("file")
    assert not root.exists("file")
    with pytest.raises(PathRefused):
        root.unlink("workspace")


def test_a_rename_replaces_a_file_and_not_a_directory(root: TenantRoot) -> None:
    root.write_atomic("a", b"1")
    root.write_atomic("workspace/b", b"2")
    root.rename("a", "workspace/b")
    assert read(root, "workspace/b") == b"1"
    root.mkdir("full/below")
    for old, new in (("workspace/b", "full"), ("full", "workspace/b"), ("full", "full/below/x")):
        with pytest.raises(PathRefused):
            root.rename(old, new)
    with pytest.raises(FileExistsError):
        root.rename("workspace", "full")


def test_leftovers_of_a_crash_go_with_the_next_write(root: TenantRoot, inside: Path) -> None:
    (inside / ".openclaw-00000000-1.tmp").touch()
    root.write_atomic("file", b"x")
    assert root.listdir() == ["file", "workspace"]


def test_a_full_disk_is_said_where_it_is_met(
    inside: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with (
        ConfinedDirectory(os.open(inside, os.O_PATH), opener=full) as root,
        pytest.raises(DiskFull),
    ):
        root.open_file("new", os.O_CREAT | os.O_WRONLY)
    with ConfinedDirectory(os.open(inside, os.O_PATH)) as root:
        assert root.free_bytes() > 0
        monkeypatch.setattr(os, "mkdir", lambda *_, **__: full())
        with pytest.raises(DiskFull):
            root.mkdir("new")


def test_a_closed_root_opens_nothing(root: TenantRoot) -> None:
    root.close()
    root.close()
    with pytest.raises(ValueError, match="closed"):
        read(root, "workspace")


def test_a_root_stays_open_for_whoever_is_using_it(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number could otherwise stand for another tenant's directory by then."""
    entered, go_on = threading.Event(), threading.Event()

    def slow(fd: int, relative: str, flags: int, mode: int) -> int:
        entered.set()
        go_on.wait(60)
        return open_by_walking(fd, relative, flags, mode)

    (inside / "file").write_bytes(b"mine")
    fd = os.open(inside, os.O_PATH)
    root = ConfinedDirectory(fd, opener=slow)
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(read(root, "file")))
    thread.start()
    assert entered.wait(60)
    root.close()
    os.fstat(fd)  # still open
    go_on.set()
    thread.join()
    assert found == [b"mine"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_no_descriptor_is_left_open(root: TenantRoot, inside: Path) -> None:
    (inside / "link").symlink_to("..")
    os.mkfifo(inside / "fifo")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, names nothing
    for relative in ("link", "link/x", "fifo", "fifo/x", "workspace", "../x", "a/b/c", "new"):
        for verb in VERBS.values():
            try:
                verb(root, relative)
            except (PathRefused, OSError):
                continue
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_sqlite_opens_what_lies_below_a_root_with_its_companions(
    root: TenantRoot, inside: Path
) -> None:
    root.mkdir("ledger")
    path = root.sqlite_path("ledger/ledger.sqlite")
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOFOLLOW
    with closing(apsw.Connection(path, flags=flags)) as first:
        assert first.execute("PRAGMA journal_mode = WAL").fetchall() == [("wal",)]
        first.execute("CREATE TABLE t(x); INSERT INTO t VALUES (1)").fetchall()
        assert root.listdir("ledger") == [
            "ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal",
        ]  # fmt: skip
        # With its companions there, a second connection sees what the first wrote.
        with closing(apsw.Connection(path, flags=flags)) as second:
            assert second.execute("SELECT x FROM t").fetchall() == [(1,)]
        assert root.sqlite_path("ledger/ledger.sqlite") == path
    assert root.listdir("ledger") == ["ledger.sqlite"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_sqlite_is_not_sent_to_a_link_or_a_fifo(
    root: TenantRoot, inside: Path, outside: Path, suffix: str
) -> None:
    (inside / f"db{suffix}").symlink_to("../../secret")
    with pytest.raises(PathRefused):
        root.sqlite_path("db")
    (inside / f"db{suffix}").unlink()
    os.mkfifo(inside / f"db{suffix}")
    with pytest.raises(PathRefused):
        root.sqlite_path("db")


def test_sqlite_refuses_a_link_that_comes_in_between(root: TenantRoot, inside: Path) -> None:
    path = root.sqlite_path("db")
    (inside / "other").touch()
    (inside / "db").symlink_to("other")
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(path, flags=flags)


def test_sqlite_is_not_sent_into_a_directory_that_was_removed(
    root: TenantRoot, inside: Path
) -> None:
    (inside / "workspace").rmdir()
    inside.rmdir()
    with pytest.raises(PathRefused, match="removed"):
        root.sqlite_path("db")


def test_a_path_too_long_for_sqlite_is_refused_clearly(root: TenantRoot) -> None:
    deep = "/".join(["d" * 200] * 3)
    root.mkdir(deep)
    with pytest.raises(PathRefused, match="deeper than SQLite"):
        root.sqlite_path(f"{deep}/db")


@given(st.text(st.sampled_from("a./\0\\é\ud800 "), max_size=12) | st.text(max_size=30))
def test_a_path_is_split_into_names_or_refused(text: str) -> None:
    try:
        parts = split_path(text)
    except PathRefused:
        return
    assert "/".join(parts) == text
    assert all(part not in {"", ".", ".."} and "\0" not in part for part in parts)
