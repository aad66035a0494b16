"""A database in the event loop: transactions, syncs shared by many, damage, full disks."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.model.errors import DiskFull, TenantBroken, Unavailable
from appliance.storage import database as database_module
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.migrations import Schema
from tests.books import directory

NAME = "notes/notes.sqlite"
SCHEMA = Schema("notes", ("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT) STRICT;",))


class Disk:
    """A sync that lasts until the test lets it end, and counts."""

    def __init__(self) -> None:
        self.started = 0
        self.finished = 0
        self.fails_with: int | None = None
        self._may_end = threading.Semaphore(0)
        self._begun = trio.Event()

    def sync(self, descriptor: int) -> None:
        trio.from_thread.run_sync(self._begin)
        self._may_end.acquire()
        if self.fails_with is not None:
            raise OSError(self.fails_with, os.strerror(self.fails_with))
        os.fdatasync(descriptor)
        self.finished += 1

    def _begin(self) -> None:
        self.started += 1
        self._begun.set()
        self._begun = trio.Event()

    def let_end(self) -> None:
        self._may_end.release()

    async def wait_begun(self, number: int) -> None:
        while self.started < number:
            await self._begun.wait()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(directory(tmp_path), NAME, SCHEMA)
    yield database
    await database.close()


@pytest.fixture
async def disk() -> Disk:
    return Disk()


@pytest.fixture
async def slow(tmp_path: Path, disk: Disk) -> AsyncIterator[Database]:
    database = await Database.open(directory(tmp_path), NAME, SCHEMA, sync=disk.sync)
    yield database
    for _ in range(100):
        disk.let_end()
    await database.close()


def add(database: Database, text: str) -> None:
    database.write(lambda tx: tx.execute("INSERT INTO notes (text) VALUES (?)", (text,)))


def texts(database: Database) -> list[str]:
    return database.read(_texts)


def _texts(tx: Connection) -> list[str]:
    return [str(text) for (text,) in tx.execute("SELECT text FROM notes ORDER BY id").fetchall()]


async def test_what_was_written_is_there_when_opened_again(tmp_path: Path) -> None:
    for number in range(3):
        database = await Database.open(directory(tmp_path), NAME, SCHEMA)
        add(database, str(number))
        await database.close()
    database = await Database.open(directory(tmp_path), NAME, SCHEMA)
    assert texts(database) == ["0", "1", "2"]
    await database.close()


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def half(tx: Connection) -> None:
        tx.execute("INSERT INTO notes (text) VALUES ('half')")
        raise LookupError

    with pytest.raises(LookupError):
        database.write(half)
    add(database, "whole")
    assert texts(database) == ["whole"]


async def test_a_cancelled_task_still_writes_whole_transactions(database: Database) -> None:
    def both(tx: Connection) -> None:
        tx.execute("INSERT INTO notes (text) VALUES ('one')")
        tx.execute("INSERT INTO notes (text) VALUES ('two')")

    with trio.CancelScope() as scope:
        scope.cancel()
        database.write(both)
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert texts(database) == ["one", "two"]


async def test_every_setting_took_effect(database: Database) -> None:
    def settings(tx: Connection) -> dict[str, object]:
        names = (
            "journal_mode",
            "synchronous",
            "foreign_keys",
            "trusted_schema",
            "cache_size",
            "wal_autocheckpoint",
            "recursive_triggers",
            "busy_timeout",
            "mmap_size",
        )
        return {name: tx.pragma(name) for name in names}

    assert database.read(settings) == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cache_size": -256,
        "wal_autocheckpoint": 0,
        "recursive_triggers": 1,
        "busy_timeout": 0,
        "mmap_size": 0,
    }


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


class TestDurable:
    async def test_one_sync_serves_all_who_wait(self, slow: Database, disk: Disk) -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    add(slow, str(number))
                    nursery.start_soon(slow.durable)
                await disk.wait_begun(1)
                disk.let_end()
        assert disk.finished == 1

    async def test_a_commit_during_a_sync_waits_for_the_next(
        self, slow: Database, disk: Disk
    ) -> None:
        released: list[str] = []

        async def wait(name: str) -> None:
            await slow.durable()
            released.append(name)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                add(slow, "early")
                nursery.start_soon(wait, "early")
                await disk.wait_begun(1)
                for name in ("late", "later"):
                    add(slow, name)
                    nursery.start_soon(wait, name)
                await wait_all_tasks_blocked()
                disk.let_end()
                await disk.wait_begun(2)
                assert released == ["early"]
                disk.let_end()
        assert sorted(released) == ["early", "late", "later"]
        assert disk.finished == 2

    async def test_what_is_durable_already_needs_no_sync(self, slow: Database, disk: Disk) -> None:
        disk.let_end()
        await slow.durable()
        await slow.durable()
        assert disk.started == 1

    async def test_when_the_one_who_leads_is_cancelled_the_others_are_served(
        self, slow: Database, disk: Disk
    ) -> None:
        served = trio.Event()

        async def lead() -> None:
            with leader:
                await slow.durable()

        async def follow() -> None:
            await slow.durable()
            served.set()

        leader = trio.CancelScope()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                add(slow, "text")
                nursery.start_soon(lead)
                await disk.wait_begun(1)
                nursery.start_soon(follow)
                await wait_all_tasks_blocked()
                leader.cancel()
                disk.let_end()
                await served.wait()
        assert disk.finished == 1

    async def test_one_who_is_cancelled_before_the_sync_starts_leaves_it_to_the_next(
        self, slow: Database, disk: Disk
    ) -> None:
        add(slow, "text")
        with trio.CancelScope() as scope:
            scope.cancel()
            await slow.durable()
        assert disk.started == 0
        disk.let_end()
        with trio.fail_after(60):
            await slow.durable()
        assert disk.finished == 1

    async def test_after_a_failed_sync_nothing_is_durable_ever_again(
        self, slow: Database, disk: Disk
    ) -> None:
        disk.fails_with = errno.EIO
        refused: list[str] = []

        async def wait() -> None:
            with pytest.raises(TenantBroken, match="could not be written"):
                await slow.durable()
            refused.append("waiter")

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                add(slow, "early")
                nursery.start_soon(wait)
                await disk.wait_begun(1)
                add(slow, "late")
                nursery.start_soon(wait)
                await wait_all_tasks_blocked()
                disk.let_end()
        assert len(refused) == 2
        # The kernel reports a failure once; asking again would get a lie.
        disk.fails_with = None
        with pytest.raises(TenantBroken):
            await slow.durable()
        with pytest.raises(TenantBroken):
            add(slow, "more")
        with pytest.raises(TenantBroken):
            await slow.checkpoint()
        assert disk.started == 1
        assert texts(slow) == ["early", "late"]

    async def test_what_was_promised_is_in_any_image_of_the_disk(self, tmp_path: Path) -> None:
        """The disk holds what was written before the last sync began, and no more."""
        images = tmp_path / "images"
        live = tmp_path / "live"
        latest = 0

        def sync(descriptor: int) -> None:
            nonlocal latest
            shutil.copytree(live, images / str(latest + 1))
            latest += 1
            os.fdatasync(descriptor)

        database = await Database.open(directory(live), NAME, SCHEMA, sync=sync)
        promised: list[tuple[str, int]] = []

        async def client(name: int) -> None:
            for turn in range(6):
                text = f"{name}.{turn}"
                add(database, text)
                await database.durable()
                promised.append((text, latest))
                if (name + turn) % 10 == 0:
                    await database.checkpoint()
                for _ in range((name * 5 + turn) % 3):
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for name in range(8):
                nursery.start_soon(client, name)
        await database.close()

        held = {}
        for number in range(1, latest + 1):
            image = await Database.open(directory(images / str(number)), NAME, SCHEMA)
            held[number] = set(texts(image))
            await image.close()
        assert len(promised) == 48
        assert all(text in held[image] for text, image in promised)
        assert latest < 48

    async def test_the_name_of_the_wal_file_is_synced_too(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        for _ in range(2):
            add(database, "text")
            await database.durable()
        assert [Path(name).name for name in synced] == ["notes"]


class TestCrash:
    async def test_what_was_committed_survives_the_death_of_the_process(
        self, tmp_path: Path
    ) -> None:
        script = f"""
