"""Conversations of the release before: carried over whole, and still readable by it."""

import shutil
from pathlib import Path

import pytest

from appliance.model.errors import TenantBroken
from appliance.storage.connection import Connection
from appliance.storage.database import Database
from appliance.storage.migrations import Schema
from appliance.storage.sessions import FILE, RunStatus, SessionFilter, SessionStore
from appliance.storage.sessions_schema import SCHEMA
from tests.books import NOON, directory
from tests.storage.talks import KEY, OTHER, assistant, begin, later, turn, user

BEFORE = Schema("sessions", SCHEMA.steps[:1])
NS = 10**9

# What the release before asks and does, word for word.
OLD_OPEN = """
INSERT INTO sessions (public_id, key, agent, title, model, created_ns, updated_ns)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET model = excluded.model, updated_ns = excluded.updated_ns
RETURNING id
"""
OLD_RUN = """
INSERT INTO runs (id, session, request_id, model, status, started_ns)
VALUES (?, ?, ?, ?, 'running', ?)
"""
OLD_SEQ = "UPDATE sessions SET messages = messages + 1 WHERE id = ? RETURNING messages"
OLD_APPEND = """
INSERT INTO messages (session, seq, run, role, message, tokens, created_ns)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
OLD_FINISH = """
UPDATE runs SET status = ?, answered = ?, ended_ns = ?, input_tokens = ?,
                output_tokens = ?
WHERE id = ?
"""
OLD_COUNT = """
UPDATE sessions SET updated_ns = ?, input_tokens = input_tokens + ?,
                    output_tokens = output_tokens + ?
WHERE id = ?
"""
OLD_PAGE = """
SELECT id, public_id, key, agent, title, model, created_ns, updated_ns, messages,
       input_tokens, output_tokens
FROM sessions
WHERE (updated_ns, id) < (?, ?)
  AND (? = '' OR instr(lower(key), lower(?)) OR instr(lower(title), lower(?)))
