"""Schemas: built, migrated, refused."""

from pathlib import Path

import apsw
import pytest

from appliance.model.errors import SchemaTooNew, TenantBroken
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.migrations import Schema, migrate, new_database
from tests.books import directory

NAME = "data/things.sqlite"
FIRST = "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;"
SECOND = "ALTER TABLE things ADD COLUMN colour TEXT; INSERT INTO things VALUES (9, 'new', 'red');"
V1 = Schema("things", (FIRST,))
V2 = Schema("things", (FIRST, SECOND))


def info(tx: Connection) -> list[tuple[object, ...]]:
    return tx.execute("SELECT kind, schema_version, compat_version FROM schema_info").fetchall()


def names(tx: Connection) -> list[object]:
    return [name for (name,) in tx.execute("SELECT name FROM things ORDER BY id").fetchall()]


async def opened(path: Path, schema: Schema) -> Database:
    return await Database.open(directory(path), NAME, schema)


async def with_one_thing(path: Path) -> None:
    database = await opened(path, V1)
    database.write(lambda tx: tx.execute("INSERT INTO things VALUES (1, 'old')"))
    await database.close()


async def test_a_new_database_is_at_the_newest_version(tmp_path: Path) -> None:
    database = await opened(tmp_path, V2)
    assert database.read(info) == [("things", 2, 1)]
    await database.close()


def test_a_new_database_is_the_same_file_every_time() -> None:
    assert new_database(V2) == new_database(V2)


async def test_missing_steps_are_taken_once(tmp_path: Path) -> None:
    await with_one_thing(tmp_path)
    for _ in range(2):
        database = await opened(tmp_path, V2)
        assert database.read(info) == [("things", 2, 1)]
        assert database.read(names) == ["old", "new"]
        await database.close()


async def test_before_the_first_step_a_snapshot_is_kept(tmp_path: Path) -> None:
    await with_one_thing(tmp_path)
    (tmp_path / f"{NAME}.v1").write_bytes(b"of an attempt that was cut short")
    await (await opened(tmp_path, V2)).close()
    snapshot = apsw.Connection(str(tmp_path / f"{NAME}.v1"))
    assert names(snapshot) == ["old"]
    assert info(snapshot) == [("things", 1, 1)]
    snapshot.close()


async def test_a_step_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    await with_one_thing(tmp_path)
    broken = Schema("things", (FIRST, "DELETE FROM things; SELECT nonsense();"))
    with pytest.raises(apsw.SQLError):
        await opened(tmp_path, broken)
    database = await opened(tmp_path, V1)
    assert database.read(info) == [("things", 1, 1)]
    assert database.read(names) == ["old"]
    await database.close()


async def test_data_that_needs_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await opened(tmp_path, Schema("things", V2.steps, compat_version=2))).close()
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(SchemaTooNew, match="knows schema 2; this one knows 1") as refused:
        await opened(tmp_path, V1)
    assert refused.value.facts == {"needed": 2, "known": 1}
    assert (tmp_path / NAME).read_bytes() == before


async def test_newer_data_that_this_release_may_use_is_not_changed_back(tmp_path: Path) -> None:
    await (await opened(tmp_path, V2)).close()
    database = await opened(tmp_path, V1)
    database.write(lambda tx: tx.execute("INSERT INTO things (id, name) VALUES (1, 'mine')"))
    assert database.read(info) == [("things", 2, 1)]
    await database.close()


def test_a_database_without_our_marks_is_refused() -> None:
    connection = apsw.Connection(":memory:")
    with pytest.raises(TenantBroken, match="not one of ours"):
        migrate(connection, V1, before_first=lambda version: None)
    connection.execute("CREATE TABLE schema_info (kind, schema_version, compat_version)")
    with pytest.raises(TenantBroken, match="another one"):
        migrate(connection, V1, before_first=lambda version: None)
    connection.close()