import os, signal, sys, trio
from pathlib import Path
from appliance.storage.database import Database
from tests.books import directory
from tests.storage.test_database import NAME, SCHEMA, add
async def main():
    database = await Database.open(directory(Path({str(tmp_path)!r})), NAME, SCHEMA)
    for number in range(20):
        add(database, str(number))
    os.kill(os.getpid(), signal.SIGKILL)
trio.run(main)
"""
        died = await trio.run_process([sys.executable, "-c", script], check=False)
        assert died.returncode == -9
        database = await Database.open(directory(tmp_path), NAME, SCHEMA)
        assert texts(database) == [str(number) for number in range(20)]
        await database.close()

    async def test_what_is_found_in_the_wal_is_put_into_the_database_first_of_all(
        self, tmp_path: Path
    ) -> None:
        """So that no sync which failed before can make a hole under later ones."""
        live, image, bare = tmp_path / "live", tmp_path / "image", tmp_path / "bare"
        database = await Database.open(directory(live), NAME, SCHEMA)
        add(database, "text")
        shutil.copytree(live, image)
        await database.close()
        recovered = await Database.open(directory(image), NAME, SCHEMA)
        shutil.copytree(image, bare, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
        await recovered.close()
        without_wal = await Database.open(directory(bare), NAME, SCHEMA)
        assert texts(without_wal) == ["text"]
        await without_wal.close()

    async def test_a_wal_that_ends_within_a_transaction_loses_only_that_one(
        self, tmp_path: Path
    ) -> None:
        live, image = tmp_path / "live", tmp_path / "image"
        database = await Database.open(directory(live), NAME, SCHEMA)
        sizes = []
        for number in range(5):
            add(database, str(number))
            sizes.append((live / f"{NAME}-wal").stat().st_size)
        shutil.copytree(live, image)
        await database.close()
        with (image / f"{NAME}-wal").open("r+b") as wal:
            wal.truncate(sizes[-1] - 1)
        torn = await Database.open(directory(image), NAME, SCHEMA)
        assert texts(torn) == ["0", "1", "2", "3"]
        await torn.close()


class TestCheckpoint:
    async def test_tend_keeps_the_wal_short_while_writing_goes_on(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "_CHECKPOINT_AT", 10)
        checkpoints, done = trio.open_memory_channel[None](1)
        checkpoint = database.checkpoint

        async def noted() -> None:
            await checkpoint()
            await checkpoints.send(None)

        monkeypatch.setattr(database, "checkpoint", noted)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.tend)
                for number in range(10):
                    for _ in range(20):
                        add(database, str(number))
                    await done.receive()
                nursery.cancel_scope.cancel()
        assert (tmp_path / f"{NAME}-wal").stat().st_size < 50 * 4_120
        assert len(texts(database)) == 200

    async def test_without_tend_the_loop_stops_the_wal_from_growing(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "_CHECKPOINT_AT", 10)
        for number in range(200):
            add(database, str(number))
        assert (tmp_path / f"{NAME}-wal").stat().st_size < 30 * 4_120
        assert len(texts(database)) == 200

    async def test_while_a_long_reader_needs_the_wal_checkpoints_are_few(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "_CHECKPOINT_AT", 50)
        begun, over = threading.Event(), threading.Event()
        checkpoints = 0
        checkpoint = database.checkpoint

        async def counted() -> None:
            nonlocal checkpoints
            checkpoints += 1
            await checkpoint()

        def look(tx: Connection) -> None:
            _texts(tx)
            begun.set()
            over.wait(60)

        monkeypatch.setattr(database, "checkpoint", counted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.scan, look)
            await trio.to_thread.run_sync(begun.wait, 60)
            async with trio.open_nursery() as tending:
                tending.start_soon(database.tend)
                for number in range(300):
                    add(database, str(number))
                    await database.durable()
                tending.cancel_scope.cancel()
            over.set()
        assert 1 <= checkpoints <= 12
        assert len(texts(database)) == 300

    @contextmanager
    def checkpoint_of_another_program(self, shm: Path) -> Iterator[None]:
        # What a checkpoint locks is byte 121 of the -shm file (SQLite's WAL format, 2.3).
        script = """