ORDER BY updated_ns DESC, id DESC LIMIT ?
"""
OLD_TRANSCRIPT = """
SELECT m.seq, m.message, m.created_ns, m.run, r.status FROM sessions AS s
JOIN messages AS m ON m.session = s.id LEFT JOIN runs AS r ON r.id = m.run
WHERE s.key = ? AND m.seq > ? ORDER BY m.seq LIMIT ?
"""
OLD_HISTORY = """
SELECT m.run, m.message, m.tokens FROM sessions AS s
JOIN messages AS m ON m.session = s.id LEFT JOIN runs AS r ON r.id = m.run
WHERE s.key = ? AND (m.run IS NULL OR r.answered) ORDER BY m.seq DESC
"""


def old_turn(tx: Connection, number: int, key: str, said: str, answered: str) -> None:
    values = (f"ses_{number}", key, "main", said, "stub/m", number * NS, number * NS)
    ((session,),) = tx.execute(OLD_OPEN, values).fetchall()
    run = f"run_{number}"
    tx.execute(OLD_RUN, (run, session, "req", "stub/m", number * NS)).fetchall()
    for role, text in (("user", said), ("assistant", answered)):
        ((seq,),) = tx.execute(OLD_SEQ, (session,)).fetchall()
        message = f'{{"role":"{role}","content":"{text}"}}'
        tx.execute(OLD_APPEND, (session, seq, run, role, message, 10, number * NS)).fetchall()
    tx.execute(OLD_FINISH, ("done", 1, number * NS, 5, 6, run)).fetchall()
    tx.execute(OLD_COUNT, (number * NS, 5, 6, session)).fetchall()


async def old_database(path: Path) -> None:
    database = await Database.open(directory(path), FILE, BEFORE)
    database.write(lambda tx: old_turn(tx, 1, KEY.short, "hello", "hi"))
    database.write(lambda tx: old_turn(tx, 2, KEY.short, "again", "yes"))
    database.write(lambda tx: old_turn(tx, 3, OTHER.short, "other", "no"))
    await database.close()


async def test_everything_is_carried_over(tmp_path: Path) -> None:
    await old_database(tmp_path)
    store = await SessionStore.open(directory(tmp_path), now=NOON)
    session = store.find(KEY)
    assert session is not None
    assert (session.id, session.title, session.messages) == ("ses_1", "hello", 4)
    assert (session.input_tokens, session.output_tokens) == (10, 12)
    assert (session.settings, session.facts, session.label) == ({}, {}, None)
    assert (session.first_seq, session.kept_from, session.archived_at) == (1, 1, None)
    assert store.history(KEY, limit_tokens=1_000) == [
        user("hello"), assistant("hi"), user("again"), assistant("yes"),
    ]  # fmt: skip
    listing = store.list(filters=SessionFilter(limit=1))
    assert ([each.key for each in listing.sessions], listing.total) == ([OTHER.short], 2)
    assert [run.id for run in store.runs(KEY)] == ["run_1", "run_2"]
    await store.close()
    assert (tmp_path / f"{FILE}.v1").exists()


async def test_a_line_of_the_release_before_has_an_id_too(tmp_path: Path) -> None:
    await old_database(tmp_path)
    store = await SessionStore.open(directory(tmp_path), now=NOON)
    lines = store.messages(KEY, limit=10)
    assert len({line.id for line in lines}) == 4
    assert [store.message(line.id) for line in lines] == lines
    (hit,) = await store.search("again")
    assert hit.message_id == lines[2].id
    turn(store, "new", "newer")
    assert [line.seq for line in store.messages(KEY, limit=3)] == [4, 5, 6]
    await store.close()


async def test_the_release_before_goes_on_with_what_is_new(tmp_path: Path) -> None:
    store = await SessionStore.open(directory(tmp_path), now=NOON)
    turn(store, "first", "answer")
    store.patch(KEY, label="ours", settings={"archived": True}, now=NOON)
    old = store.find(KEY)
    assert old is not None
    store.reset(KEY, reason="new", now=NOON)
    store.patch(KEY, settings={"archived": None}, now=NOON)
    turn(store, "second", "answer two")
    store.compact(KEY, summary="sum", kept_from=2, tokens_before=1, now=NOON)
    await store.close()

    database = await Database.open(directory(tmp_path), FILE, BEFORE)
    last = 2**63 - 1

    def read(tx: Connection) -> None:
        page = tx.execute(OLD_PAGE, (last, last, "", "", "", 50)).fetchall()
        assert [(row[2], row[4]) for row in page] == [
            (KEY.short, "second"),
            (f"archived:{old.id}", "first"),
        ]
        lines = tx.execute(OLD_TRANSCRIPT, (KEY.short, 0, 10)).fetchall()
        assert [line[0] for line in lines] == [1, 2, 3]
        assert len(tx.execute(OLD_HISTORY, (KEY.short,)).fetchall()) == 3

    database.read(read)
    year = 60 * 10**6  # later than NOON
    database.write(lambda tx: old_turn(tx, year, KEY.short, "third", "answer three"))
    database.write(lambda tx: old_turn(tx, year + 1, OTHER.short, "elsewhere", "yes"))
    await database.close()

    store = await SessionStore.open(directory(tmp_path), now=later(1))
    assert [each.key for each in store.list().sessions] == [OTHER.short, KEY.short]
    assert store.list(filters=SessionFilter(limit=0)).total == 2
    assert store.history(KEY, limit_tokens=1_000)[-2:] == [user("third"), assistant("answer three")]
    assert store.find_by_label("ours") == store.find(KEY)
    assert store.delete(OTHER)
    assert store.list(filters=SessionFilter(limit=0)).total == 1
    await store.close()

    database = await Database.open(directory(tmp_path), FILE, BEFORE)
    delete = "DELETE FROM sessions WHERE key = ?"
    database.write(lambda tx: tx.execute(delete, (KEY.short,)).fetchall())
    database.write(lambda tx: tx.execute("UPDATE runs SET status = 'crashed'").fetchall())
    await database.close()


async def test_a_crash_in_the_middle_of_it_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    await old_database(tmp_path)
    broken = Schema("sessions", (SCHEMA.steps[0], SCHEMA.steps[1] + "SELECT boom();"))
    with pytest.raises(Exception, match="boom"):
        await Database.open(directory(tmp_path), FILE, broken)
    store = await SessionStore.open(directory(tmp_path), now=NOON)
    assert len(store.transcript(KEY)) == 4
    await store.close()


async def test_a_damaged_page_is_reported_and_never_taken_for_nothing(tmp_path: Path) -> None:
    store = await SessionStore.open(directory(tmp_path / "live"), now=NOON)
    for number in range(200):
        turn(store, f"question {number}", "x" * 300)
    await store._database.checkpoint()
    await store.close()
    whole = (tmp_path / "live" / FILE).read_bytes()
    reported = 0
    for page in range(0, len(whole) // 4096, 3):
        path = tmp_path / f"copy{page}"
        shutil.copytree(tmp_path / "live", path)
        at = page * 4096
        # The head of a page says what kind it is; 0xEE is none.
        (path / FILE).write_bytes(whole[:at] + b"\xee" * 16 + whole[at + 16 :])
        try:
            store = await SessionStore.open(directory(path), now=NOON)
        except TenantBroken:
            reported += 1
            continue
        try:
            turn(store, "more", "answer")
            assert len(store.messages(KEY, limit=1_000)) == 402
            store.list(filters=SessionFilter(search="nothing"))
        except TenantBroken:
            reported += 1
            with pytest.raises(TenantBroken):
                begin(store, "and more")
        await store.close()
    assert reported > len(whole) // 4096 // 6


async def test_one_tenants_sessions_are_not_in_anothers_store(tmp_path: Path) -> None:
    stores = [await SessionStore.open(directory(tmp_path / name), now=NOON) for name in ("a", "b")]
    run = turn(stores[0], "secret", "answer", status=RunStatus.DONE)
    mine = stores[0].patch(KEY, label="ours", now=NOON)
    line = stores[0].messages(KEY, limit=1)[0]
    other = stores[1]
    for found in (
        other.find(KEY),
        other.find_by_id(mine.id),
        other.find_by_label("ours"),
        other.message(line.id),
        other.run(run.id),
        other.last_message(KEY),
    ):
        assert found is None
    assert not other.messages(mine.id, limit=10)
    assert not other.incarnations(KEY)
    assert not other.runs(mine.id)
    assert not other.previews([KEY])[0].found
    assert other.list(filters=SessionFilter(archived=None)).total == 0
    assert await other.search("secret") == []
    assert other.archive(KEY, now=NOON) is None
    assert not other.delete_by_id(mine.id)
    assert not other.note_facts(KEY, {"a": 1}, now=NOON)
    assert stores[0].find(KEY) == mine
    for store in stores:
        await store.close()
