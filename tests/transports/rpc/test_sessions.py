"""``sessions.*`` as a tenant's client calls them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio

from appliance.model.errors import (
    AlreadyExists,
    ForeignSession,
    InvalidRequest,
    NotFound,
    RateLimited,
)
from appliance.services.chat import Message
from appliance.services.session_usage import SessionUsage
from appliance.transports.rpc import (
    sessions,
    sessions_changes,
    sessions_create,
    sessions_results,
    sessions_transcripts,
    sessions_usage,
)
from tests.fakes.awake import FakeAwake, FakeClient, someone
from tests.fakes.sessions import FakeRun, SessionsBench, key, open_sessions
from tests.transports.rpc.method_calls import Methods

METHODS = (
    *sessions.METHODS,
    *sessions_changes.METHODS,
    *sessions_create.METHODS,
    *sessions_transcripts.METHODS,
    *sessions_usage.METHODS,
)
NOTES = "agent:main:notes"


@dataclass
class FakeChat:
    refusal: Exception | None = None
    sent: list[Message] = field(default_factory=list)
    acknowledged: int = 0

    async def send(
        self, tenant: object, caller: object, message: Message, *, acknowledge: Any
    ) -> Any:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(message)
        taken = SimpleNamespace(run_id=message.idempotency_key, status="started")
        acknowledge(taken)
        self.acknowledged += 1
        return taken


@dataclass
class Bench:
    sessions: SessionsBench
    methods: Methods
    client: FakeClient
    chat: FakeChat

    async def call(self, name: str, **params: Any) -> Any:
        """The answer, which is what the method says it returns."""
        tenant = cast("FakeAwake", self.sessions.tenant)
        answer = await self.methods.call(tenant, self.client, name, params)
        msgspec.convert(answer, self.methods.methods[name].result)
        return answer


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_sessions(tmp_path) as made:
        chat = FakeChat()
        services = SimpleNamespace(
            sessions=made.service,
            session_usage=SessionUsage(currency=lambda: "USD"),
            chat=chat,
            clock=made.clock,
        )
        client = FakeClient(id="conn_1", caller=someone("acme"))
        yield Bench(made, Methods(METHODS, services), client, chat)


async def test_a_row_has_what_clients_of_both_generations_read(bench: Bench) -> None:
    bench.sessions.say(key("notes"), "What is this?", "A note")
    bench.sessions.tenant.runs.running.append(
        FakeRun("run_9", NOTES, started_at=bench.sessions.clock())
    )
    answer = await bench.call("sessions.list", includeDerivedTitles=True, includeLastMessage=True)
    (row,) = answer["sessions"]
    expected = {
        "key": NOTES,
        "kind": "direct",
        "displayName": NOTES,
        "derivedTitle": "What is this?",
        "lastMessagePreview": "A note",
        "systemSent": True,
        "inputTokens": 10,
        "outputTokens": 5,
        "totalTokens": 15,
        "totalTokensFresh": True,
        "modelProvider": "stub",
        "model": "mock",
        "contextTokens": 8000,
        "chatType": "direct",
        "abortedLastRun": False,
        "agentId": "main",
        "visibility": "shared",
        "archived": False,
        "pinned": False,
        "unread": False,
        "isMain": False,
        "status": "running",
        "hasActiveRun": True,
        "activeRunIds": ["run_9"],
    }
    assert {name: row[name] for name in expected} == expected
    assert {name: answer[name] for name in ("count", "totalCount", "hasMore", "nextOffset")} == {
        "count": 1,
        "totalCount": 1,
        "hasMore": False,
        "nextOffset": None,
    }
    assert answer["defaults"] == {"modelProvider": "stub", "model": "mock", "contextTokens": 8000}
    assert datetime.fromtimestamp(row["updatedAt"] / 1000, UTC) == bench.sessions.clock()
    assert "/" not in answer["path"].removeprefix("sessions/")


async def test_a_finished_run_says_how_it_ended(bench: Bench) -> None:
    bench.sessions.say(key("notes"))
    row = (await bench.call("sessions.describe", key="notes"))["session"]
    assert (row["status"], row["runtimeMs"]) == ("done", 60_000)
    assert await bench.call("sessions.describe", key="nothing") == {"session": None}


async def test_previews_come_in_the_order_asked_for(bench: Bench) -> None:
    bench.sessions.say(key("notes"), "one", "two")
    await bench.call("sessions.create", key="empty")
    answer = await bench.call("sessions.preview", keys=["empty", NOTES, "none"])
    assert answer["previews"] == [
        {"key": "empty", "status": "empty", "items": []},
        {
            "key": NOTES,
            "status": "ok",
            "items": [{"role": "user", "text": "one"}, {"role": "assistant", "text": "two"}],
        },
        {"key": "none", "status": "missing", "items": []},
    ]
    with pytest.raises(InvalidRequest, match="keys"):
        await bench.call("sessions.preview", keys=["x"] * 65)


FOREIGN: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
    ("sessions.list", lambda k: {"spawnedBy": k}),
    ("sessions.preview", lambda k: {"keys": ["notes", k]}),
    ("sessions.get", lambda k: {"key": k}),
    ("sessions.get", lambda k: {"sessionKey": k}),
    ("sessions.describe", lambda k: {"key": k}),
    ("sessions.resolve", lambda k: {"key": k, "allowMissing": True}),
    ("sessions.resolve", lambda k: {"reference": {"key": k}}),
    ("sessions.resolve", lambda k: {"label": "x", "spawnedBy": k, "allowMissing": True}),
    ("sessions.search", lambda k: {"query": "x", "sessionKeys": [k]}),
    ("sessions.search", lambda k: {"query": "x", "scope": {"spawnedBy": k}}),
    ("sessions.subscribe", lambda k: {"spawnedBy": k}),
    ("sessions.messages.subscribe", lambda k: {"key": k}),
    ("sessions.messages.unsubscribe", lambda k: {"key": k}),
    ("sessions.create", lambda k: {"key": k}),
    ("sessions.create", lambda k: {"parentSessionKey": k}),
    ("sessions.patch", lambda k: {"key": k}),
    ("sessions.patch", lambda k: {"key": "subagent:1", "spawnedBy": k}),
    ("sessions.patch", lambda k: {"key": "subagent:1", "completionOwnerSessionKey": k}),
    ("sessions.reset", lambda k: {"key": k}),
    ("sessions.delete", lambda k: {"key": k}),
    ("sessions.compact", lambda k: {"key": k, "maxLines": 1}),
    ("sessions.cleanup", lambda k: {"activeKey": k}),
    ("sessions.export", lambda k: {"key": k}),
    ("sessions.import", lambda k: {"key": k, "content": ""}),
    ("sessions.usage", lambda k: {"key": k}),
    ("sessions.usage.timeseries", lambda k: {"key": k}),
    ("sessions.usage.logs", lambda k: {"key": k}),
]


@pytest.mark.parametrize(("name", "params"), FOREIGN)
@pytest.mark.parametrize("owner", ["tenant:other:", "tenant:acme:tenant:other:"])
async def test_another_tenants_key_is_refused_whatever_it_names(
    bench: Bench, name: str, params: Callable[[str], dict[str, Any]], owner: str
) -> None:
    details = set()
    for rest in ("agent:main:main", "agent:main:nothing"):
        with pytest.raises(ForeignSession) as caught:
            await bench.call(name, **params(owner + rest))
        details.add(caught.value.detail)
    assert len(details) == 1
    assert bench.sessions.tenant.heard() == []


async def test_a_key_of_another_agent_than_named_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="agentId"):
        await bench.call("sessions.patch", key=NOTES, agentId="pirate")
    with pytest.raises(InvalidRequest, match="agentId"):
        await bench.call("sessions.patch", key="notes", agentId="a:b")
    answer = await bench.call("sessions.patch", key="notes", agentId="pirate", color="red")
    assert answer["key"] == "agent:pirate:notes"


async def test_a_session_is_resolved_or_it_is_not(bench: Bench) -> None:
    made = await bench.call("sessions.create", key="notes", label="Notes")
    found = {"ok": True, "key": NOTES, "agentId": "main", "displayName": "Notes"}
    assert await bench.call("sessions.resolve", label="Notes") == found
    assert await bench.call("sessions.resolve", sessionId=made["sessionId"]) == found
    assert await bench.call("sessions.resolve", key="x", allowMissing=True) == {"ok": False}
    with pytest.raises(InvalidRequest, match="No session found: x"):
        await bench.call("sessions.resolve", key="x")
    await bench.call("sessions.create", key="more")
    several = await bench.call("sessions.resolve", shortId="ses_")
    assert not several["ok"]
    assert len(several["candidates"]) == 2


async def test_messages_are_read_with_their_places(bench: Bench) -> None:
    bench.sessions.say(key("notes"), "one", "two")
    (message,) = (await bench.call("sessions.get", key="notes", limit=1))["messages"]
    assert message["content"] == [{"type": "text", "text": "two"}]
    assert message["__openclaw"]["seq"] == 2
    assert await bench.call("sessions.get", sessionKey="none") == {"messages": []}
    with pytest.raises(InvalidRequest):
        await bench.call("sessions.get")


async def test_a_patch_answers_with_the_entry_and_the_model(bench: Bench) -> None:
    answer = await bench.call(
        "sessions.patch",
        key="notes",
        label="Notes",
        model="fast",
        thinkingLevel="high",
        pinned=True,
    )
    assert answer["resolved"] == {"modelProvider": "spare", "model": "quick"}
    assert answer["entry"]["label"] == "Notes"
    assert answer["entry"]["thinkingLevel"] == "high"
    assert answer["entry"]["modelOverride"] == "fast"
    cleared = await bench.call("sessions.patch", key="notes", model=None, label=None, pinned=False)
    assert cleared["resolved"]["model"] == "mock"
    assert not {"label", "modelOverride", "pinned"} & cleared["entry"].keys()


@pytest.mark.parametrize(
    "refused",
    [
        {"sandboxMode": "off"},
        {"nativeRuntimeConsent": "yes"},
        {"expectedLifecycleRevision": "1"},
        {"zzz": 1},
        {"label": ""},
        {"thinkingLevel": "deep"},
    ],
)
async def test_what_cannot_be_set_is_refused_by_name(bench: Bench, refused: Any) -> None:
    (name,) = refused
    with pytest.raises(InvalidRequest, match=name):
        await bench.call("sessions.patch", key="notes", **refused)


async def test_a_reset_and_a_delete_are_told(bench: Bench) -> None:
    bench.sessions.say(key("notes"))
    before = (await bench.call("sessions.describe", key="notes"))["session"]["sessionId"]
    after = await bench.call("sessions.reset", key="notes", reason="new")
    assert after["entry"]["sessionId"] != before
    assert await bench.call("sessions.delete", key="notes") == {
        "ok": True,
        "key": NOTES,
        "deleted": True,
        "archived": [],
    }
    with pytest.raises(InvalidRequest, match="Cannot delete the main session"):
        await bench.call("sessions.delete", key="main")
    assert bench.sessions.tenant.heard() == [(NOTES, "new"), (NOTES, "delete")]


async def test_compacting_tells_what_is_left(bench: Bench) -> None:
    for _ in range(3):
        bench.sessions.say(key("notes"))
    answer = await bench.call("sessions.compact", key="notes", maxLines=2)
    assert (answer["compacted"], answer["kept"]) == (True, 2)
    missing = await bench.call("sessions.compact", key="none")
    assert missing == {
        "ok": True,
        "key": "agent:main:none",
        "compacted": False,
        "reason": "no session",
    }


async def test_cleanup_tells_what_it_would_do(bench: Bench) -> None:
    await bench.call("sessions.create", key="notes")
    answer = await bench.call("sessions.cleanup", fixMissing=True)
    assert (answer["dryRun"], answer["missing"], answer["keys"]) == (True, 1, [NOTES])
    await bench.call("sessions.cleanup", fixMissing=True, enforce=True)
    assert (await bench.call("sessions.list"))["count"] == 0


async def test_a_client_watches_the_list_and_sessions(bench: Bench) -> None:
    assert await bench.call("sessions.subscribe") == {"subscribed": True}
    assert bench.client.watches_sessions
    answer = await bench.call("sessions.subscribe", limit=5)
    assert answer["list"]["count"] == 0
    await bench.call("sessions.unsubscribe")
    assert not bench.client.watches_sessions
    answer = await bench.call("sessions.messages.subscribe", key="notes")
    assert answer == {"subscribed": True, "key": NOTES}
    assert bench.client.watched_sessions == {NOTES}
    await bench.call("sessions.messages.unsubscribe", key="notes")
    assert bench.client.watched_sessions == set()


async def test_a_connection_watches_so_many_and_no_more(bench: Bench) -> None:
    bench.client.watched_sessions |= {f"agent:main:{n}" for n in range(sessions.MOST_WATCHED)}
    with pytest.raises(InvalidRequest, match="watches"):
        await bench.call("sessions.messages.subscribe", key="one-more")


async def test_words_are_found(bench: Bench) -> None:
    bench.sessions.say(key("notes"), "the treasure", "aye")
    bench.sessions.say(key("other"), "the treasure", "no")
    found = await bench.call("sessions.search", query="treasure", sessionKeys=["notes"])
    assert [hit["sessionKey"] for hit in found["results"]] == [NOTES]
    within = await bench.call("sessions.search", query="treasure", scope={"search": "other"})
    assert [hit["sessionKey"] for hit in within["results"]] == ["agent:main:other"]
    none = await bench.call("sessions.search", query="treasure", scope={"search": "zzz"})
    assert none == {"results": []}


async def test_there_are_no_groups(bench: Bench) -> None:
    assert await bench.call("sessions.groups.list") == {"groups": []}


class TestCreating:
    async def test_the_same_request_makes_one_session(self, bench: Bench) -> None:
        one = await bench.call("sessions.create", idempotencyKey="k1", label="Notes")
        again = await bench.call("sessions.create", idempotencyKey="k1", label="Notes")
        assert one["key"] == again["key"]
        with pytest.raises(InvalidRequest, match="idempotencyKey"):
            await bench.call("sessions.create", idempotencyKey="k1", label="Other")

    async def test_a_first_message_is_sent(self, bench: Bench) -> None:
        answer = await bench.call("sessions.create", message="hi", idempotencyKey="k1")
        assert (answer["runStarted"], answer["runId"]) == (True, "k1")
        (message,) = bench.chat.sent
        assert bench.chat.acknowledged == 1
        assert (message.key.short, message.text) == (answer["key"], "hi")

    async def test_the_session_is_there_even_if_its_message_is_refused(self, bench: Bench) -> None:
        bench.chat.refusal = RateLimited("too much", retry_after=1)
        answer = await bench.call("sessions.create", key="notes", message="hi")
        assert not answer["runStarted"]
        assert answer["runError"] == {"code": "RATE_LIMIT_EXCEEDED", "message": "too much"}
        assert (await bench.call("sessions.describe", key="notes"))["session"]

    @pytest.mark.parametrize(
        "asked",
        [
            {"incognito": True},
            {"worktree": True},
            {"cwd": "/srv"},
            {"visibility": "draft"},
            {"fork": True},
            {"agentId": "parrot"},
            {"agentId": "a:b"},
        ],
    )
    async def test_what_there_is_not_here_is_refused_by_name(
        self, bench: Bench, asked: Any
    ) -> None:
        (name,) = asked
        with pytest.raises(InvalidRequest, match=name):
            await bench.call("sessions.create", **asked)


async def test_a_session_goes_out_and_comes_back(bench: Bench) -> None:
    bench.sessions.say(key("notes"), "one", "two")
    out = await bench.call("sessions.export", key="notes")
    assert (out["messages"], out["key"]) == (2, NOTES)
    back = await bench.call("sessions.import", content=out["content"], label="Copy")
    assert (back["messages"], back["leftOut"]) == (2, 0)
    with pytest.raises(AlreadyExists):
        await bench.call("sessions.import", content=out["content"])
    by_id = await bench.call("sessions.export", sessionId=back["sessionId"])
    assert by_id["key"] == back["key"]
    for missing in ({"key": "none"}, {"sessionId": "ses_none"}):
        with pytest.raises(NotFound, match="No session found"):
            await bench.call("sessions.export", **missing)
    with pytest.raises(InvalidRequest, match="one of"):
        await bench.call("sessions.export")


async def test_use_is_told_with_days_that_make_sense(bench: Bench) -> None:
    bench.sessions.say(key("notes"))
    answer = await bench.call("sessions.usage", range="7d")
    assert (answer["startDate"], answer["endDate"]) == ("2026-11-15", "2026-11-21")
    (one,) = answer["sessions"]
    assert one["usage"]["messageCounts"]["user"] == 1
    assert answer["totals"]["totalCost"] == 0
    for wrong in (
        {"startDate": "x"},
        {"startDate": "2026-11-21", "endDate": "2026-11-20"},
        {"mode": "specific", "utcOffset": "UTC+99"},
        {"timeZone": "../etc/passwd"},
    ):
        with pytest.raises(InvalidRequest):
            await bench.call("sessions.usage", **wrong)
    shifted = await bench.call("sessions.usage", mode="specific", utcOffset="UTC+13", range="7d")
    assert shifted["endDate"] == "2026-11-22"


@pytest.mark.parametrize("name", ["sessions.usage.timeseries", "sessions.usage.logs"])
async def test_a_session_that_is_not_there_has_no_use(bench: Bench, name: str) -> None:
    with pytest.raises(NotFound, match="No session found: agent:main:none"):
        await bench.call(name, key="none")
    bench.sessions.say(key("notes"))
    await bench.call(name, key="notes")


async def test_every_method_has_params_and_a_result_that_can_be_described() -> None:
    for method in METHODS:
        msgspec.json.schema(method.params)
        msgspec.json.schema(method.result)
    assert len({method.name for method in METHODS}) == len(METHODS)
    assert sessions_results.SessionRow.__doc__