import fcntl, sys
with open(sys.argv[1], "r+b") as shm:
    fcntl.lockf(shm, fcntl.LOCK_EX, 1, 121)
    print("locked", flush=True)
    sys.stdin.read()
"""
        with subprocess.Popen(
            [sys.executable, "-c", script, str(shm)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"locked\n"
            yield
            other.communicate()

    async def test_a_checkpoint_of_another_program_is_left_to_it(
        self, database: Database, tmp_path: Path
    ) -> None:
        add(database, "text")
        with self.checkpoint_of_another_program(tmp_path / f"{NAME}-shm"):
            with pytest.raises(apsw.BusyError):
                database._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            await database.checkpoint()
        await database.checkpoint()
        add(database, "more")
        assert texts(database) == ["text", "more"]

    async def test_a_sync_after_a_checkpoint_covers_the_new_beginning_of_the_wal(
        self, tmp_path: Path
    ) -> None:
        live, image = tmp_path / "live", tmp_path / "image"
        database = await Database.open(directory(live), NAME, SCHEMA)
        add(database, "before")
        await database.checkpoint()
        add(database, "after")
        await database.durable()
        shutil.copytree(live, image)
        await database.close()
        copy = await Database.open(directory(image), NAME, SCHEMA)
        assert texts(copy) == ["before", "after"]
        await copy.close()


class TestScan:
    async def test_it_sees_one_moment_while_writing_goes_on(self, database: Database) -> None:
        add(database, "before")
        begun, written = threading.Event(), threading.Event()

        def look(tx: Connection) -> tuple[list[str], list[str]]:
            first = _texts(tx)
            begun.set()
            written.wait(60)
            return first, _texts(tx)

        seen: list[tuple[list[str], list[str]]] = []

        async def scan() -> None:
            seen.append(await database.scan(look))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan)
            await trio.to_thread.run_sync(begun.wait, 60)
            add(database, "after")
            written.set()
        assert seen == [(["before"], ["before"])]
        assert texts(database) == ["before", "after"]

    async def test_it_cannot_write(self, database: Database) -> None:
        def write(tx: Connection) -> None:
            tx.execute("INSERT INTO notes (text) VALUES ('no')")

        with pytest.raises(TenantBroken, match="read-only"):
            await database.scan(write)


class TestFullDisk:
    @contextmanager
    def no_file_larger_than(self, size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    async def test_a_write_that_finds_no_room_leaves_nothing_and_later_ones_work(
        self, database: Database, tmp_path: Path
    ) -> None:
        add(database, "before")
        with self.no_file_larger_than(60_000), pytest.raises(DiskFull):
            add(database, "x" * 200_000)
        assert texts(database) == ["before"]
        add(database, "after")
        await database.durable()
        assert texts(database) == ["before", "after"]
        shutil.copytree(tmp_path / "notes", tmp_path / "image" / "notes")
        image = await Database.open(directory(tmp_path / "image"), NAME, SCHEMA)
        assert texts(image) == ["before", "after"]
        await image.close()

    async def test_sqlites_own_limit_reads_the_same(self, database: Database) -> None:
        database.read(lambda tx: tx.pragma("max_page_count", 10))
        with pytest.raises(DiskFull):
            add(database, "x" * 200_000)
        assert texts(database) == []
        add(database, "small")

    async def test_a_checkpoint_that_finds_no_room_changes_nothing(
        self, database: Database
    ) -> None:
        for _ in range(20):
            add(database, "x" * 4_000)
        with self.no_file_larger_than(30_000), pytest.raises(DiskFull):
            await database.checkpoint()
        await database.checkpoint()
        assert len(texts(database)) == 20

    async def test_tend_waits_for_room(
        self,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        autojump_clock: trio.testing.MockClock,
    ) -> None:
        monkeypatch.setattr(database_module, "_CHECKPOINT_AT", 1)
        for _ in range(20):
            add(database, "x" * 4_000)
        with self.no_file_larger_than(30_000):
            with trio.move_on_after(29):
                await database.tend()
        add(database, "after")
        assert len(texts(database)) == 21


class TestDamage:
    async def break_and_open(self, path: Path, content: bytes) -> None:
        overwrite(path, content)
        with pytest.raises(TenantBroken):
            await Database.open(directory(path.parent.parent), NAME, SCHEMA)
        assert content_of(path) == content

    @pytest.fixture
    async def file(self, tmp_path: Path) -> Path:
        database = await Database.open(directory(tmp_path), NAME, SCHEMA)
        for number in range(50):
            add(database, str(number) * 100)
        await database.close()
        return tmp_path / NAME

    async def test_garbage_is_refused_and_kept(self, file: Path) -> None:
        await self.break_and_open(file, b"not a database, but a note of what happened" * 300)

    async def test_an_empty_file_is_damage_and_no_new_database(self, file: Path) -> None:
        await self.break_and_open(file, b"")

    async def test_a_file_cut_short_is_refused_and_kept(self, file: Path) -> None:
        content = content_of(file)
        await self.break_and_open(file, content[: len(content) // 2])

    async def test_a_damaged_page_ends_all_writing(self, file: Path) -> None:
        content = bytearray(content_of(file))
        content[-4_096:] = b"\xff" * 4_096
        overwrite(file, bytes(content))
        database = await Database.open(directory(file.parent.parent), NAME, SCHEMA)
        with pytest.raises(TenantBroken, match="damaged"):
            texts(database)
        with pytest.raises(TenantBroken, match="damaged"):
            add(database, "more")
        await database.close()
        assert content_of(file) == content

    async def test_a_wal_without_its_database_is_not_played_into_a_new_one(
        self, file: Path
    ) -> None:
        remove(file)
        wal = file.with_name(f"{file.name}-wal")
        overwrite(wal, b"w" * 5_000)
        with pytest.raises(TenantBroken, match="missing"):
            await Database.open(directory(file.parent.parent), NAME, SCHEMA)
        assert content_of(wal) == b"w" * 5_000
        assert [path.name for path in wal.parent.glob("*")] == [wal.name]

    async def test_another_database_in_its_place_is_refused(self, tmp_path: Path) -> None:
        other = await Database.open(directory(tmp_path), NAME, Schema("letters", SCHEMA.steps))
        await other.close()
        with pytest.raises(TenantBroken, match="another one"):
            await Database.open(directory(tmp_path), NAME, SCHEMA)


class TestLocks:
    def try_to_write(self, path: Path) -> str:
        """What another process hears that begins to write."""
        script = """
