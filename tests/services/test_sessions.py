"""Sessions as a tenant's clients make, find, change and end them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.model.errors import (
    AlreadyExists,
    InvalidRequest,
    ModelUnknown,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from appliance.services.session_events import NAME
from appliance.services.session_listing import ListRequest, Reference
from appliance.services.session_settings import THINKING, marks
from appliance.services.session_views import LONGEST_TITLE, SessionView
from appliance.services.subagents import is_tainted
from tests.fakes.sessions import FakeRun, SessionsBench, key, open_sessions
from tests.fakes.tenants import CALLER

MAIN, NOTES, OTHER = key("main"), key("notes"), key("other")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SessionsBench]:
    async with open_sessions(tmp_path) as bench:
        yield bench


async def listed(bench: SessionsBench, **wanted: object) -> list[str]:
    listing = await bench.service.listing.list(bench.tenant, ListRequest(**wanted))  # type: ignore[arg-type]
    return [view.key.rest for view in listing.views]


class TestLists:
    async def test_the_last_used_comes_first(self, bench: SessionsBench) -> None:
        for one in (MAIN, NOTES, OTHER, NOTES):
            bench.say(one)
        assert await listed(bench) == ["notes", "other", "main"]

    async def test_a_page_tells_what_follows_it(self, bench: SessionsBench) -> None:
        for number in range(5):
            bench.say(key(f"n{number}"))
        first = await bench.service.listing.list(bench.tenant, ListRequest(limit=2))
        last = await bench.service.listing.list(bench.tenant, ListRequest(limit=2, offset=4))
        assert (first.total, first.next_offset) == (5, 2)
        assert ([v.key.rest for v in last.views], last.next_offset) == (["n0"], None)

    async def test_conditions_hold_together(self, bench: SessionsBench) -> None:
        for one in (MAIN, NOTES, key("notes", "pirate"), key("cron:1"), key("subagent:1")):
            bench.say(one)
        await bench.service.patch(bench.tenant, NOTES, settings={"pinned": True})
        assert await listed(bench, agent="pirate") == ["notes"]
        assert await listed(bench, search="NOTES", agent="main") == ["notes"]
        assert await listed(bench, pinned=True) == ["notes"]
        assert set(await listed(bench, exclude_cron=True, exclude_subagents=True)) == {
            "main",
            "notes",
        }
        assert "cron:1" not in await listed(bench, exclude_system=True)
        assert await listed(bench, nothing=True) == []

    async def test_filtered_pages_do_not_overlap(self, bench: SessionsBench) -> None:
        for number in range(6):
            bench.say(key(f"n{number}"))
            bench.say(key(f"cron:{number}"))
        pages = [await listed(bench, exclude_cron=True, limit=4, offset=o) for o in (0, 4)]
        assert pages == [["n5", "n4", "n3", "n2"], ["n1", "n0"]]

    async def test_global_and_unknown_are_shown_when_asked_for(self, bench: SessionsBench) -> None:
        for one in (MAIN, key("global"), key("unknown")):
            bench.say(one)
        assert await listed(bench) == ["main"]
        assert await listed(bench, include_global=True) == ["global", "main"]
        assert len(await listed(bench, include_global=True, include_unknown=True)) == 3

    async def test_only_what_was_used_lately(self, bench: SessionsBench) -> None:
        bench.say(NOTES)
        bench.clock.advance(3600)
        bench.say(MAIN)
        assert await listed(bench, active_minutes=30) == ["main"]

    async def test_only_where_something_runs(self, bench: SessionsBench) -> None:
        bench.say(MAIN)
        bench.say(NOTES)
        bench.tenant.runs.running.append(FakeRun("run_1", MAIN.short))
        assert await listed(bench, active_only=True) == ["main"]

    async def test_titles_and_last_words_come_when_asked_for(self, bench: SessionsBench) -> None:
        bench.say(MAIN, "What is " + "very " * 20 + "long?", "An answer")
        request = ListRequest(derived_titles=True, last_messages=True)
        (view,) = (await bench.service.listing.list(bench.tenant, request)).views
        assert view.last_message == "An answer"
        assert view.derived_title is not None
        assert len(view.derived_title) <= LONGEST_TITLE
        assert view.derived_title.startswith("What is very")

    async def test_a_row_names_the_model_that_answers(self, bench: SessionsBench) -> None:
        bench.say(MAIN)
        bench.say(key("x", "pirate"))
        await bench.service.patch(bench.tenant, NOTES, settings={"model": "fast"})
        listing = await bench.service.listing.list(bench.tenant, ListRequest())
        names = {v.key.rest: f"{v.model.provider}/{v.model.model}" for v in listing.views}
        assert names == {"main": "stub/mock", "x": "spare/quick", "notes": "spare/quick"}
        assert listing.defaults.window == 8000


class TestFinding:
    async def find(self, bench: SessionsBench, **named: str) -> list[SessionView]:
        return list(await bench.service.listing.resolve(bench.tenant, Reference(**named)))  # type: ignore[arg-type]

    async def test_by_key_id_label_or_the_beginning_of_the_id(self, bench: SessionsBench) -> None:
        view = await bench.service.create(bench.tenant, key=NOTES, label="My notes")
        session_id = view.session.id
        for reference in (
            Reference(key=NOTES),
            Reference(session_id=session_id),
            Reference(label="My notes"),
            Reference(short_id=session_id.removeprefix("ses_")[:8]),
        ):
            (found,) = await bench.service.listing.resolve(bench.tenant, reference)
            assert found.session.id == session_id

    async def test_by_exactly_one_of_them(self, bench: SessionsBench) -> None:
        for reference in (Reference(), Reference(key=NOTES, label="x")):
            with pytest.raises(InvalidRequest, match="exactly one of"):
                await bench.service.listing.resolve(bench.tenant, reference)

    async def test_what_a_reset_replaced_is_not_found(self, bench: SessionsBench) -> None:
        bench.say(NOTES)
        before = bench.store.find(NOTES)
        assert before is not None
        await bench.service.reset(bench.tenant, NOTES)
        assert await self.find(bench, session_id=before.id) == []


class TestCreating:
    async def test_a_session_gets_a_key_of_its_own(self, bench: SessionsBench) -> None:
        one = await bench.service.create(bench.tenant, agent="pirate")
        other = await bench.service.create(bench.tenant, agent="pirate")
        assert one.key != other.key
        assert one.key.agent == "pirate"
        assert bench.tenant.heard() == [(one.key.short, "create"), (other.key.short, "create")]

    async def test_a_key_that_exists_is_the_same_session(self, bench: SessionsBench) -> None:
        one = await bench.service.create(bench.tenant, key=NOTES)
        again = await bench.service.create(bench.tenant, key=NOTES, settings={"color": "red"})
        assert one.session.id == again.session.id
        assert again.session.settings["color"] == "red"

    async def test_an_agent_that_is_not_there_has_no_sessions(self, bench: SessionsBench) -> None:
        with pytest.raises(InvalidRequest, match="unknown agent id"):
            await bench.service.create(bench.tenant, agent="parrot")

    async def test_a_fork_begins_with_what_was_said(self, bench: SessionsBench) -> None:
        bench.say(NOTES, "one", "two")
        fork = await bench.service.create(bench.tenant, key=OTHER, parent=NOTES, fork=True)
        assert bench.kept(OTHER) == [("user", "one"), ("assistant", "two")]
        assert fork.session.settings["parentSessionKey"] == NOTES.short
        bench.say(OTHER)
        assert len(bench.kept(NOTES)) == 2
        assert not is_tainted(fork.session)
        with pytest.raises(AlreadyExists):
            await bench.service.create(bench.tenant, key=OTHER, parent=NOTES, fork=True)

    async def test_a_fork_holds_what_strangers_wrote_as_well(self, bench: SessionsBench) -> None:
        bench.say(NOTES, "one", "two")
        notes = bench.store.find(NOTES)
        assert notes is not None
        bench.store.note_facts(NOTES, {"untrusted": notes.id}, now=bench.clock())
        fork = await bench.service.create(bench.tenant, key=OTHER, parent=NOTES, fork=True)
        assert is_tainted(fork.session)

    async def test_a_parent_must_be_there(self, bench: SessionsBench) -> None:
        with pytest.raises(NotFound, match="No session found: agent:main:other"):
            await bench.service.create(bench.tenant, key=NOTES, parent=OTHER)
        assert bench.store.find(NOTES) is None


class TestPatching:
    async def test_settings_are_kept_and_null_takes_them_back(self, bench: SessionsBench) -> None:
        await bench.service.patch(
            bench.tenant, NOTES, settings={"thinkingLevel": " High ", "verboseLevel": "on"}
        )
        view = await bench.service.patch(bench.tenant, NOTES, settings={"verboseLevel": None})
        assert dict(view.session.settings) == {"thinkingLevel": "high"}
        assert bench.tenant.heard() == [(NOTES.short, "patch")] * 2

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("thinkingLevel", "deep"),
            ("execAsk", "maybe"),
            ("queueMode", "x"),
            ("attention", "nose"),
            ("statusNote", "x" * 121),
            ("model", "  "),
        ],
    )
    async def test_what_is_not_known_is_refused_by_name(
        self, bench: SessionsBench, name: str, value: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=name):
            await bench.service.patch(bench.tenant, NOTES, settings={name: value})
        assert bench.store.find(NOTES) is None

    async def test_the_levels_people_write_are_understood(self, bench: SessionsBench) -> None:
        settings = {"thinkingLevel": "none", "responseUsage": "on"}
        view = await bench.service.patch(bench.tenant, NOTES, settings=settings)
        assert view.session.settings["thinkingLevel"] == THINKING[0]
        assert view.session.settings["responseUsage"] == "tokens"

    async def test_a_model_must_lead_somewhere(self, bench: SessionsBench) -> None:
        with pytest.raises(ModelUnknown):
            await bench.service.patch(bench.tenant, NOTES, settings={"model": "quick"})
        view = await bench.service.patch(bench.tenant, NOTES, settings={"model": "stub/other"})
        assert (view.model.provider, view.model.model) == ("stub", "other")

    async def test_a_label_names_one_session(self, bench: SessionsBench) -> None:
        await bench.service.patch(bench.tenant, NOTES, label=" Notes ", settings={})
        with pytest.raises(AlreadyExists, match="label already in use: Notes"):
            await bench.service.patch(bench.tenant, OTHER, label="Notes", settings={})
        assert bench.store.find(OTHER) is None
        await bench.service.patch(bench.tenant, NOTES, label=None, settings={})
        await bench.service.patch(bench.tenant, OTHER, label="Notes", settings={})

    async def test_a_change_since_it_was_read_is_noticed(self, bench: SessionsBench) -> None:
        bench.say(NOTES)
        with pytest.raises(PreconditionFailed):
            await bench.service.patch(bench.tenant, NOTES, settings={}, expected_session_id="ses_0")
        with pytest.raises(PreconditionFailed, match="permissionMode"):
            await bench.service.patch(
                bench.tenant, NOTES, settings={}, expected_settings={"permissionMode": "full"}
            )

    async def test_only_a_subagent_was_spawned_and_by_one_only(self, bench: SessionsBench) -> None:
        sub = key("subagent:1")
        with pytest.raises(InvalidRequest, match="subagent"):
            await bench.service.patch(bench.tenant, NOTES, settings={"spawnedBy": MAIN.short})
        await bench.service.patch(bench.tenant, sub, settings={"spawnedBy": MAIN.short})
        with pytest.raises(InvalidRequest, match="cannot be changed"):
            await bench.service.patch(bench.tenant, sub, settings={"spawnedBy": NOTES.short})
        with pytest.raises(InvalidRequest, match="cannot be changed"):
            await bench.service.patch(bench.tenant, sub, settings={"spawnedBy": None})
        assert await listed(bench, spawned_by=MAIN.short) == ["subagent:1"]

    async def test_archived_sessions_are_out_of_the_way(self, bench: SessionsBench) -> None:
        bench.say(NOTES)
        put_away = marks(archived=True, pinned=None, unread=None, now=bench.clock())
        view = await bench.service.patch(bench.tenant, NOTES, settings=put_away)
        assert view.session.settings["archivedAt"]
        assert await listed(bench) == []
        assert await listed(bench, archived=True) == ["notes"]
        back = marks(archived=False, pinned=None, unread=None, now=bench.clock())
        await bench.service.patch(bench.tenant, NOTES, settings=back)
        assert await listed(bench) == ["notes"]
        with pytest.raises(InvalidRequest, match="main session"):
            await bench.service.patch(bench.tenant, MAIN, settings=put_away)


class TestEnding:
    async def test_a_reset_keeps_label_and_settings_and_nothing_said(
        self, bench: SessionsBench
    ) -> None:
        bench.say(NOTES)
        before = await bench.service.patch(
            bench.tenant, NOTES, label="Notes", settings={"thinkingLevel": "low"}
        )
        after = await bench.service.reset(bench.tenant, NOTES, reason="new")
        assert after.session.id != before.session.id
        assert (after.session.label, after.session.messages) == ("Notes", 0)
        assert after.session.settings["thinkingLevel"] == "low"
        assert bench.tenant.heard()[-1] == (NOTES.short, "new")

    async def test_runs_are_stopped_first_but_for_the_commands_own(
        self, bench: SessionsBench
    ) -> None:
        bench.say(NOTES)
        busy, own = FakeRun("run_1", NOTES.short), FakeRun("run_2", NOTES.short)
        bench.tenant.runs.running += [busy, own]
        await bench.service.reset(bench.tenant, NOTES, spare_run="run_2")
        assert (busy.cancelled, own.cancelled) == (True, False)

    async def test_a_run_that_does_not_end_keeps_its_session(
        self, bench: SessionsBench, autojump_clock: MockClock
    ) -> None:
        bench.say(NOTES)
        bench.tenant.runs.running.append(FakeRun("run_1", NOTES.short, ends=False))
        with trio.fail_after(60), pytest.raises(Unavailable):
            await bench.service.delete(bench.tenant, NOTES)
        assert bench.store.find(NOTES) is not None

    async def test_the_main_session_stays(self, bench: SessionsBench) -> None:
        bench.configure("{main_key: home}")
        for one in (MAIN, key("home")):
            with pytest.raises(InvalidRequest) as caught:
                await bench.service.delete(bench.tenant, one)
            assert caught.value.detail == "Cannot delete the main session (agent:main:home)."

    async def test_a_deleted_session_is_gone_for_good(self, bench: SessionsBench) -> None:
        bench.say(NOTES)
        session = bench.store.find(NOTES)
        assert session is not None
        done = await bench.service.delete(bench.tenant, NOTES)
        assert (done.deleted, done.archived) == (True, ())
        assert bench.store.find_by_id(session.id) is None
        assert bench.tenant.heard()[-1] == (NOTES.short, "delete")
        assert bench.tenant.told[-1].name == NAME
        assert not (await bench.service.delete(bench.tenant, NOTES)).deleted

    async def test_its_transcript_can_be_kept(self, bench: SessionsBench) -> None:
        bench.say(NOTES)
        done = await bench.service.delete(bench.tenant, NOTES, delete_transcript=False)
        assert bench.store.find(NOTES) is None
        assert len(bench.store.messages(done.archived[0], limit=10)) == 2

    async def test_only_what_is_archived_and_as_expected(self, bench: SessionsBench) -> None:
        bench.say(NOTES)
        with pytest.raises(InvalidRequest, match="archivedOnly"):
            await bench.service.delete(bench.tenant, NOTES, archived_only=True)
        with pytest.raises(PreconditionFailed):
            await bench.service.delete(bench.tenant, NOTES, expected_updated_at=1)


class TestCompacting:
    async def test_to_its_newest_lines(self, bench: SessionsBench) -> None:
        for number in range(5):
            bench.say(NOTES, f"q{number}", f"a{number}")
        done = await bench.service.compact(bench.tenant, CALLER, NOTES, max_lines=4)
        assert (done.compacted, done.kept) == (True, 4)
        assert [text for _, text in bench.kept(NOTES)] == ["q3", "a3", "q4", "a4"]
        again = await bench.service.compact(bench.tenant, CALLER, NOTES, max_lines=4)
        assert (again.compacted, again.kept) == (False, 4)

    async def test_by_a_summary_of_the_sessions_own_model(self, bench: SessionsBench) -> None:
        bench.say(NOTES)
        await bench.service.patch(bench.tenant, NOTES, settings={"model": "fast"})
        done = await bench.service.compact(bench.tenant, CALLER, NOTES, instructions="short")
        assert done.compacted
        assert bench.compaction.asked == [(NOTES.short, "short", "fast")]
        bench.compaction.happens = False
        done = await bench.service.compact(bench.tenant, CALLER, NOTES)
        assert (done.compacted, done.reason) == (False, "nothing to compact")

    async def test_nothing_said_is_nothing_to_compact(self, bench: SessionsBench) -> None:
        assert (await bench.service.compact(bench.tenant, CALLER, NOTES)).reason == "no session"
        await bench.service.create(bench.tenant, key=NOTES)
        done = await bench.service.compact(bench.tenant, CALLER, NOTES, max_lines=1)
        assert done.reason == "no transcript"


class TestCleanup:
    async def test_it_tells_before_it_deletes(self, bench: SessionsBench) -> None:
        bench.configure("{max_sessions: 3}")
        for one in (MAIN, key("pinned"), key("active"), key("a"), key("b"), key("c")):
            bench.say(one)
        await bench.service.patch(bench.tenant, key("pinned"), settings={"pinned": True})
        await bench.service.create(bench.tenant, key=key("empty"))
        wanted = {"empty": True, "active": key("active")}
        told = await bench.service.cleanup(bench.tenant, **wanted)  # type: ignore[arg-type]
        assert told.empty == (key("empty").short,)
        assert set(told.surplus) == {key(rest).short for rest in "abc"}
        assert (told.before, told.after, told.applied) == (7, 3, False)
        assert len(await listed(bench)) == 7
        await bench.service.cleanup(bench.tenant, enforce=True, **wanted)  # type: ignore[arg-type]
        assert set(await listed(bench)) == {"main", "pinned", "active"}


async def test_no_more_than_64_previews_at_once(bench: SessionsBench) -> None:
    with pytest.raises(InvalidRequest, match="keys"):
        await bench.service.listing.previews(bench.tenant, [MAIN] * 65, limit=1, max_chars=20)


async def test_words_are_found_where_they_were_said(bench: SessionsBench) -> None:
    bench.say(NOTES, "where is the treasure", "under the palm")
    hits = await bench.service.listing.search(
        bench.tenant, "treasure", agent=None, keys=(), limit=5
    )
    assert [(hit.key, hit.role) for hit in hits] == [(NOTES.short, "user")]
    assert not await bench.service.listing.search(bench.tenant, "  ", agent=None, keys=(), limit=5)
