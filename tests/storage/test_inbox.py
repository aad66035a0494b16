"""A message that waits for its turn outlives the process that acknowledged it."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import SessionKey
from appliance.storage.database import Database
from appliance.storage.inbox import RESTARTED, Unanswered, WaitingMessage
from appliance.storage.migrations import Schema
from appliance.storage.sessions import FILE, MessageKind, RunStatus, SessionStore
from appliance.storage.sessions_schema import SCHEMA
from tests.books import NOON, directory
from tests.storage.talks import KEY, OTHER, assistant, later, turn, user

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    store = await SessionStore.open(directory(tmp_path / "live"), now=NOON)
    yield store
    await store.close()


def wait(
    store: SessionStore,
    run: str,
    text: str,
    *,
    key: SessionKey = KEY,
    kind: MessageKind = MessageKind.MESSAGE,
) -> None:
    """What is done when a message comes that has to wait."""
    store.requests.begin("chat", run, fingerprint=b"f", run_id=run, now=later(1))
    store.inbox.put(
        WaitingMessage(
            run_id=run,
            space="chat",
            key=key,
            message=user(text),
            kind=kind,
            meta={"idempotencyKey": run},
            credential="tok_1",
            request_id=f"req_{run}",
            received_at=later(1),
        )
    )


async def after_a_crash(tmp_path: Path) -> SessionStore:
    """The store as the next process finds it; this one never closed it."""
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    return await SessionStore.open(directory(tmp_path / "copy"), now=later(60))


async def test_what_waited_is_said_after_a_crash_in_its_order(
    store: SessionStore, tmp_path: Path
) -> None:
    turn(store, "first", "answer")
    store.begin_run(KEY, [user("under way")], request_id="r", model="stub/m", now=NOON)
    for number in range(3):
        wait(store, f"w{number}", f"waiting {number}")
    wait(store, "other", "elsewhere", key=OTHER)

    again = await after_a_crash(tmp_path)

    assert again.inbox.waiting() == []
    lines = again.messages(KEY, limit=10)
    assert [line.message for line in lines[2:]] == [
        user("under way"), user("waiting 0"), user("waiting 1"), user("waiting 2"),
    ]  # fmt: skip
    assert {line.status for line in lines[2:]} == {RunStatus.CRASHED}
    assert lines[3].meta == {"idempotencyKey": "w0", "unanswered": True, "stopReason": "restart"}
    assert lines[3].created_at == later(1)
    assert again.history(KEY, limit_tokens=1_000) == [
        user("first"), assistant("answer"),
        user("waiting 0"), user("waiting 1"), user("waiting 2"),
    ]  # fmt: skip
    assert lines[3].run is not None
    run = again.run(lines[3].run)
    assert run is not None
    assert (run.request_id, run.source, run.model) == ("req_w0", "chat", "stub/m")
    assert (run.started_at, run.ended_at) == (later(1), later(60))
    assert run.error == RESTARTED.error
    session = again.find(KEY)
    assert session is not None
    assert (session.model, session.updated_at) == ("stub/m", later(1))
    elsewhere = again.find(OTHER)
    assert elsewhere is not None
    assert elsewhere.title == "elsewhere"
    for name in ("w0", "w1", "w2", "other"):
        seen = again.requests.find("chat", name)
        assert seen is not None
        assert seen.interrupted
    await again.close()

    once_more = await SessionStore.open(directory(tmp_path / "copy"), now=later(61))
    assert len(once_more.messages(KEY, limit=10)) == 6
    await once_more.close()


async def test_a_turn_takes_what_it_says_out_of_the_inbox(
    store: SessionStore, tmp_path: Path
) -> None:
    for run in ("w0", "w1", "w2"):
        wait(store, run, run)
    store.begin_run(
        KEY, [user("w0 and w1")], request_id="r", model="m", now=NOON, answers=["w0", "w1"]
    )
    with pytest.raises(InvalidRequest):
        store.begin_run(KEY, [user("\ud83d")], request_id="r", model="m", now=NOON, answers=["w2"])
    assert store.inbox.waiting() == ["w2"]

    again = await after_a_crash(tmp_path)

    assert [line.message for line in again.messages(KEY, limit=9)] == [
        user("w0 and w1"),
        user("w2"),
    ]
    await again.close()


async def test_a_run_that_ends_without_it_lets_it_go(store: SessionStore) -> None:
    for run in ("ended", "refused", "waits"):
        wait(store, run, run)

    store.requests.finish("chat", "ended", b"outcome", now=NOON)
    store.requests.forget("chat", "refused")
    store.requests.finish("send", "waits", b"another's of the same name", now=NOON)

    assert store.inbox.waiting() == ["waits"]
    assert store.messages(KEY, limit=9) == []


async def test_what_nobody_asked_to_drop_is_said_when_its_run_ends(store: SessionStore) -> None:
    wait(store, "w0", "hello")
    unanswered = Unanswered(RunStatus.CANCELLED, "cancelled")

    for _ in range(2):
        store.requests.finish("chat", "w0", b"outcome", now=later(2), unanswered=unanswered)

    (line,) = store.messages(KEY, limit=9)
    assert (line.message, line.status) == (user("hello"), RunStatus.CANCELLED)
    assert line.meta["stopReason"] == "cancelled"
    assert store.inbox.waiting() == []


async def test_pictures_are_kept_as_they_came(store: SessionStore, tmp_path: Path) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "look"}, PICTURE]}
    store.inbox.put(
        WaitingMessage(
            run_id="w0",
            space="agent",
            key=KEY,
            message=message,
            credential="tok_1",
            request_id="req_1",
            received_at=NOON,
        )
    )

    again = await after_a_crash(tmp_path)

    assert again.messages(KEY, limit=9)[0].message == message
    await again.close()


async def test_a_command_that_waited_is_shown_and_not_sent_to_the_model(
    store: SessionStore, tmp_path: Path
) -> None:
    wait(store, "w0", "/compact", kind=MessageKind.NOTE)

    again = await after_a_crash(tmp_path)

    (line,) = again.messages(KEY, limit=9)
    assert (line.kind, line.message) == (MessageKind.NOTE, user("/compact"))
    assert line.meta["unanswered"]
    assert again.history(KEY, limit_tokens=1_000) == []
    await again.close()


async def test_half_a_character_is_refused(store: SessionStore) -> None:
    with pytest.raises(InvalidRequest):
        wait(store, "w0", "\ud83d")
    assert store.inbox.waiting() == []


async def test_the_release_before_leaves_it_for_the_next(
    store: SessionStore, tmp_path: Path
) -> None:
    wait(store, "w0", "hello")
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    before = Schema("sessions", SCHEMA.steps[:2])
    database = await Database.open(directory(tmp_path / "copy"), FILE, before)
    database.write(lambda tx: tx.execute("UPDATE runs SET status = 'crashed'").fetchall())
    await database.close()

    again = await SessionStore.open(directory(tmp_path / "copy"), now=later(60))

    assert [line.message for line in again.messages(KEY, limit=9)] == [user("hello")]
    await again.close()


async def test_a_database_of_the_release_before_gets_an_inbox(tmp_path: Path) -> None:
    before = Schema("sessions", SCHEMA.steps[:2])
    await (await Database.open(directory(tmp_path), FILE, before)).close()

    store = await SessionStore.open(directory(tmp_path), now=NOON)

    wait(store, "w0", "hello")
    assert store.inbox.waiting() == ["w0"]
    await store.close()


async def test_one_tenants_messages_are_not_in_anothers_inbox(tmp_path: Path) -> None:
    stores = [await SessionStore.open(directory(tmp_path / name), now=NOON) for name in ("a", "b")]
    wait(stores[0], "w0", "secret")
    assert stores[1].inbox.waiting() == []
    assert stores[1].inbox.recover(now=NOON) == 0
    stores[1].requests.finish("chat", "w0", b"", now=NOON, unanswered=RESTARTED)
    stores[1].requests.forget("chat", "w0")
    assert stores[1].messages(KEY, limit=9) == []
    assert stores[0].inbox.waiting() == ["w0"]
    for store in stores:
        await store.close()
