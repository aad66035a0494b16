"""The schema of a database as the list of steps that build it.

Append only: a released step is history and never changes. Each step runs in
one transaction together with the new version number, so that a crash leaves
the database at one version or the next. ``compat_version`` says which oldest
version may still work with the newest schema; a release older than that
refuses the data instead of damaging it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import apsw

from appliance.model.errors import SchemaTooNew, TenantBroken

_INFO = """
CREATE TABLE schema_info (
    only           INTEGER PRIMARY KEY CHECK (only = 1),
    kind           TEXT NOT NULL,     -- which of our databases this is
    schema_version INTEGER NOT NULL,  -- how many steps have been taken
    compat_version INTEGER NOT NULL   -- the fewest steps a release must know to open this
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Schema:
    """``kind`` is the name people read: "ledger", "sessions"."""

    kind: str
    steps: tuple[str, ...]
    compat_version: int = 1

    @property
    def version(self) -> int:
        return len(self.steps)


def new_database(schema: Schema) -> bytes:
    """Return the content of a file that holds the newest schema and no data.

    Built in memory and written in one piece, so that a file that is there is
    whole: an empty one is damage, never a beginning.
    """
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(_INFO).fetchall()
        connection.execute(
            "INSERT INTO schema_info VALUES (1, ?, 0, ?)", (schema.kind, schema.compat_version)
        )
        _take_steps(connection, schema, taken=0)
        return connection.serialize("main")
    finally:
        connection.close()


def migrate(
    connection: apsw.Connection, schema: Schema, *, before_first: Callable[[int], None]
) -> None:
    """Bring the database up to date; newer data is left as it is if we may read it.

    ``before_first`` is called with the present version before anything is
    changed: the place for a snapshot.

    Raises :exc:`SchemaTooNew`, or :exc:`TenantBroken` for a database that is
    not of this kind.
    """
    taken = check(connection, schema)
    if taken < schema.version:
        before_first(taken)
        _take_steps(connection, schema, taken=taken)


def check(connection: apsw.Connection, schema: Schema) -> int:
    """Return the version of a database of this kind that this release may read.

    Raises as :func:`migrate` does.
    """
    taken, compat_version = _info(connection, schema)
    if compat_version > schema.version:
        raise SchemaTooNew(
            f"the {schema.kind} needs a release that knows schema {compat_version}; "
            f"this one knows {schema.version}",
            needed=compat_version,
            known=schema.version,
        )
    return taken


def _info(connection: apsw.Connection, schema: Schema) -> tuple[int, int]:
    """How many steps have been taken, and how many a release must know."""
    if not connection.table_exists("main", "schema_info"):
        raise TenantBroken(f"the {schema.kind} database is not one of ours")
    row = connection.execute(
        "SELECT kind, schema_version, compat_version FROM schema_info"
    ).fetchone()
    match row:
        case (schema.kind, int(taken), int(compat_version)):
            return taken, compat_version
    raise TenantBroken(f"the database in the place of the {schema.kind} is another one")


def _take_steps(connection: apsw.Connection, schema: Schema, *, taken: int) -> None:
    for version, step in enumerate(schema.steps[taken:], start=taken + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(step).fetchall()
            connection.execute(
                "UPDATE schema_info SET schema_version = ?, compat_version = ?",
                (version, schema.compat_version),
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
