"""Rules in force for a call: the operator's and the tenant's."""

import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config.loading import parse_config
from appliance.config.overlay import check_overlay, effective
from appliance.config.schema import GatewayConfig
from appliance.model.errors import AdminOnlyKey, ConfigInvalid, GuardrailBlocked, InvalidRequest
from appliance.services.guardrails.rules import Meetings, RuleBook
from appliance.services.guardrails.windows import Watch
from appliance.services.model_calls import CallRequest, OpenCall
from tests.fakes.providers import FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, CONFIG, Exchange, FakeTenant, open_tenant
from tests.fakes.writers import chat_writer


def asking(text: str, **changes: object) -> CallRequest:
    body = {"messages": json.dumps([{"role": "user", "content": text}]).encode()}
    request = CallRequest(
        model="stub/mock", body=body, stream=True, prompt_bytes=len(text), output_limit=20
    )
    return replace(request, **changes)  # type: ignore[arg-type]  # names of its fields


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[FakeTenant]:
    async with open_tenant(tmp_path) as tenant:
        yield tenant


def rule(tenant: FakeTenant, text: str, *, own: bool = False) -> None:
    section = f"guardrails: [{text}]\n"
    config = CONFIG.replace("defaults:\n", f"defaults:\n  {section}") if own else CONFIG + section
    tenant.config = parse_config(config, name="config")


async def ask(
    tenant: FakeTenant, request: CallRequest, *answers: FakeReply
) -> tuple[FakeProvider, OpenCall, bytes]:
    stub = FakeProvider("stub", list(answers) or [FakeReply()])
    async with Exchange(stub, stub).calls.open(tenant, CALLER, request) as call:
        told = await call.reply.whole(chat_writer())
    return stub, call, told


@pytest.mark.parametrize("own", [False, True])
async def test_what_a_request_holds_is_redacted_before_it_leaves(
    tenant: FakeTenant, *, own: bool
) -> None:
    rule(tenant, "{name: pii, pii: [email], action: redact}", own=own)

    stub, call, _ = await ask(tenant, asking("I am ann@example.org"))

    assert b"I am [email]" in stub.calls[0].body["messages"]
    assert call.guarded == [("pii", "redact")]


async def test_what_an_answer_holds_is_redacted_on_its_way(tenant: FakeTenant) -> None:
    rule(tenant, "{name: pii, on: answer, pii: [email], action: redact}")

    stub, _, told = await ask(
        tenant, asking("ann@example.org"), FakeReply(pieces=["to ann@exa", "mple.org."])
    )

    assert b"ann@example.org" in stub.calls[0].body["messages"]
    assert json.loads(told)["choices"][0]["message"]["content"] == "to [email]."
    tenant.assert_settled()


async def test_a_blocked_request_asks_nobody_and_costs_nothing(tenant: FakeTenant) -> None:
    rule(tenant, '{name: no x, deny: ["(?i)project x"]}')

    with pytest.raises(GuardrailBlocked, match="'no x'") as blocked:
        await ask(tenant, asking("what of Project X?"))

    assert "Project" not in blocked.value.detail
    assert tenant.entries() == []


async def test_a_blocked_answer_is_booked(tenant: FakeTenant) -> None:
    rule(tenant, '{name: no x, deny: ["there"]}')

    with pytest.raises(GuardrailBlocked):
        await ask(tenant, asking("hi"))

    assert tenant.entries("outcome") == [("failed",)]
    tenant.assert_settled()


async def test_a_rule_that_flags_changes_nothing(
    tenant: FakeTenant, caplog: pytest.LogCaptureFixture
) -> None:
    rule(tenant, "{name: pii, pii: [email], action: flag}")

    stub, call, _ = await ask(tenant, asking("I am ann@example.org"))

    assert b"ann@example.org" in stub.calls[0].body["messages"]
    assert call.guarded == [("pii", "flag")]
    assert "ann@example.org" not in str([record.__dict__ for record in caplog.records])


async def test_requests_and_answers_have_their_limits(tenant: FakeTenant) -> None:
    rule(tenant, "{name: short, max_input_tokens: 100, max_output_tokens: 5}")

    stub, _, _ = await ask(tenant, asking("hi"))
    with pytest.raises(GuardrailBlocked, match="tokens"):
        await ask(tenant, asking("hi", prompt_bytes=10_000))
    with_none = (await ask(tenant, asking("hi", output_limit=None)))[0]

    assert stub.calls[0].output_limit == 5
    assert with_none.calls[0].output_limit == 5


async def test_several_choices_cannot_be_looked_through(tenant: FakeTenant) -> None:
    rule(tenant, "{name: pii, pii: [email]}")

    with pytest.raises(InvalidRequest, match="n"):
        await ask(tenant, asking("hi", choices=2))


