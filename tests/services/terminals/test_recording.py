"""What terminals say is written down, in order, in bounds, and to its end."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from appliance.model.errors import NotFound, TooLarge
from appliance.model.terminals import Mode
from appliance.services.terminals import recordings as recordings_module
from appliance.services.terminals.recordings import PIECE
from appliance.storage.recordings import RecordingStore
from tests.fakes.awake import someone
from tests.fakes.sandboxes import Script
from tests.services.tenancy import Tenancy
from tests.services.terminal_bench import OPERATOR, TerminalBench, open_bench


@pytest.fixture
async def bench(tenancy: Tenancy) -> AsyncIterator[TerminalBench]:
    async with open_bench(tenancy) as opened:
        opened.tenant.settle(record=True)
        yield opened


@dataclass
class Cast:
    header: dict[str, Any]
    events: list[tuple[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def output(self) -> str:
        return "".join(data for code, data in self.events if code == "o")

    @property
    def markers(self) -> list[str]:
        return [data for code, data in self.events if code == "m"]


async def cast(bench: TerminalBench, place: int = 0) -> Cast:
    """A recording, the newest first."""
    listed = await bench.recordings.list("acme")
    lines = (await bench.recordings.whole("acme", listed[place].id)).splitlines()
    found = Cast(json.loads(lines[0]))
    for line in lines[1:]:
        seconds, code, data = json.loads(line)
        found.events.append((code, data))
        found.times.append(seconds)
    return found


async def test_a_terminal_is_recorded_from_its_first_word_to_its_end(bench: TerminalBench) -> None:
    client = bench.connect()
    terminal, sandbox = await bench.spawn(client, title="work")
    assert terminal.is_recorded
    await sandbox.say("hé\x1b[1m€".encode())
    await trio.sleep(0.05)
    bench.terminals.resize(bench.tenant, client.caller, client, terminal.id, columns=99, rows=33)
    bench.write(client, terminal, "typed")
    await trio.sleep(0.05)
    await bench.terminals.close(bench.tenant, client.caller, terminal.id)

    found = await cast(bench)
    assert found.header["version"] == 2
    assert (found.header["width"], found.header["height"]) == (80, 24)
    assert found.header["title"] == "work"
    assert found.events == [
        ("o", "hé\x1b[1m€"),
        ("r", "99x33"),
        ("o", "typed"),  # the echo: what was typed itself is not recorded
        ("m", "end: closed"),
    ]
    assert found.times == sorted(found.times)
    (listed,) = await bench.recordings.list("acme")
    assert listed.ended == "closed"
    assert listed.seconds == found.times[-1]


async def test_nothing_is_recorded_unless_the_settings_say_so(bench: TerminalBench) -> None:
    for settings in ({"record": False}, {"record": True, "recordings_kept": 0}):
        bench.tenant.settle(**settings)
        terminal, _ = await bench.spawn(bench.connect(), Script(output=b"x"))
        assert not terminal.is_recorded
        await terminal.ended.wait()

    assert await bench.recordings.list("acme") == []


async def test_a_recording_stops_where_it_may_not_grow(bench: TerminalBench) -> None:
    bench.tenant.settle(max_recording_bytes=100_000)
    client = bench.connect()
    terminal, _ = await bench.spawn(client, Script(output=b"x" * 1_000_000))
    await terminal.ended.wait()

    (listed,) = await bench.recordings.list("acme")
    assert listed.size <= 100_000
    assert listed.ended == "the recording has 100000 bytes"
    assert len(client.text) == 1_000_000  # the terminal went on


async def test_only_the_newest_are_kept(bench: TerminalBench) -> None:
    bench.tenant.settle(recordings_kept=2)
    runs, _ = await bench.spawn(bench.connect())
    for _ in range(4):
        await trio.sleep(0.002)
        terminal, _ = await bench.spawn(bench.connect(), Script(output=b"x"))
        await terminal.ended.wait()

    listed = await bench.recordings.list("acme")
    assert len(listed) == 3
    assert runs.recorder is not None
    assert listed[-1].id == runs.recorder.id  # it runs, so it stays


async def test_a_lost_token_does_not_lose_the_recording(bench: TerminalBench) -> None:
    terminal, sandbox = await bench.spawn(bench.connect())
    await sandbox.say(b"last words")
    await trio.sleep(0.05)
    bench.dead.add("tok_1")
    bench.tenant.jobs[0][1].cancel()
    await terminal.ended.wait()

    found = await cast(bench)
    assert (found.output, found.markers) == ("last words", ["end: revoked"])


async def test_support_leaves_its_mark(bench: TerminalBench) -> None:
    bench.tenant.settle(support="read")
    client, helper = bench.connect(), bench.support()
    terminal, _ = await bench.spawn(client)
    request = await bench.terminals.support.request(
        bench.tenant,
        OPERATOR,
        helper,
        terminal_id=terminal.id,
        mode=Mode.READ,
        reason="x",
        lasts=None,
    )
    await bench.attach(helper, terminal)
    await bench.terminals.support.end(bench.tenant, client.caller, request.id)
    await bench.terminals.close(bench.tenant, client.caller, terminal.id)

    assert (await cast(bench)).markers == [
        "support: helpdesk joined (read)",
        "support: helpdesk left",
        "end: closed",
    ]


async def test_a_disk_without_room_ends_the_recording_and_not_the_terminal(
    bench: TerminalBench,
) -> None:
    bench.tenant.root.room.told(left=2000, refusal=None)
    client = bench.connect()
    terminal, sandbox = await bench.spawn(client)
    for _ in range(5):
        await sandbox.say(b"x" * 1000)
        await trio.sleep(0.05)

    assert not terminal.is_recorded
    assert len(client.text) == 5000
    (listed,) = await bench.recordings.list("acme")
    assert listed.size <= 2000


async def test_a_slow_disk_is_waited_for_a_little(
    bench: TerminalBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.services.terminals.recording.PATIENCE", 0.1)
    going_on = trio.Event()

    def hang(store: RecordingStore, recording_id: str) -> Any:
        trio.from_thread.run(going_on.wait)
        raise OSError("the disk is gone")

    monkeypatch.setattr(RecordingStore, "create", hang)
    client = bench.connect()
    terminal, _ = await bench.spawn(client, Script(output=b"x" * 3_000_000))
    with trio.fail_after(5):
        while len(client.text) < 3_000_000:  # noqa: ASYNC110 - a client tells nobody
            await trio.sleep(0.01)
    assert not terminal.is_recorded
    going_on.set()
    await terminal.ended.wait()


async def test_a_long_recording_is_read_in_whole_lines(bench: TerminalBench) -> None:
    terminal, _ = await bench.spawn(bench.connect(), Script(output=b"y" * (3 * PIECE)))
    await terminal.ended.wait()
    (listed,) = await bench.recordings.list("acme")

    pieces, offset = [], 0
    while piece := await bench.recordings.piece("acme", listed.id, offset):
        assert piece.endswith(b"\n")
        pieces.append(piece)
        offset += len(piece)
    assert b"".join(pieces) == await bench.recordings.whole("acme", listed.id)
    assert len(pieces) >= 3


async def test_one_that_is_too_long_is_not_handed_out_at_once(
    bench: TerminalBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, _ = await bench.spawn(bench.connect(), Script(output=b"y" * 10_000))
    await terminal.ended.wait()
    (listed,) = await bench.recordings.list("acme")
    monkeypatch.setattr(recordings_module, "WHOLE", 1000)

    with pytest.raises(TooLarge, match="piece by piece"):
        await bench.recordings.whole("acme", listed.id)


async def test_removing_one_is_audited(bench: TerminalBench) -> None:
    terminal, _ = await bench.spawn(bench.connect(), Script(output=b"x"))
    await terminal.ended.wait()
    (listed,) = await bench.recordings.list("acme")
    await bench.recordings.delete(someone("acme"), "acme", listed.id)

    assert bench.audit.actions[-1]["action"] == "terminal.recording.delete"
    assert await bench.recordings.list("acme") == []
    with pytest.raises(NotFound):
        await bench.recordings.delete(someone("acme"), "acme", listed.id)
    assert bench.audit.names.count("terminal.recording.delete") == 1


async def test_with_consent_an_operator_may_see_what_was_recorded(bench: TerminalBench) -> None:
    bench.tenant.settle(support="read")
    helper = bench.support()
    bench.terminals.require_recordings(someone("acme"), "acme")
    await bench.terminals.support.request(
        bench.tenant, OPERATOR, helper, terminal_id=None, mode=Mode.READ, reason="x", lasts=None
    )

    bench.terminals.require_recordings(OPERATOR, "acme")
