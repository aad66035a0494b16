"""What the config says about sessions, applied: keys, resets, who may speak."""

from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from appliance.model.session_scopes import ChatType, Peer
from appliance.services.session_policy import channel_of, gateway_zone
from tests.fakes.sessions import FakeRun, SessionsBench, key, open_sessions

MAIN = key("main")
ANNA = Peer("telegram", "4711")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[SessionsBench]:
    async with open_sessions(tmp_path) as bench:
        yield bench


async def test_direct_messages_are_one_conversation_unless_told_apart(bench: SessionsBench) -> None:
    assert bench.policy.direct_key(bench.tenant, ANNA) == MAIN
    bench.configure("{dm_scope: per-channel-peer, identity_links: {anna: ['telegram:4711']}}")
    assert bench.policy.direct_key(bench.tenant, ANNA).rest == "direct:~anna"
    other = Peer("telegram", "4712")
    assert bench.policy.direct_key(bench.tenant, other).rest == "telegram:direct:4712"


async def test_the_main_session_may_have_another_key(bench: SessionsBench) -> None:
    bench.configure("{main_key: home}")
    assert bench.policy.main_key(bench.tenant) == key("home")
    assert bench.policy.canonical(bench.tenant, MAIN) == key("home")
    assert bench.policy.is_main(bench.tenant, key("home", "pirate"))
    assert not bench.policy.is_main(bench.tenant, key("house"))


async def test_with_a_global_scope_all_is_one_conversation(bench: SessionsBench) -> None:
    bench.configure("{scope: global}")
    group = bench.policy.group_key(
        bench.tenant, channel="irc", chat_type=ChatType.CHANNEL, group="#ops"
    )
    assert {group, bench.policy.direct_key(bench.tenant, ANNA)} == {key("global")}


async def test_a_session_that_is_over_begins_anew_and_says_so(bench: SessionsBench) -> None:
    bench.say(MAIN)
    before = bench.store.find(MAIN)
    same = await bench.policy.resolve(bench.tenant, MAIN, now=bench.clock())
    assert before is not None
    assert same == before
    bench.clock.advance(24 * 3600)

    fresh = await bench.policy.resolve(bench.tenant, MAIN, now=bench.clock())

    assert fresh is not None
    assert fresh.id != before.id
    assert fresh.messages == 0
    assert bench.tenant.heard() == [("agent:main:main", "daily")]
    assert bench.store.find_by_id(before.id) is not None


async def test_nothing_is_reset_under_a_run(bench: SessionsBench) -> None:
    bench.say(MAIN)
    bench.tenant.runs.running.append(FakeRun("run_1", MAIN.short))
    bench.clock.advance(48 * 3600)
    session = await bench.policy.resolve(bench.tenant, MAIN, now=bench.clock())
    assert session is not None
    assert session.messages == 2


async def test_a_session_that_never_was_stays_unmade(bench: SessionsBench) -> None:
    assert await bench.policy.resolve(bench.tenant, MAIN, now=bench.clock()) is None
    assert bench.store.find(MAIN) is None


async def test_jobs_are_not_reset(bench: SessionsBench) -> None:
    bench.say(key("cron:job"))
    bench.clock.advance(48 * 3600)
    session = await bench.policy.resolve(bench.tenant, key("cron:job"), now=bench.clock())
    assert session is not None
    assert session.messages == 2


@pytest.mark.parametrize(
    ("rest", "idle"),
    [
        ("irc:channel:x", 5),
        ("telegram:group:x", 10),
        ("telegram:group:x:topic:1", 20),
        ("main", 40),
    ],
)
async def test_the_most_particular_rule_holds(bench: SessionsBench, rest: str, idle: int) -> None:
    bench.configure(
        "{reset: {mode: idle, idle_minutes: 40},"
        " reset_by_type: {group: {mode: idle, idle_minutes: 10},"
        " thread: {mode: idle, idle_minutes: 20}},"
        " reset_by_channel: {irc: {mode: idle, idle_minutes: 5}}}"
    )
    bench.say(key(rest))
    session = bench.store.find(key(rest))
    assert session is not None
    used = session.last_interaction_at or session.updated_at

    def due(minutes: float) -> str | None:
        assert session is not None
        now = used + timedelta(minutes=minutes)
        return bench.policy.due(bench.tenant, key(rest), session, now=now)

    assert due(idle - 0.1) is None
    assert due(idle) == "idle"


async def test_the_hour_is_that_of_the_configured_zone(bench: SessionsBench) -> None:
    bench.configure("{timezone: Pacific/Auckland}")
    bench.say(MAIN)  # noon in UTC is one at night there
    session = bench.store.find(MAIN)
    assert session is not None
    now = bench.clock()
    assert bench.policy.due(bench.tenant, MAIN, session, now=now + timedelta(hours=2)) is None
    assert bench.policy.due(bench.tenant, MAIN, session, now=now + timedelta(hours=3)) == "daily"


async def test_triggers_begin_a_conversation_anew(bench: SessionsBench) -> None:
    assert bench.policy.reset_trigger(bench.tenant, "/New stub/mock") == "/new"
    assert bench.policy.reset_trigger(bench.tenant, "/newer") is None
    assert bench.policy.reset_trigger(bench.tenant, "  ") is None


async def test_the_first_rule_that_fits_says_who_may_speak(bench: SessionsBench) -> None:
    bench.configure(
        "{send_policy: {default: deny, rules: ["
        "{action: deny, match: {key_prefix: 'agent:main:irc:channel:secret'}},"
        "{action: allow, match: {channel: irc, chat_type: channel}},"
        "{action: allow, match: {key_prefix: 'cron:'}}]}}"
    )
    may = {
        rest: bench.policy.may_send(bench.tenant, key(rest))
        for rest in ("main", "irc:channel:a", "irc:channel:secret1", "irc:group:a", "cron:1")
    }
    assert [rest for rest, allowed in may.items() if allowed] == ["irc:channel:a", "cron:1"]


async def test_what_was_set_for_the_session_itself_comes_first(bench: SessionsBench) -> None:
    bench.store.open_session(MAIN, now=bench.clock())
    session = bench.store.patch(MAIN, settings={"sendPolicy": "deny"}, now=bench.clock())
    assert not bench.policy.may_send(bench.tenant, MAIN, session)
    assert bench.policy.may_send(bench.tenant, MAIN)


async def test_the_last_channel_counts_where_the_key_names_none(bench: SessionsBench) -> None:
    facts = {"lastChannel": "telegram"}
    session = bench.store.open_session(MAIN, now=bench.clock(), facts=facts)
    assert channel_of(MAIN, session) == "telegram"
    assert channel_of(key("irc:group:x"), session) == "irc"
    assert channel_of(MAIN, None) is None


def test_the_gateways_zone_is_that_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert str(gateway_zone()) == "Europe/Berlin"
    monkeypatch.setenv("TZ", "No/Where")
    assert gateway_zone() is not None
    monkeypatch.setattr("appliance.services.session_policy._LOCALTIME", Path("/nonexistent"))
    assert gateway_zone() is UTC
