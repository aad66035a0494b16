"""Nothing that needs approval is done without it, and an approval is for one thing only."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.model.errors import (
    AlreadyExists,
    AuditUnavailable,
    InvalidRequest,
    NotFound,
    RateLimited,
)
from appliance.model.exec_policy import Ask, ExecOrder, Security
from appliance.model.operator_scopes import OperatorScope, Role
from appliance.services.approvals.events import shown
from appliance.services.approvals.pending import (
    MOST_OF_CLIENTS,
    MOST_PENDING,
    ApprovalAnswered,
    Decision,
    Ended,
    Question,
)
from appliance.services.approvals.policy import AgentRules
from appliance.services.events import Audience
from appliance.services.tools.base import Effect, ToolFailed
from tests.fakes.tenants import CALLER
from tests.services.approving import ApprovalBench, open_approvals, order

QUESTION = Question(kind="exec", subject="rm x", digest="d1", agent="main", allows_always=True)
LISTED = {"security": "allowlist", "ask": "on-miss", "allowlist": ["ls"]}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ApprovalBench]:
    # Reading the file in a thread would let a clock jump that jumps; it is read before.
    async with open_approvals(tmp_path) as made:
        await made.approvals.policy.rules(made.tenant, "main")
        yield made


async def _asked(bench: ApprovalBench, nursery: trio.Nursery, **more: Any) -> str:
    """Put a question in the background; return its id once it waits."""

    async def ask() -> None:
        await bench.approvals.ask(bench.tenant, QUESTION, limit=more.get("limit", 60))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    return str(bench.heard("requested")[-1]["id"])


# -- asking and answering ------------------------------------------------------


async def test_whoever_may_approve_is_asked_and_the_answer_is_told(bench: ApprovalBench) -> None:
    bench.connect()
    bench.always(Decision.ALLOW_ONCE)

    pending = await bench.approvals.ask(bench.tenant, QUESTION, limit=60)

    assert pending.is_allowed
    assert pending.why is Ended.ANSWERED
    (requested,), (resolved,) = bench.heard("requested"), bench.heard("resolved")
    assert requested["expiresAtMs"] - requested["createdAtMs"] == 60_000
    assert requested["request"]["command"] == "rm x"
    assert requested["request"]["host"] == "sandbox"
    assert requested["request"]["allowedDecisions"] == ["allow-once", "allow-always", "deny"]
    assert resolved["id"] == requested["id"] == pending.id
    assert (resolved["decision"], resolved["resolvedBy"]) == ("allow-once", "Ada")
    assert {event.audience for event in bench.events} == {Audience.APPROVERS}
    assert len(bench.tenant.state.approvals) == 0


async def test_an_answer_is_on_the_audit_log(bench: ApprovalBench) -> None:
    bench.connect()
    bench.always(Decision.DENY)

    pending = await bench.approvals.ask(bench.tenant, QUESTION, limit=60)

    (line,) = bench.audit.actions
    assert (line["action"], line["target"], line["by"]) == ("approval", pending.id, "tok_1")
    assert line["details"]["decision"] == "deny"
    assert "rm x" not in str(line), "a command may hold a secret"


async def test_an_answer_that_cannot_be_audited_is_none(bench: ApprovalBench) -> None:
    bench.connect()
    async with trio.open_nursery() as nursery:
        asked = await _asked(bench, nursery)
        bench.audit.broken = True
        with pytest.raises(AuditUnavailable):
            await bench.answer(asked, Decision.ALLOW_ONCE)
        bench.audit.broken = False

        assert (await bench.answer(asked, Decision.DENY)).decision is Decision.DENY


async def test_the_first_answer_counts(bench: ApprovalBench) -> None:
    bench.connect()
    async with trio.open_nursery() as nursery:
        asked = await _asked(bench, nursery)
        await bench.answer(asked, Decision.DENY)

        assert (await bench.answer(asked, Decision.DENY)).decision is Decision.DENY
        with pytest.raises(ApprovalAnswered, match="already resolved: deny"):
            await bench.answer(asked, Decision.ALLOW_ONCE)
    assert len(bench.heard("resolved")) == 1


async def test_of_two_answers_at_once_one_is_told_so(bench: ApprovalBench) -> None:
    bench.connect()
    told: list[str] = []

    async def answer(asked: str, decision: Decision) -> None:
        try:
            await bench.answer(asked, decision)
        except ApprovalAnswered as refusal:
            told.append(refusal.detail)

    async with trio.open_nursery() as nursery:
        asked = await _asked(bench, nursery)
        nursery.start_soon(answer, asked, Decision.ALLOW_ONCE)
        nursery.start_soon(answer, asked, Decision.DENY)
    assert len(told) == 1
    assert len(bench.heard("resolved")) == 1


async def test_who_does_not_answer_has_not_agreed(
    bench: ApprovalBench, autojump_clock: MockClock
) -> None:
    bench.connect()
    began = trio.current_time()

    pending = await bench.approvals.ask(bench.tenant, QUESTION, limit=60)

    assert trio.current_time() - began == 60
    assert not pending.is_allowed
    assert pending.why is Ended.TIMED_OUT
    assert bench.heard("resolved")[0]["decision"] == "deny"
    assert bench.audit.actions[0]["details"]["reason"] == "timeout"
    with pytest.raises(ApprovalAnswered, match="expired"):
        await bench.answer(pending.id, Decision.ALLOW_ONCE)


@pytest.mark.parametrize(
    "client",
    [
        None,
        {"scopes": frozenset({OperatorScope.READ, OperatorScope.WRITE})},
        {"role": Role.NODE, "node_id": "phone"},
    ],
)
async def test_where_nobody_may_approve_nobody_is_waited_for(
    bench: ApprovalBench, autojump_clock: MockClock, client: dict[str, Any] | None
) -> None:
    if client is not None:
        bench.connect(**client)
    began = trio.current_time()

    pending = await bench.approvals.ask(bench.tenant, QUESTION, limit=60)

    assert pending.why is Ended.NO_ROUTE
    assert trio.current_time() == began
    assert bench.events == []


async def test_whoever_no_longer_wants_to_know_takes_the_question_back(
    bench: ApprovalBench,
) -> None:
    bench.connect()
    async with trio.open_nursery() as nursery:
        asked = await _asked(bench, nursery)
        nursery.cancel_scope.cancel()

    assert bench.approvals.waiting(bench.tenant) == []
    assert bench.heard("resolved")[0]["reason"] == "cancelled"
    with pytest.raises(ApprovalAnswered):
        await bench.answer(asked, Decision.ALLOW_ONCE)


async def test_nothing_that_waited_survives_a_restart(bench: ApprovalBench) -> None:
    bench.connect()
    async with trio.open_nursery() as nursery:
        asked = await _asked(bench, nursery)
        nursery.cancel_scope.cancel()
    bench.tenant.state = type(bench.tenant.state)()

    with pytest.raises(NotFound, match="unknown approval id"):
        await bench.answer(asked, Decision.ALLOW_ONCE)


async def test_too_many_questions_are_refused(bench: ApprovalBench) -> None:
    bench.connect()
    async with trio.open_nursery() as nursery:
        for _ in range(MOST_PENDING):
            nursery.start_soon(_ask_quietly, bench)
        await wait_all_tasks_blocked()
        assert len(bench.approvals.waiting(bench.tenant)) == MOST_PENDING

        with pytest.raises(RateLimited):
            await bench.approvals.ask(bench.tenant, QUESTION, limit=60)
        nursery.cancel_scope.cancel()


async def _ask_quietly(bench: ApprovalBench) -> None:
    await bench.approvals.ask(bench.tenant, QUESTION, limit=60)


async def test_an_unknown_question_cannot_be_answered(bench: ApprovalBench) -> None:
    with pytest.raises(NotFound, match="unknown approval id"):
        await bench.answer("approval_x", Decision.DENY)


# -- questions of clients ------------------------------------------------------


async def test_a_client_may_go_and_come_back_for_the_answer(bench: ApprovalBench) -> None:
    bench.connect()
    pending = bench.approvals.request(
        bench.tenant, CALLER, QUESTION, limit=60, requester="phone", approval_id="mine"
    )
    await wait_all_tasks_blocked()

    await bench.answer("mine", Decision.ALLOW_ONCE)

    assert bench.tenant.state.approvals.find("mine") is pending
    assert pending.is_allowed


async def test_a_clients_question_ends_with_its_time_and_its_rights(
    bench: ApprovalBench, autojump_clock: MockClock
) -> None:
    bench.connect()

    def ask(name: str, limit: float) -> Any:
        return bench.approvals.request(
            bench.tenant, CALLER, QUESTION, limit=limit, requester="p", approval_id=name
        )

    late, revoked = ask("late", 60), ask("revoked", 600)
    await trio.sleep(61)
    assert late.why is Ended.TIMED_OUT
    await bench.tenant.jobs.revoke(CALLER.credential)
    assert revoked.why is Ended.CANCELLED
    assert bench.approvals.waiting(bench.tenant) == []


async def test_an_id_is_given_once(bench: ApprovalBench) -> None:
    bench.connect()
    given: dict[str, Any] = {"limit": 60, "requester": "phone", "approval_id": "mine"}
    bench.approvals.request(bench.tenant, CALLER, QUESTION, **given)

    with pytest.raises(AlreadyExists, match="already pending"):
        bench.approvals.request(bench.tenant, CALLER, QUESTION, **given)


async def test_clients_leave_room_for_agents(bench: ApprovalBench) -> None:
    bench.connect()
    for _ in range(MOST_OF_CLIENTS):
        bench.approvals.request(bench.tenant, CALLER, QUESTION, limit=60, requester="p")

    with pytest.raises(RateLimited):
        bench.approvals.request(bench.tenant, CALLER, QUESTION, limit=60, requester="p")
    bench.always(Decision.ALLOW_ONCE)
    assert (await bench.approvals.ask(bench.tenant, QUESTION, limit=60)).is_allowed


# -- commands ------------------------------------------------------------------


async def test_a_command_on_the_list_is_not_asked_about(bench: ApprovalBench) -> None:
    bench.configure(**LISTED)
    assert await bench.approvals.require_order(bench.bench.made("exec"), order("ls -l"))
    assert bench.events == []


async def test_a_command_that_is_not_on_the_list_is_asked_about(bench: ApprovalBench) -> None:
    bench.configure(**LISTED)
    bench.connect()
    bench.always(Decision.ALLOW_ONCE)

    asked = order("rm x", environment={"LANG": "C", "A": "1"})
    covered = await bench.approvals.require_order(bench.bench.made("exec"), asked)

    assert not covered
    request = bench.heard("requested")[0]["request"]
    assert request["command"] == "rm x"
    assert request["cwd"] == "/workspace"
    assert request["envKeys"] == ["A", "LANG"]
    assert request["digest"] == asked.digest
    assert (request["agentId"], request["sessionKey"]) == ("main", "agent:main:main")
    assert (request["security"], request["ask"]) == ("allowlist", "on-miss")
    assert "it sets A" in request["reason"]
    assert bench.bench.updates == [f"waiting for approval ({request['reason']})"]


async def test_an_answer_for_once_is_for_once(bench: ApprovalBench) -> None:
    bench.configure(**LISTED)
    bench.connect()
    bench.always(Decision.ALLOW_ONCE)
    for _ in range(2):
        await bench.approvals.require_order(bench.bench.made("exec"), order("rm x"))

    assert len(bench.heard("requested")) == 2


async def test_a_refusal_is_told_to_the_model_and_lasts_for_the_run(bench: ApprovalBench) -> None:
    bench.configure(**LISTED)
    bench.connect()
    bench.always(Decision.DENY)

    with pytest.raises(ToolFailed, match="refused by the user"):
        await bench.approvals.require_order(bench.bench.made("exec"), order("rm x"))
    with pytest.raises(ToolFailed, match="a moment ago"):
        await bench.approvals.require_order(bench.bench.made("exec"), order("rm x"))
    with pytest.raises(ToolFailed, match="refused by the user"):
        await bench.approvals.require_order(bench.bench.made("exec", run_id="r2"), order("rm x"))
    assert len(bench.heard("requested")) == 2


@pytest.mark.parametrize(
    ("fallback", "command", "runs"),
    [
        ("deny", "ls", False),
        ("allowlist", "ls", True),
        ("allowlist", "rm x", False),
        ("full", "rm x", True),
    ],
)
async def test_the_fallback_decides_where_nobody_is_there(
    bench: ApprovalBench, fallback: str, command: str, runs: object
) -> None:
    bench.configure(**LISTED | {"ask": "always", "ask_fallback": fallback})
    call = bench.bench.made("exec")
    if runs:
        await bench.approvals.require_order(call, order(command))
    else:
        with pytest.raises(ToolFailed, match="nobody is connected"):
            await bench.approvals.require_order(call, order(command))


async def test_silence_is_no_fallback(bench: ApprovalBench, autojump_clock: MockClock) -> None:
    bench.configure(**LISTED | {"ask_fallback": "full", "approval_timeout": 30})
    bench.connect()

    with pytest.raises(ToolFailed, match="nobody answered within 30 s"):
        await bench.approvals.require_order(bench.bench.made("exec"), order("rm x"))


async def test_what_is_turned_off_is_not_asked_about(bench: ApprovalBench) -> None:
    bench.configure(security="deny", ask="always")
    bench.connect()
    with pytest.raises(ToolFailed, match="turned off"):
        await bench.approvals.require_order(bench.bench.made("exec"), order("ls"))
    bench.configure(security="allowlist", ask="off")
    with pytest.raises(ToolFailed, match="not in the allow-list"):
        await bench.approvals.require_order(bench.bench.made("exec"), order("ls"))
    assert bench.events == []


async def test_a_call_may_tighten_and_never_loosen(bench: ApprovalBench) -> None:
    call = bench.bench.made("exec")
    bench.configure(security="deny")
    with pytest.raises(ToolFailed):
        await bench.approvals.require_order(call, order(), security=Security.FULL, ask=Ask.OFF)
    bench.configure(security="full")
    with pytest.raises(ToolFailed):
        await bench.approvals.require_order(call, order(), security=Security.DENY)
    with pytest.raises(ToolFailed, match="needs approval"):
        await bench.approvals.require_order(call, order(), ask=Ask.ALWAYS)


async def test_a_path_of_the_tenants_own_makes_names_untrusted(bench: ApprovalBench) -> None:
    bench.bench.configure(
        "  tools: {exec: {security: allowlist, allowlist: [ls]}}\n"
        "  sandbox: {environment: {PATH: '/workspace/bin:/usr/bin'}}\n"
    )
    with pytest.raises(ToolFailed):
        await bench.approvals.require_order(bench.bench.made("exec"), order("ls"))
    await bench.approvals.require_order(bench.bench.made("exec"), order("/usr/bin/ls"))


# -- lasting answers -----------------------------------------------------------


async def test_an_always_covers_the_program_for_that_agent(bench: ApprovalBench) -> None:
    bench.configure(**LISTED)
    bench.connect()
    bench.answers = lambda told: (
        Decision.ALLOW_ALWAYS if told["request"]["agentId"] == "main" else Decision.DENY
    )
    made = bench.bench.made

    await bench.approvals.require_order(made("exec"), order("git log | head -3"))
    await bench.approvals.require_order(made("exec"), order("head x; git push"))
    assert len(bench.heard("requested")) == 1
    with pytest.raises(ToolFailed):
        await bench.approvals.require_order(made("exec", agent="pirate"), order("git log"))

    grants = await bench.approvals.policy.grants(bench.tenant, limit=10)
    assert [(g.pattern, g.agent, g.granted_by, g.use_count) for g in grants] == [
        ("head", "main", "Ada", 1),
        ("git", "main", "Ada", 1),
    ]


async def test_an_always_for_what_is_not_understood_is_for_exactly_that(
    bench: ApprovalBench,
) -> None:
    bench.configure(**LISTED)
    bench.connect()
    bench.always(Decision.ALLOW_ALWAYS)
    loop = order("for x in a; do rm $x; done")
    await bench.approvals.require_order(bench.bench.made("exec"), loop)
    bench.always(Decision.DENY)

    await bench.approvals.require_order(bench.bench.made("exec"), loop)
    for other in (
        order("for x in b; do rm $x; done"),
        order(loop.command, directory="/workspace/x"),
        order(loop.command, environment={"IFS": "x"}),
    ):
        with pytest.raises(ToolFailed):
            await bench.approvals.require_order(bench.bench.made("exec"), other)


async def test_an_always_can_end_and_be_taken_back(bench: ApprovalBench) -> None:
    bench.configure(**LISTED)
    bench.connect()

    async def granted(days: int | None) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                bench.approvals.require_order, bench.bench.made("exec"), order("git log")
            )
            await wait_all_tasks_blocked()
            (waiting,) = bench.approvals.waiting(bench.tenant)
            await bench.answer(waiting.id, Decision.ALLOW_ALWAYS, days=days)

    await granted(2)
    bench.clock.advance(2 * 24 * 3600 - 1)
    await bench.approvals.require_order(bench.bench.made("exec"), order("git log"))
    bench.clock.advance(1)
    await granted(None)

    policy = bench.approvals.policy
    newest = (await policy.grants(bench.tenant, limit=1))[0]
    assert await policy.revoke(bench.tenant, CALLER, newest.id) == "revoked"
    assert await policy.revoke(bench.tenant, CALLER, newest.id) == "already-revoked"
    assert await policy.revoke(bench.tenant, CALLER, "grant_x") == "not-found"
    bench.always(Decision.DENY)
    with pytest.raises(ToolFailed):
        await bench.approvals.require_order(bench.bench.made("exec"), order("git log"))


async def test_an_always_is_not_on_offer_where_every_time_is_asked(bench: ApprovalBench) -> None:
    bench.configure(**LISTED | {"ask": "always", "untrusted": ["exec"]})
    bench.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.approvals.require_order, bench.bench.made("exec"), order("ls"))
        await wait_all_tasks_blocked()
        told = bench.heard("requested")[0]

        assert told["request"]["allowedDecisions"] == ["allow-once", "deny"]
        with pytest.raises(InvalidRequest, match="allow-always is not available"):
            await bench.answer(told["id"], Decision.ALLOW_ALWAYS)
        with pytest.raises(InvalidRequest, match="grantExpiresInDays"):
            await bench.answer(told["id"], Decision.ALLOW_ONCE, days=3)
        await bench.answer(told["id"], Decision.ALLOW_ONCE)


# -- runs that have read what strangers wrote ----------------------------------


async def test_a_tainted_run_asks_even_for_what_is_on_the_list(bench: ApprovalBench) -> None:
    bench.configure(**LISTED | {"untrusted": ["exec"], "ask_fallback": "full"})
    call = bench.bench.made("exec", tainted=True)

    with pytest.raises(ToolFailed, match="strangers"):
        await bench.approvals.require_order(call, order("ls"))
    bench.connect()
    bench.always(Decision.ALLOW_ONCE)
    await bench.approvals.require_order(call, order("ls"))
    assert bench.heard("requested")[0]["request"]["allowedDecisions"] == ["allow-once", "deny"]


async def test_a_session_that_is_guarded_asks_through_the_tool_itself(bench: ApprovalBench) -> None:
    bench.connect()
    bench.always(Decision.ALLOW_ONCE)
    call = bench.bench.made("exec")

    await bench.approvals.require(call, Effect.EXECUTE, {"command": "ls"})
    assert bench.events == []
    await bench.approvals.require_order(call, order("ls"))
    await bench.approvals.require_order(call, order("ls"))
    assert len(bench.heard("requested")) == 1


async def test_another_tool_is_agreed_to_with_its_arguments(bench: ApprovalBench) -> None:
    bench.connect()
    bench.always(Decision.ALLOW_ONCE)
    call = bench.bench.made("message", tainted=True)

    await bench.approvals.require(call, Effect.SEND, {"to": "bob", "text": "hi"})
    await bench.approvals.require(call, Effect.SEND, {"text": "hi", "to": "bob"})
    await bench.approvals.require(call, Effect.SEND, {"to": "eve", "text": "hi"})

    one, same, other = (told["request"] for told in bench.heard("requested"))
    assert one["command"] == 'message {"to":"bob","text":"hi"}'
    assert one["kind"] == "tool"
    assert one["digest"] == same["digest"] != other["digest"]
    bench.always(Decision.DENY)
    with pytest.raises(ToolFailed, match="message was refused"):
        await bench.approvals.require(call, Effect.SEND, {"to": "mallory"})


# -- input of running commands -------------------------------------------------


async def test_what_an_approved_command_is_told_is_approved_too(bench: ApprovalBench) -> None:
    bench.configure(**LISTED)
    call = bench.bench.made("process")

    await bench.approvals.require_input(call, order("cat"), "x", is_covered=True)
    with pytest.raises(ToolFailed, match="nobody is connected"):
        await bench.approvals.require_input(call, order("bash"), "rm x", is_covered=False)
    bench.connect()
    bench.always(Decision.ALLOW_ONCE)
    await bench.approvals.require_input(call, order("bash"), "rm x", is_covered=False)
    assert "rm x" in bench.heard("requested")[0]["request"]["command"]
    bench.configure(security="full")
    await bench.approvals.require_input(call, order("bash"), "rm x", is_covered=False)
    assert len(bench.heard("requested")) == 1
    bench.configure(security="deny")
    with pytest.raises(ToolFailed, match="turned off"):
        await bench.approvals.require_input(call, order("cat"), "x", is_covered=True)


# -- what people see -----------------------------------------------------------


def test_nothing_hides_in_what_people_are_shown() -> None:
    assert shown("ls\trm\n\x1b[2Kls\u202ex\x00") == "ls\trm\n\\u{1b}[2Kls\\u{202e}x\\u{0}"
    assert shown("x" * 20_000).endswith("[… and 4000 characters that are not shown]")


async def test_what_is_set_for_the_session_tightens_too(bench: ApprovalBench) -> None:
    call = bench.bench.made("exec")
    call.store.open_session(call.key, now=bench.clock())
    call.store.patch(call.key, settings={"execAsk": "always"}, now=bench.clock())
    with pytest.raises(ToolFailed, match="needs approval"):
        await bench.approvals.require_order(call, order())
    with pytest.raises(ToolFailed, match="needs approval"):
        await bench.approvals.require_input(call, order(), "x", is_covered=True)
    call.store.patch(call.key, settings={"execSecurity": "deny"}, now=bench.clock())
    with pytest.raises(ToolFailed, match="turned off"):
        await bench.approvals.require_order(call, order())


async def test_others_do_not_wait_while_a_long_line_is_compared_with_a_long_list(
    bench: ApprovalBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    judge = AgentRules.judge

    def watched(rules: AgentRules, asked: ExecOrder) -> Any:
        threads.append(threading.get_ident())
        return judge(rules, asked)

    monkeypatch.setattr(AgentRules, "judge", watched)
    patterns = [f"*a*{number}" for number in range(500)]
    bench.configure(security="allowlist", ask="off", allowlist=["ls", *patterns])
    call = bench.bench.made("exec")
    for command in ("ls", "ls;" * 100):
        await bench.approvals.require_order(call, order(command))

    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False]
