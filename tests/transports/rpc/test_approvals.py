"""The shapes of ``exec.approvals.*`` and ``exec.approval.*``, which OpenClaw's clients know."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.model.errors import (
    ForeignSession,
    InvalidRequest,
    ModelUnknown,
    NotFound,
    PreconditionFailed,
)
from appliance.model.operator_scopes import Role
from appliance.services.approvals.pending import Decision, Question
from appliance.services.clients import ClientInfo
from appliance.transports.rpc.approvals import METHODS
from appliance.transports.rpc.dispatch import encode
from appliance.transports.rpc.method import Answer, MethodCall
from appliance.transports.rpc.reading import read_params
from tests.fakes.awake import FakeAwake, FakeClient, someone
from tests.services.approving import ApprovalBench, open_approvals
from tests.transports.rpc.method_calls import Methods

QUESTION = Question(kind="exec", subject="rm x", digest="d1", agent="main", allows_always=True)


class Agents:
    """Knows one."""

    def require(self, _tenant: object, agent: str) -> None:
        if agent != "main":
            raise ModelUnknown(f"unknown agent id {agent!r}")


@dataclass
class RpcBench:
    people: ApprovalBench
    client: FakeClient

    def __post_init__(self) -> None:
        self.services = SimpleNamespace(approvals=self.people.approvals, agents=Agents())
        self._methods = Methods(METHODS, self.services)

    async def call(self, name: str, **params: Any) -> Any:
        tenant = cast("FakeAwake", self.people.tenant)
        return await self._methods.call(tenant, self.client, f"exec.{name}", params)

    async def both(self, name: str, client: FakeClient, **params: Any) -> list[Any]:
        """The answers of a method that replies twice."""
        method = self._methods.methods[f"exec.{name}"]
        early: list[Answer] = []
        call: MethodCall[Any] = MethodCall(
            method,
            read_params(method.params, params, method=method.name),
            client.caller,
            client,
            cast("Any", self.people.tenant),
            cast("Any", self.services),
            early.append,
        )
        assert method.handler is not None
        last = await method.handler(call)
        return [encode(each) for each in (*early, last)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[RpcBench]:
    async with open_approvals(tmp_path) as people:
        await people.approvals.policy.rules(people.tenant, "main")
        yield RpcBench(people, people.connect(info=ClientInfo(id="cli", mode="cli")))


# -- the policy ------------------------------------------------------------------


async def test_without_a_policy_the_file_is_empty_and_the_defaults_hold(bench: RpcBench) -> None:
    bench.client.protocol = 4
    shown = await bench.call("approvals.get")

    assert shown.pop("hash")
    assert shown == {
        "path": "tenant:acme:approvals",
        "exists": False,
        "file": {"version": 1, "defaults": {}, "agents": {}},
        "resolvedDefaults": {
            "security": "full", "ask": "off", "askFallback": "deny", "autoAllowSkills": False,
        },
    }  # fmt: skip
    bench.client.protocol = 3
    assert set(await bench.call("approvals.get")) == {"path", "exists", "hash", "file"}


async def test_a_policy_is_set_as_the_command_line_client_does(bench: RpcBench) -> None:
    shown = await bench.call("approvals.get")
    file = shown["file"]
    file["socket"] = {"path": "/home/ada/.openclaw/sock", "token": "secret"}
    file["agents"] = {"*": {"allowlist": [{"pattern": "/bin/ls", "lastUsedAt": 1795312445635}]}}

    written = await bench.call("approvals.set", file=file, baseHash=shown["hash"])

    assert written["exists"]
    assert written["file"]["agents"]["*"]["allowlist"][0]["pattern"] == "/bin/ls"
    assert "socket" not in written["file"]
    assert await bench.call("approvals.get") == written
    with pytest.raises(PreconditionFailed, match="changed since last load"):
        await bench.call("approvals.set", file=file, baseHash=shown["hash"])
    with pytest.raises(InvalidRequest, match="base hash required"):
        await bench.call("approvals.set", file=file)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ({"version": 2}, "version"),
        ({"defaults": {"security": "some"}}, "security"),
        ({"agents": {"main": {"allowlist": [{"pattern": ""}]}}}, "pattern"),
        ({"agents": {"main": {"allowlist": [{"pattern": "a", "argPattern": "x"}]}}}, "argPattern"),
        ({"agents": {"main": {"mcpTools": []}}}, "mcpTools"),
    ],
)
async def test_what_would_not_be_kept_to_is_not_taken(
    bench: RpcBench, file: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        await bench.call("approvals.set", file=file)
    assert not (await bench.call("approvals.get"))["exists"]


# -- what waits ------------------------------------------------------------------


async def test_whoever_comes_back_finds_what_waits_and_answers(bench: RpcBench) -> None:
    people = bench.people
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            assert (await people.approvals.ask(people.tenant, QUESTION, limit=60)).is_allowed

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        (waiting,) = await bench.call("approval.list")

        assert waiting == people.heard("requested")[0]
        assert set(waiting) == {"id", "request", "createdAtMs", "expiresAtMs"}
        assert await bench.call("approval.get", id=waiting["id"]) == {
            "id": waiting["id"],
            "commandText": "rm x",
            "commandPreview": None,
            "allowedDecisions": ["allow-once", "allow-always", "deny"],
            "host": "sandbox",
            "nodeId": None,
            "agentId": "main",
            "expiresAtMs": waiting["expiresAtMs"],
        }
        resolved = await bench.call(
            "approval.resolve", id=waiting["id"], decision="allow-always", grantExpiresInDays=1
        )
        assert resolved == {"ok": True}

    assert people.heard("resolved")[0]["resolvedBy"] == "cli"
    assert await bench.call("approval.list") == []
    with pytest.raises(NotFound, match="unknown approval id"):
        await bench.call("approval.get", id=waiting["id"])


async def test_what_is_unknown_is_said_so(bench: RpcBench) -> None:
    with pytest.raises(NotFound, match="unknown approval id"):
        await bench.call("approval.resolve", id="x", decision="deny")
    with pytest.raises(NotFound, match="expired or not found"):
        await bench.call("approval.waitDecision", id="x")
    with pytest.raises(InvalidRequest, match="decision"):
        await bench.call("approval.resolve", id="x", decision="maybe")


# -- what clients ask --------------------------------------------------------------


async def test_a_client_asks_and_is_told(bench: RpcBench) -> None:
    bench.people.always(Decision.ALLOW_ONCE)
    answer = await bench.call(
        "approval.request",
        command="ls",
        commandArgv=["ls"],
        env={"B": "1", "A": "2"},
        cwd="/tmp",  # noqa: S108 - of the client's machine
        host="node",
        nodeId="phone",
        sessionKey="agent:main:x",
        timeoutMs=5_000,
        turnSourceChannel="telegram",
    )

    request = bench.people.heard("requested")[0]["request"]
    assert answer["decision"] == "allow-once"
    assert answer["expiresAtMs"] - answer["createdAtMs"] == 5_000
    assert (request["nodeId"], request["host"]) == ("phone", "node")
    assert request["commandArgv"] == ["ls"]
    assert request["envKeys"] == ["A", "B"]
    assert request["sessionKey"] == "agent:main:x"
    assert request["allowedDecisions"] == ["allow-once", "deny"]


async def test_a_client_that_wants_two_answers_gets_them(bench: RpcBench) -> None:
    bench.people.always(Decision.DENY)
    first, last = await bench.both(
        "approval.request", bench.client, id="mine", command="ls", twoPhase=True
    )

    assert b'"status":"accepted","id":"mine"' in first
    assert b'"decision":"deny"' in last
    waited = await bench.call("approval.waitDecision", id="mine")
    assert (waited["id"], waited["decision"]) == ("mine", "deny")


async def test_silence_is_null(bench: RpcBench, autojump_clock: MockClock) -> None:
    assert (await bench.call("approval.request", command="ls"))["decision"] is None
    assert trio.current_time() >= 120


async def test_where_nobody_is_there_the_answer_is_null_at_once(bench: RpcBench) -> None:
    bench.people.tenant.clients.discard(bench.client)
    with trio.fail_after(5):
        assert (await bench.call("approval.request", command="ls"))["decision"] is None


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"command": " "},
        {"command": "ls", "host": "node"},
        {"command": "ls", "agentId": "nobody"},
        {"command": "ls", "sessionKey": "tenant:other:agent:main:x"},
        {"command": "ls", "timeoutMs": 0},
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    bench: RpcBench, params: dict[str, Any]
) -> None:
    with pytest.raises((InvalidRequest, ModelUnknown, ForeignSession)):
        await bench.call("approval.request", **params)
    assert bench.people.events == []


async def test_a_node_waits_for_its_own_questions_only(bench: RpcBench) -> None:
    bench.people.always(Decision.ALLOW_ONCE)

    def node(name: str) -> FakeClient:
        about: dict[str, Any] = {"role": Role.NODE, "scopes": frozenset(), "node_id": name}
        return FakeClient(id=f"conn-{name}", caller=someone("acme"), **about)

    await bench.both("approval.request", node("phone"), id="mine", command="ls")

    assert await bench.both("approval.waitDecision", node("phone"), id="mine")
    with pytest.raises(NotFound, match="expired or not found"):
        await bench.both("approval.waitDecision", node("tablet"), id="mine")


# -- lasting answers ---------------------------------------------------------------


async def test_lasting_answers_are_listed_and_taken_back(bench: RpcBench) -> None:
    people = bench.people
    people.configure(security="allowlist", ask="on-miss")
    people.always(Decision.ALLOW_ALWAYS)
    pending = await people.approvals.ask(people.tenant, QUESTION, limit=60)

    (grant,) = (await bench.call("approval.grants.list"))["grants"]
    assert grant == {
        "grantId": grant["grantId"],
        "mintedByApprovalId": pending.id,
        "agentId": "main",
        "cronJobId": "none",
        "cronJobName": None,
        "command": "rm x",
        "cwd": None,
        "createdAtMs": people.approvals.policy.now_ms(),
        "expiresAtMs": None,
        "revokedAtMs": None,
        "revokedBy": None,
        "lastUsedAtMs": None,
        "useCount": 0,
    }
    assert await bench.call("approval.grants.revoke", grantId=grant["grantId"]) == {
        "outcome": "revoked"
    }
    assert await bench.call("approval.grants.revoke", grantId="x") == {"outcome": "not-found"}
    (grant,) = (await bench.call("approval.grants.list", limit=1))["grants"]
    assert (grant["revokedBy"], grant["revokedAtMs"]) == ("tok_1", grant["createdAtMs"])
