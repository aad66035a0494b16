"""The tables of a tenant's responses and conversations. Later features add further steps."""

from appliance.storage.migrations import Schema

SCHEMA = Schema(
    "responses",
    (
        # What continues something lives as long as it: they share a thread. The totals are
        # there so that keeping within the limits does not mean counting anew each time.
        """
        CREATE TABLE threads (
            id         INTEGER PRIMARY KEY,
            expires_ns INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX threads_by_expiry ON threads (expires_ns);

        CREATE TABLE responses (
            id           INTEGER PRIMARY KEY,
            public_id    TEXT NOT NULL UNIQUE,
            thread       INTEGER NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
            status       TEXT NOT NULL CHECK (status IN
                ('queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled')),
            background   INTEGER NOT NULL CHECK (background IN (0, 1)),
            model        TEXT NOT NULL,
            previous     TEXT,              -- the response that it continues
            conversation TEXT,              -- the one that it is part of
            session      TEXT NOT NULL,     -- of the agent that answers; '': no agent's
            size         INTEGER NOT NULL,  -- bytes of its JSON, events not counted
            events       INTEGER NOT NULL DEFAULT 0,  -- bytes of them; 0: none are kept
            created_ns   INTEGER NOT NULL,
            ended_ns     INTEGER,
            body         BLOB NOT NULL      -- JSON, as it is shown
        ) STRICT;
        CREATE INDEX responses_by_thread ON responses (thread, id);
        CREATE INDEX responses_under_way ON responses (id)
            WHERE status IN ('queued', 'in_progress');
        CREATE INDEX responses_with_events ON responses (ended_ns) WHERE events > 0;

        CREATE TABLE items (
            id        INTEGER PRIMARY KEY,
            response  INTEGER NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
            is_output INTEGER NOT NULL CHECK (is_output IN (0, 1)),
            place     INTEGER NOT NULL,
            public_id TEXT NOT NULL,
            item      BLOB,                 -- JSON, as a model reads it; NULL: as in the body
            UNIQUE (response, is_output, place)
        ) STRICT;
        CREATE INDEX items_by_public_id ON items (public_id);

        CREATE TABLE events (
            response INTEGER NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
            sequence INTEGER NOT NULL,
            event    BLOB NOT NULL,         -- JSON
            PRIMARY KEY (response, sequence)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE conversations (
            id         INTEGER PRIMARY KEY,
            public_id  TEXT NOT NULL UNIQUE,
            thread     INTEGER NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
            metadata   BLOB NOT NULL,       -- JSON
            session    TEXT NOT NULL DEFAULT '',
            created_ns INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX conversations_by_thread ON conversations (thread);

        CREATE TABLE conversation_items (
            id           INTEGER PRIMARY KEY,  -- the order they came in
            conversation INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
            public_id    TEXT NOT NULL,
            item         BLOB NOT NULL,        -- JSON
            sealed       BLOB,                 -- as a model reads it; NULL: as it is shown
            UNIQUE (conversation, public_id)
        ) STRICT;
        CREATE INDEX conversation_items_by_public_id ON conversation_items (public_id);
        CREATE INDEX conversation_items_in_order ON conversation_items (conversation, id);

        CREATE TABLE totals (
            only          INTEGER PRIMARY KEY CHECK (only = 1),
            responses     INTEGER NOT NULL,
            conversations INTEGER NOT NULL,
            bytes         INTEGER NOT NULL
        ) STRICT;
        INSERT INTO totals VALUES (1, 0, 0, 0);
        CREATE TRIGGER response_added AFTER INSERT ON responses
        BEGIN
            UPDATE totals SET responses = responses + 1, bytes = bytes + new.size + new.events;
        END;
        CREATE TRIGGER response_changed AFTER UPDATE OF size, events ON responses
        BEGIN
            UPDATE totals
            SET bytes = bytes + new.size + new.events - old.size - old.events;
        END;
        CREATE TRIGGER response_removed AFTER DELETE ON responses
        BEGIN
            UPDATE totals SET responses = responses - 1, bytes = bytes - old.size - old.events;
        END;
        CREATE TRIGGER conversation_added AFTER INSERT ON conversations
        BEGIN
            UPDATE totals SET conversations = conversations + 1;
        END;
        CREATE TRIGGER conversation_removed AFTER DELETE ON conversations
        BEGIN
            UPDATE totals SET conversations = conversations - 1;
        END;
        CREATE TRIGGER conversation_item_added AFTER INSERT ON conversation_items
        BEGIN
            UPDATE totals
            SET bytes = bytes + length(new.item) + coalesce(length(new.sealed), 0);
        END;
        CREATE TRIGGER conversation_item_removed AFTER DELETE ON conversation_items
        BEGIN
            UPDATE totals
            SET bytes = bytes - length(old.item) - coalesce(length(old.sealed), 0);
        END;
        """,
        # Very many items go into a conversation in steps. If the last one is never taken,
        # those that have come are known by this.
        """
        CREATE TABLE arriving (
            response     INTEGER PRIMARY KEY REFERENCES responses (id) ON DELETE CASCADE,
            conversation INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
            after        INTEGER NOT NULL  -- the id of the last item before them
        ) STRICT;
        CREATE INDEX arriving_by_conversation ON arriving (conversation);
        """,
    ),
)
