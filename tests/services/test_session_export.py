"""Transcripts out of a session and into one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from appliance.model.errors import AlreadyExists, InvalidRequest, TooLarge
from appliance.model.session_keys import SessionKey
from appliance.protocols.transcripts import decode_transcript
from appliance.services import session_export
from appliance.storage.session_rows import MessageKind
from tests.fakes.sessions import SessionsBench, key, open_sessions

NOTES, COPY = key("notes"), key("copy")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SessionsBench]:
    async with open_sessions(tmp_path) as bench:
        yield bench


async def exported(bench: SessionsBench, of: SessionKey = NOTES) -> str:
    session = bench.store.find(of)
    assert session is not None
    return (await bench.service.transcripts.export(bench.store, session)).content


def transcript(*entries: dict[str, Any]) -> str:
    """A transcript in which each entry follows the one before."""
    header = {"type": "session", "version": 3, "id": "s1", "timestamp": "2026-11-20T10:00:00.000Z"}
    lines, parent = [header], None
    for number, entry in enumerate(entries, start=1):
        own = {"id": f"e{number}", "parentId": parent, "timestamp": "2026-11-20T10:00:01.000Z"}
        lines.append({**own, **entry})
        parent = f"e{number}"
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines).decode()


def message(role: str, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "message", "message": {"role": role, "content": list(parts), **more}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


async def test_what_goes_out_comes_back_in(bench: SessionsBench) -> None:
    bench.say(NOTES, "one", "two")
    bench.store.append(
        NOTES,
        role="assistant",
        message={"role": "assistant", "content": "noted"},
        kind=MessageKind.NOTE,
        now=bench.clock(),
    )
    bench.store.compact(NOTES, summary="sum", kept_from=2, tokens_before=9, now=bench.clock())
    bench.say(NOTES, "three", "four")
    content = await exported(bench)

    view, left_out = await bench.service.import_transcript(bench.tenant, COPY, content)

    assert left_out == 0
    assert view.session.summary == "sum"
    kinds = [m.kind for m in bench.store.messages(COPY, limit=10)]
    assert kinds == [m.kind for m in bench.store.messages(NOTES, limit=10)]
    limit = 10_000
    assert bench.store.history(COPY, limit_tokens=limit) == bench.store.history(
        NOTES, limit_tokens=limit
    )
    assert bench.tenant.heard() == [(COPY.short, "import")]


async def test_other_readers_find_what_the_format_asks_for(bench: SessionsBench) -> None:
    bench.say(NOTES, "one", "two")
    read = decode_transcript((await exported(bench)).encode().splitlines())
    session = bench.store.find(NOTES)
    assert session is not None
    assert read.header.id == session.id
    assert [entry.type for entry in read.branch()] == ["message", "message"]
    first = read.entries[0].message
    assert first is not None
    assert first["content"] == [text("one")]
    assert isinstance(first["timestamp"], int)
    assert read.entries[1].parent_id == read.entries[0].id


async def test_what_a_model_cannot_take_is_kept_beside_it(bench: SessionsBench) -> None:
    call = {"type": "toolCall", "id": "c1", "name": "look", "arguments": {}}
    content = transcript(
        message("user", text("look")),
        message("assistant", text("I look"), call, provider="stub", usage={"totalTokens": 3}),
        message("toolResult", text("a palm"), toolCallId="c1"),
        message("assistant", call),
        message("assistant", text("A palm")),
        {"type": "model_change", "provider": "stub"},
    )
    await bench.service.import_transcript(bench.tenant, COPY, content)
    assert bench.store.history(COPY, limit_tokens=10_000) == [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": "I look"},
        {"role": "assistant", "content": "A palm"},
    ]
    again = decode_transcript((await exported(bench, COPY)).encode().splitlines())
    said = [entry.message for entry in again.entries]
    assert [one["role"] for one in said if one] == [
        "user", "assistant", "toolResult", "assistant", "assistant",
    ]  # fmt: skip
    assert said[1] is not None
    assert said[1]["content"] == [text("I look"), call]
    assert said[1]["usage"] == {"totalTokens": 3}


async def test_only_the_branch_that_stands_is_taken(bench: SessionsBench) -> None:
    content = transcript(
        message("user", text("first try")), {**message("user", text("second")), "parentId": None}
    )
    _, left_out = await bench.service.import_transcript(bench.tenant, COPY, content)
    assert bench.kept(COPY) == [("user", "second")]
    assert left_out == 1


async def test_nothing_is_overwritten_unasked(bench: SessionsBench) -> None:
    bench.say(NOTES, "mine", "yours")
    before = bench.store.find(NOTES)
    assert before is not None
    content = transcript(message("user", text("new")))
    with pytest.raises(AlreadyExists, match="replace:true"):
        await bench.service.import_transcript(bench.tenant, NOTES, content)
    assert len(bench.kept(NOTES)) == 2
    await bench.service.import_transcript(bench.tenant, NOTES, content, replace=True)
    assert bench.kept(NOTES) == [("user", "new")]
    assert len(bench.store.messages(before.id, limit=10)) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "line 1"),
        ("{}\n", "line 1"),
        (transcript({"type": "message", "message": {"role": 1}}), "line 2"),
        (transcript(message("user", text("a"))) + '{"type": 5}\n', "line 3"),
        ('{"type":"session","id":"s"}\n\x00garbage\n{}\n', "line 2"),
        ("\ud800", "surrogate"),
    ],
)
async def test_a_file_that_is_none_changes_nothing(
    bench: SessionsBench, content: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        await bench.service.import_transcript(bench.tenant, COPY, content)
    assert bench.store.find(COPY) is None


async def test_a_label_in_use_is_refused_before_anything_is_made(bench: SessionsBench) -> None:
    await bench.service.create(bench.tenant, key=NOTES, label="Notes")
    content = transcript(message("user", text("a")))
    with pytest.raises(AlreadyExists, match="label already in use"):
        await bench.service.import_transcript(bench.tenant, COPY, content, label="Notes")
    assert bench.store.find(COPY) is None


async def test_there_is_a_limit_in_both_directions(
    bench: SessionsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.say(NOTES, "x" * 3000)
    content = await exported(bench)
    monkeypatch.setattr(session_export, "MOST_BYTES", 2000)
    with pytest.raises(TooLarge, match="2000"):
        await exported(bench)
    with pytest.raises(TooLarge, match="2000"):
        await bench.service.import_transcript(bench.tenant, COPY, content)
    monkeypatch.setattr(session_export, "MOST_BYTES", 10_000)
    monkeypatch.setattr(session_export, "MOST_LINES", 1)
    with pytest.raises(TooLarge, match="1 messages"):
        await bench.service.import_transcript(bench.tenant, COPY, content)


async def test_an_import_that_is_broken_off_leaves_nothing(bench: SessionsBench) -> None:
    content = transcript(*(message("user", text(str(n))) for n in range(250)))
    planned = await bench.service.transcripts.read(content)
    with trio.CancelScope() as scope:
        scope.cancel()
        await bench.service.transcripts.write(bench.store, COPY, planned, anew=False)
    assert scope.cancelled_caught
    assert bench.store.find(COPY) is None


async def test_times_survive_unless_they_make_no_sense(bench: SessionsBench) -> None:
    entries = [message("user", text("a")), message("user", text("b"))]
    entries[1]["timestamp"] = "99999-01-01"
    await bench.service.import_transcript(bench.tenant, COPY, transcript(*entries))
    first, second = bench.store.messages(COPY, limit=10)
    assert f"{first.created_at:%Y-%m-%dT%H:%M:%S}" == "2026-11-20T10:00:01"
    assert second.created_at == bench.clock()
    session = bench.store.find(COPY)
    assert session is not None
    assert session.updated_at == bench.clock()
