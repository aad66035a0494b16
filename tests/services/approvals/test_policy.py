"""What an agent may run: the stricter of config and file, the sum of their lists."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.model.errors import AuditUnavailable, InvalidRequest, PreconditionFailed
from appliance.model.exec_policy import Ask, Security, Verdict
from appliance.services.approvals.pending import Pending, Question
from appliance.services.approvals.policy import ApprovalPolicy
from appliance.storage.approvals import (
    MOST_GRANTS,
    AgentPolicy,
    AllowEntry,
    PolicyDefaults,
    PolicyFile,
)
from tests.fakes.tenants import CALLER
from tests.services.approving import ApprovalBench, open_approvals, order


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ApprovalBench]:
    async with open_approvals(tmp_path) as made:
        yield made


def policy_of(bench: ApprovalBench) -> ApprovalPolicy:
    return bench.approvals.policy


def allowing(*patterns: str) -> AgentPolicy:
    return AgentPolicy(allowlist=tuple(AllowEntry(pattern=each) for each in patterns))


async def put(bench: ApprovalBench, file: PolicyFile) -> None:
    current = await policy_of(bench).document(bench.tenant)
    await policy_of(bench).replace(bench.tenant, CALLER, file, base_hash=current.file.hash)


async def test_without_a_file_the_config_decides(bench: ApprovalBench) -> None:
    bench.configure(security="allowlist", ask="on-miss", ask_fallback="allowlist", allowlist=["ls"])

    document = await policy_of(bench).document(bench.tenant)
    rules = (await policy_of(bench).rules(bench.tenant, "main")).rules

    assert not document.exists
    assert document.in_force == rules
    assert (rules.security, rules.ask) == (Security.ALLOWLIST, Ask.ON_MISS)
    assert (rules.fallback, rules.allowlist) == (Security.ALLOWLIST, ("ls",))


async def test_the_stricter_word_holds_and_the_lists_add_up(bench: ApprovalBench) -> None:
    bench.configure(security="allowlist", ask="off", allowlist=["ls"])
    own = AgentPolicy(security="deny", allowlist=(AllowEntry(pattern="cat"),))
    defaults = PolicyDefaults(security="full", ask="always", ask_fallback="full")
    agents = {"pirate": own, "*": allowing("git")}
    await put(bench, PolicyFile(defaults=defaults, agents=agents))

    main = (await policy_of(bench).rules(bench.tenant, "main")).rules
    pirate = (await policy_of(bench).rules(bench.tenant, "pirate")).rules

    assert (main.security, main.ask, main.fallback) == (
        Security.ALLOWLIST,
        Ask.ALWAYS,
        Security.FULL,
    )
    assert main.allowlist == ("ls", "git")
    assert pirate.security is Security.DENY
    assert pirate.allowlist == ("ls", "cat", "git")


async def test_a_file_is_replaced_by_whoever_knows_it(bench: ApprovalBench) -> None:
    policy, tenant = policy_of(bench), bench.tenant
    first = PolicyFile(agents={"*": allowing("git")})
    written = await policy.replace(tenant, CALLER, first, base_hash=None)
    assert written.exists
    assert written.file == first

    with pytest.raises(InvalidRequest, match="base hash required"):
        await policy.replace(tenant, CALLER, PolicyFile(), base_hash=None)
    with pytest.raises(PreconditionFailed, match="changed since last load"):
        await policy.replace(tenant, CALLER, PolicyFile(), base_hash=PolicyFile().hash)
    again = await policy.replace(tenant, CALLER, PolicyFile(), base_hash=first.hash)
    assert again.file == PolicyFile()
    assert [line["action"] for line in bench.audit.actions] == ["approvals.set"] * 2


async def test_what_is_not_audited_is_not_changed(bench: ApprovalBench) -> None:
    bench.audit.broken = True
    with pytest.raises(AuditUnavailable):
        await put(bench, PolicyFile(agents={"*": allowing("git")}))
    assert not (await policy_of(bench).document(bench.tenant)).exists


async def test_it_is_still_there_after_a_restart(bench: ApprovalBench) -> None:
    await put(bench, PolicyFile(agents={"*": allowing("git")}))
    await policy_of(bench).add_grants(bench.tenant, pending(), by="Ada", days=None)
    bench.tenant.state = type(bench.tenant.state)()

    rules = await policy_of(bench).rules(bench.tenant, "main")

    assert rules.rules.allowlist == ("git",)
    assert [grant.pattern for grant in rules.grants] == ["make"]


def pending(*patterns: str) -> Pending:
    question = Question(
        kind="exec", subject="make", digest="d", agent="main", patterns=patterns or ("make",)
    )
    return Pending(id="approval_1", question=question, created_at_ms=0, expires_at_ms=0, deadline=0)


async def test_a_full_list_loses_what_holds_no_more_first(bench: ApprovalBench) -> None:
    policy = policy_of(bench)
    many = pending(*(f"p{n}" for n in range(MOST_GRANTS)))
    await policy.add_grants(bench.tenant, many, by="Ada", days=None)
    revoked = (await policy.grants(bench.tenant, limit=7))[-1]
    await policy.revoke(bench.tenant, CALLER, revoked.id)

    await policy.add_grants(bench.tenant, pending("one", "two"), by="Ada", days=None)

    kept = [grant.pattern for grant in await policy.grants(bench.tenant, limit=1000)]
    assert len(kept) == MOST_GRANTS
    assert kept[:2] == ["two", "one"]
    assert revoked.pattern not in kept
    assert "p0" not in kept
    assert "p1" in kept


async def test_uses_are_counted_and_written_down_with_the_next_change(
    bench: ApprovalBench,
) -> None:
    bench.configure(security="allowlist")
    policy = policy_of(bench)
    await policy.add_grants(bench.tenant, pending(), by="Ada", days=None)
    for _ in range(3):
        judgement, used = (await policy.rules(bench.tenant, "main")).judge(order("make all"))
        assert judgement.verdict is Verdict.RUN
        policy.note_use(bench.tenant, used)

    assert (await policy.grants(bench.tenant, limit=1))[0].use_count == 3
    await policy.add_grants(bench.tenant, pending("other"), by="Ada", days=None)
    bench.tenant.state = type(bench.tenant.state)()
    assert [g.use_count for g in await policy.grants(bench.tenant, limit=9)] == [0, 3]