@pytest.mark.parametrize(
    ("patterns", "text", "beside"),
    [
        (0, "x " * 50, False),
        (0, "x " * 20_000, False),
        (0, "x " * 50_000, True),
        (90, "x " * 10_000, True),
        (0, '"' * 1_500, True),
    ],
    ids=["short", "long", "longer", "many patterns", "as many texts"],
)
async def test_what_takes_long_is_looked_through_beside_the_loop(
    tenant: FakeTenant, patterns: int, text: str, *, beside: bool
) -> None:
    deny = json.dumps([f"word{number}" for number in range(patterns)])
    rule(tenant, f"{{name: pii, pii: [email], deny: {deny}, action: redact}}")
    rules = RuleBook().find("acme", tenant.config)
    assert rules is not None

    met = Whereabouts("acme")
    seen = await rules.admit(asking(text + " ann@example.org"), met)

    assert b"[email]" in seen.body["messages"]
    assert (threading.get_ident() not in met.threads) is beside


class Whereabouts(Meetings):
    def __init__(self, tenant: str) -> None:
        super().__init__(tenant)
        self.threads: set[int] = set()

    def __call__(self, watch: Watch) -> None:
        self.threads.add(threading.get_ident())


def test_a_tenant_has_one_thread_for_what_takes_long() -> None:
    book = RuleBook()
    first, again, other = (book.meetings(tenant) for tenant in ("acme", "acme", "globex"))

    assert first.thread is not None
    assert first.thread.total_tokens == 1
    assert first.thread is again.thread
    assert other.thread is not first.thread


async def test_attachments_that_nobody_can_look_through_may_be_refused(tenant: FakeTenant) -> None:
    rule(tenant, "{name: closed, unseen: [file]}")
    part = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg=="}}
    body = {"messages": json.dumps([{"role": "user", "content": [part]}]).encode()}

    with pytest.raises(GuardrailBlocked, match="'closed'"):
        await ask(tenant, asking("", body=body))
    await ask(tenant, asking("hi"))

    rule(tenant, "{name: closed, unseen: [file], on: answer}")
    await ask(tenant, asking("", body=body))


@pytest.mark.parametrize("section", ["guardrails", "defaults: {guardrails"])
def test_patterns_are_bounded_together(section: str) -> None:
    deny = json.dumps([f"word{number}" for number in range(100)])
    rules = ", ".join(f"{{name: r{number}, deny: {deny}}}" for number in range(4))
    text = f"{section}: [{rules}]" + "}" * section.count("{")
    config = CONFIG if section == "guardrails" else CONFIG.partition("defaults:")[0]

    with pytest.raises(ConfigInvalid, match="at most 300 patterns together, not 400"):
        parse_config(config + text + "\n", name="config")


@pytest.mark.parametrize("rules", ["5", "[5]", "[{name: r, deny: 5}]", "[{deny: [a]}]"])
def test_what_are_no_rules_is_refused(rules: str) -> None:
    with pytest.raises(ConfigInvalid, match="guardrails"):
        parse_config(CONFIG + f"guardrails: {rules}\n", name="config")


def test_a_tenant_cannot_switch_the_operators_rules_off() -> None:
    gateway = parse_config(CONFIG + "guardrails: [{name: theirs, pii: [card]}]\n", name="config")
    overlay = {"defaults": {"guardrails": [{"name": "own", "pii": ["email"]}]}, "guardrails": []}

    rules = RuleBook().find("acme", effective(gateway, overlay))

    assert rules is not None
    assert [detector.rule for detector in rules.request] == ["theirs", "own"]
    with pytest.raises(AdminOnlyKey, match="guardrails"):
        check_overlay(overlay, caller_is_admin=False)


def test_without_rules_there_is_nothing_to_do() -> None:
    assert RuleBook().find("acme", parse_config(CONFIG, name="config")) is None


def test_rules_are_compiled_once_for_all_tenants_that_have_them() -> None:
    book = RuleBook()
    config = parse_config(CONFIG + "guardrails: [{name: r, pii: [email]}]\n", name="config")

    assert book.find("acme", config) is book.find("globex", config)


def test_of_a_tenant_that_keeps_changing_its_rules_only_the_latest_are_kept() -> None:
    book = RuleBook()
    gateway = parse_config(CONFIG, name="config")

    def with_rule(word: str) -> GatewayConfig:
        return effective(gateway, {"defaults": {"guardrails": [{"name": "own", "deny": [word]}]}})

    first = with_rule("first")
    others = book.find("globex", first)
    for word in ("one", "two", "three"):
        book.find("acme", with_rule(word))

    assert len(book._known) == 2, "one for each tenant"
    assert book.find("globex", first) is others

    book.find("acme", gateway)
    assert len(book._known) == 1, "it has no rules any more"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "not a pattern"),
        ("(?<=a)b", "not a pattern"),
        ("a*", "match everywhere"),
        ("", "1 to 1000"),
        ("x" * 1001, "1 to 1000"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ConfigInvalid, match=reason):
        parse_config(
            CONFIG + f"guardrails: [{{name: r, deny: [{json.dumps(pattern)}]}}]\n", name="config"
        )
