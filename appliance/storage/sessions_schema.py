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
        # A key is UNIQUE, also for the release before, so an archived row gives its own up:
        # it is called 'archived:<public id>' then and remembers live_key. The two generated
        # columns are there for indexes, the triggers so that a total is not counted anew with
        # each listing.
        """
        ALTER TABLE sessions ADD COLUMN label TEXT;
        ALTER TABLE sessions ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';  -- JSON
        ALTER TABLE sessions ADD COLUMN facts TEXT NOT NULL DEFAULT '{}';     -- JSON
        ALTER TABLE sessions ADD COLUMN cache_read_tokens INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE sessions ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE sessions ADD COLUMN context_tokens INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE sessions ADD COLUMN compactions INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE sessions ADD COLUMN aborted INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE sessions ADD COLUMN summary TEXT;
        ALTER TABLE sessions ADD COLUMN kept_from INTEGER NOT NULL DEFAULT 1;  -- seq
        ALTER TABLE sessions ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 1;  -- hidden before it
        ALTER TABLE sessions ADD COLUMN interaction_ns INTEGER;
        ALTER TABLE sessions ADD COLUMN live_key TEXT;
        ALTER TABLE sessions ADD COLUMN archived_ns INTEGER;
        ALTER TABLE sessions ADD COLUMN archive_reason TEXT NOT NULL DEFAULT '';
        ALTER TABLE sessions ADD COLUMN put_away INTEGER
            AS (coalesce(settings ->> 'archived', 0) IS 1) VIRTUAL;
        ALTER TABLE sessions ADD COLUMN spawned_by TEXT AS (settings ->> 'spawnedBy') VIRTUAL;
        DROP INDEX sessions_by_use;
        CREATE INDEX sessions_by_use ON sessions (updated_ns, id, agent, put_away)
            WHERE archived_ns IS NULL;
        CREATE UNIQUE INDEX sessions_by_label ON sessions (label)
            WHERE label IS NOT NULL AND archived_ns IS NULL;
        CREATE TABLE session_counts (
            agent    TEXT NOT NULL,
            put_away INTEGER NOT NULL,
            live     INTEGER NOT NULL,
            PRIMARY KEY (agent, put_away)
        ) STRICT, WITHOUT ROWID;
        INSERT INTO session_counts SELECT agent, 0, count(*) FROM sessions GROUP BY agent;
        CREATE TRIGGER session_added AFTER INSERT ON sessions WHEN new.archived_ns IS NULL
        BEGIN
            INSERT INTO session_counts VALUES (new.agent, new.put_away, 1)
            ON CONFLICT (agent, put_away) DO UPDATE SET live = live + 1;
        END;
        CREATE TRIGGER session_changed AFTER UPDATE OF settings, archived_ns ON sessions
        WHEN (old.archived_ns IS NULL, old.put_away) IS NOT (new.archived_ns IS NULL, new.put_away)
        BEGIN
            UPDATE session_counts SET live = live - 1
            WHERE old.archived_ns IS NULL AND agent = old.agent AND put_away = old.put_away;
            INSERT INTO session_counts
            SELECT new.agent, new.put_away, 1 WHERE new.archived_ns IS NULL
            ON CONFLICT (agent, put_away) DO UPDATE SET live = live + 1;
        END;
        CREATE TRIGGER session_removed AFTER DELETE ON sessions WHEN old.archived_ns IS NULL
        BEGIN
            UPDATE session_counts SET live = live - 1
            WHERE agent = old.agent AND put_away = old.put_away;
        END;
        CREATE INDEX sessions_archived ON sessions (live_key, id) WHERE archived_ns IS NOT NULL;

        ALTER TABLE runs ADD COLUMN source TEXT NOT NULL DEFAULT 'http';
        ALTER TABLE runs ADD COLUMN error TEXT NOT NULL DEFAULT '';
        ALTER TABLE runs ADD COLUMN cache_read_tokens INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE runs ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
        DROP INDEX runs_by_session;
        CREATE INDEX runs_by_session ON runs (session, started_ns);

        ALTER TABLE messages ADD COLUMN public_id TEXT;  -- NULL: of the release before
        ALTER TABLE messages ADD COLUMN kind TEXT NOT NULL DEFAULT 'message';
        ALTER TABLE messages ADD COLUMN meta TEXT;       -- JSON
        CREATE UNIQUE INDEX messages_by_public_id ON messages (public_id)
            WHERE public_id IS NOT NULL;

        CREATE TABLE requests (
            space       TEXT NOT NULL,
            key         TEXT NOT NULL,
            run         TEXT NOT NULL,
            fingerprint BLOB NOT NULL,
            outcome     BLOB,              -- NULL: not finished
            started_ns  INTEGER NOT NULL,
            interrupted INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (space, key)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX requests_by_age ON requests (started_ns);
        CREATE INDEX requests_by_run ON requests (run, started_ns);
        """,
        # What is acknowledged and in no transcript yet; see storage/inbox.py. The release
        # before leaves it alone, and the next to know it puts it where it was said.
        """
        CREATE TABLE inbox (
            id          INTEGER PRIMARY KEY,  -- the order they came in
            run         TEXT NOT NULL UNIQUE,
            space       TEXT NOT NULL,        -- of its request
            session_key TEXT NOT NULL,        -- agent:<agent>:<rest>
            kind        TEXT NOT NULL,
            message     TEXT NOT NULL,        -- JSON
            meta        TEXT NOT NULL,        -- JSON
            credential  TEXT NOT NULL,        -- the id of whose it is
            request_id  TEXT NOT NULL,
            received_ns INTEGER NOT NULL
        ) STRICT;
        """,
        # See storage/paused_calls.py. The release before leaves it alone.
        """
        CREATE TABLE paused_calls (
            call       TEXT PRIMARY KEY,
            run        TEXT NOT NULL,
            created_ns INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX paused_calls_by_age ON paused_calls (created_ns);
        """,
        # Whose a paused turn is had not been kept, so those of before are nobody's. The
        # release before writes rows without an owner, which nobody finds.
        """
        DROP TABLE paused_calls;
        CREATE TABLE paused_calls (
            call       TEXT PRIMARY KEY,  -- as its caller was told it
            run        TEXT NOT NULL,
            owner      TEXT NOT NULL DEFAULT '',
            digest     BLOB NOT NULL DEFAULT x'',
            created_ns INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX paused_calls_by_age ON paused_calls (created_ns);
        CREATE TABLE resumptions (
            paused     TEXT NOT NULL,     -- a run
            answers    BLOB NOT NULL,     -- digest
            run        TEXT NOT NULL,     -- the latest that went on with them
            created_ns INTEGER NOT NULL,
            PRIMARY KEY (paused, answers)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX resumptions_by_age ON resumptions (created_ns);
        ALTER TABLE runs ADD COLUMN own_seq INTEGER;  -- of the first message it made itself
        """,
    ),
)