import apsw, sys
connection = apsw.Connection(sys.argv[1])
try:
    connection.execute("BEGIN IMMEDIATE")
except apsw.BusyError:
    print("busy")
else:
    print("free")
"""
        answer = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    async def test_opening_and_closing_the_wal_file_drops_no_lock(
        self, database: Database, tmp_path: Path
    ) -> None:
        def hold(tx: Connection) -> str:
            os.close(os.open(tmp_path / f"{NAME}-wal", os.O_RDONLY))
            return self.try_to_write(tmp_path / NAME)

        assert database.write(hold) == "busy"

    async def test_the_same_with_the_shm_file_would(
        self, database: Database, tmp_path: Path
    ) -> None:
        """So the test above can tell."""

        def hold(tx: Connection) -> str:
            os.close(os.open(tmp_path / f"{NAME}-shm", os.O_RDONLY))
            return self.try_to_write(tmp_path / NAME)

        assert database.write(hold) == "free"

    async def test_a_lock_of_another_program_is_reported_at_once(
        self, database: Database, tmp_path: Path
    ) -> None:
        other = apsw.Connection(str(tmp_path / NAME))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            add(database, "text")
        other.execute("COMMIT")
        other.close()
        add(database, "text")
        assert texts(database) == ["text"]


class TestClose:
    async def test_it_waits_for_a_running_sync(self, slow: Database, disk: Disk) -> None:
        closed = trio.Event()

        async def close() -> None:
            await slow.close()
            closed.set()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                add(slow, "text")
                nursery.start_soon(slow.durable)
                await disk.wait_begun(1)
                nursery.start_soon(close)
                await wait_all_tasks_blocked()
                assert not closed.is_set()
                disk.let_end()
                await closed.wait()

    async def test_nothing_can_be_done_afterwards(self, database: Database) -> None:
        await database.close()
        await database.close()
        with pytest.raises(Unavailable, match="closed"):
            texts(database)
        with pytest.raises(Unavailable, match="closed"):
            add(database, "text")
        with pytest.raises(Unavailable, match="closed"):
            await database.durable()
