"""The tables of a tenant's conversations. Later features add theirs as further steps."""

from appliance.storage.migrations import Schema

SCHEMA = Schema(
    "sessions",
    (
        """
        CREATE TABLE sessions (
            id            INTEGER PRIMARY KEY,
            public_id     TEXT NOT NULL UNIQUE,
            key           TEXT NOT NULL UNIQUE,  -- agent:<agent>:<rest>
            agent         TEXT NOT NULL,
            title         TEXT NOT NULL,
            model         TEXT NOT NULL,
            created_ns    INTEGER NOT NULL,
            updated_ns    INTEGER NOT NULL,
            messages      INTEGER NOT NULL DEFAULT 0,  -- also the last message's seq
            input_tokens  INTEGER NOT NULL DEFAULT 0,
            output_tokens INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE INDEX sessions_by_use ON sessions (updated_ns, id);

        CREATE TABLE runs (
            id            TEXT PRIMARY KEY,
            session       INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            request_id    TEXT NOT NULL,
            model         TEXT NOT NULL,
            status        TEXT NOT NULL
                CHECK (status IN ('running', 'done', 'failed', 'cancelled', 'crashed')),
            answered      INTEGER NOT NULL DEFAULT 0 CHECK (answered IN (0, 1)),
            started_ns    INTEGER NOT NULL,
            ended_ns      INTEGER,
            input_tokens  INTEGER NOT NULL DEFAULT 0,
            output_tokens INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX runs_by_session ON runs (session);
        CREATE INDEX runs_under_way ON runs (status) WHERE status = 'running';

        CREATE TABLE messages (
            id         INTEGER PRIMARY KEY,
            session    INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            seq        INTEGER NOT NULL,  -- from 1, without gaps
            run        TEXT,              -- NULL for what came outside a turn
            role       TEXT NOT NULL,
            message    TEXT NOT NULL,     -- JSON, as it was sent
            tokens     INTEGER NOT NULL,  -- estimate
            created_ns INTEGER NOT NULL,
            UNIQUE (session, seq)
        ) STRICT;
        """,
    ),
)
