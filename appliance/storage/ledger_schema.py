"""The tables of the usage ledger.

``entries`` is append-only, by triggers: a mistake is put right with a further
entry that names the one it corrects. An entry has the id of its reservation,
so the table itself refuses to settle a call twice. A reservation without an
entry is a call under way or, after a crash, one that was. Entries of kind
``sandbox`` have no reservation and are no calls. Steps only add columns that an
older release can do without: it names those it writes.
"""

from appliance.storage.migrations import Schema

SCHEMA = Schema(
    "ledger",
    (
        """
        CREATE TABLE reservations (
            id            INTEGER PRIMARY KEY,
            ts_ns         INTEGER NOT NULL,
            request_id    TEXT NOT NULL,
            kind          TEXT NOT NULL,
            route         TEXT NOT NULL,     -- the model as the caller named it
            agent         TEXT,
            session       TEXT,
            channel       TEXT,
            token_id      TEXT,
            tags          TEXT,              -- JSON list
            input_tokens  INTEGER NOT NULL,  -- estimates
            output_tokens INTEGER NOT NULL,
            cost_nano     INTEGER,
            price         TEXT
        ) STRICT;

        CREATE TABLE entries (
            id                  INTEGER PRIMARY KEY,
            ts_ns               INTEGER NOT NULL,  -- when the call was admitted: its day, its price
            settled_ns          INTEGER NOT NULL,
            request_id          TEXT NOT NULL,
            kind                TEXT NOT NULL,
            route               TEXT NOT NULL,
            provider            TEXT NOT NULL,
            model               TEXT NOT NULL,
            agent               TEXT,
            session             TEXT,
            channel             TEXT,
            token_id            TEXT,
            tags                TEXT,
            input_tokens        INTEGER NOT NULL,
            output_tokens       INTEGER NOT NULL,
            cache_read_tokens   INTEGER NOT NULL,
            cache_write_tokens  INTEGER NOT NULL,
            reasoning_tokens    INTEGER NOT NULL,
            tool_calls          INTEGER NOT NULL,
            sandbox_ms          INTEGER NOT NULL,
            cost_nano           INTEGER,           -- NULL: the price was not known
            currency            TEXT NOT NULL,
            price               TEXT,              -- JSON, nano-units per million tokens
            estimated           INTEGER NOT NULL CHECK (estimated IN (0, 1)),
            outcome             TEXT NOT NULL,
            provider_request_id TEXT,
            corrects            INTEGER REFERENCES entries (id),
            note                TEXT,
            tokens              INTEGER GENERATED ALWAYS AS (
                input_tokens + output_tokens + cache_read_tokens
                + cache_write_tokens + reasoning_tokens
            ) VIRTUAL,
            hour                INTEGER GENERATED ALWAYS AS (ts_ns / 3600000000000) VIRTUAL,
            CHECK (outcome IN ('ok', 'cancelled', 'failed', 'crashed', 'corrected')),
            CHECK ((outcome = 'corrected') = (corrects IS NOT NULL)),
            CHECK (
                corrects IS NOT NULL
                OR min(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
                       reasoning_tokens, coalesce(cost_nano, 0)) >= 0
            )
        ) STRICT;

        CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
        CREATE TRIGGER entries_remain BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

        CREATE TABLE hours (
            hour      INTEGER PRIMARY KEY,  -- since 1970
            first_id  INTEGER NOT NULL,     -- all entries of this hour lie between these
            last_id   INTEGER NOT NULL,
            calls     INTEGER NOT NULL,
            tokens    INTEGER NOT NULL,
            cost_nano INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE folded (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            upto INTEGER NOT NULL           -- the entries up to this id are in hours
        ) STRICT;
        INSERT INTO folded VALUES (1, 0);
        """,
        """
        ALTER TABLE entries ADD COLUMN sandbox_cpu_ms    INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE entries ADD COLUMN peak_memory_bytes INTEGER;  -- NULL: nobody counted
        ALTER TABLE entries ADD COLUMN egress_bytes      INTEGER NOT NULL DEFAULT 0;
        """,
        """
        ALTER TABLE entries ADD COLUMN input_audio_tokens  INTEGER NOT NULL DEFAULT 0;  -- of input
        ALTER TABLE entries ADD COLUMN output_audio_tokens INTEGER NOT NULL DEFAULT 0;  -- of output
        ALTER TABLE entries ADD COLUMN web_searches        INTEGER NOT NULL DEFAULT 0;
        """,
    ),
)
