"""The commands that look: health, status, logs, presence, usage, models."""

import json
import re

import pytest

from tests.conformance.clients import PROTOCOL_4, Cli, Outcome
from tests.conformance.commands import command

pytestmark = pytest.mark.system

# What these commands say of a gateway that did not answer in time, as text and as JSON.
UNREACHED = re.compile(r'unreachable|"reachable": false|^  "ok": false', re.MULTILINE)


def look(cli: Cli, *arguments: str) -> Outcome:
    """Whether the gateway answers, for which the old release waits 2.5 seconds at most.

    A busy machine may need more, but hardly three times.
    """
    for _ in range(2):
        outcome = cli.run(*arguments)
        if outcome.exit_code == 0 and not UNREACHED.search(outcome.out):
            return outcome
    return cli.run(*arguments)


@command("gateway call")
def test_any_method_can_be_called_by_name(cli: Cli) -> None:
    health = cli.run("gateway", "call", "health", "--json").json

    assert health["ok"] is True
    assert health["defaultAgentId"] == "main"


@command("gateway call")
def test_a_method_that_does_not_exist_is_called_unknown(cli: Cli) -> None:
    assert "unknown method: nope.nope" in cli.run("gateway", "call", "nope.nope").refusal


@command("gateway call")
def test_params_that_do_not_fit_are_refused_by_name(cli: Cli) -> None:
    params = json.dumps({"sessionKey": "main", "limit": 0})

    refusal = cli.run("gateway", "call", "chat.history", "--params", params).refusal

    assert "invalid chat.history params" in refusal
    assert "limit" in refusal


@command("gateway call")
def test_what_is_the_operators_is_refused_to_a_tenant(cli: Cli) -> None:
    refusal = cli.run("gateway", "call", "tenants.list").refusal

    assert "method not available for tenant token" in refusal


@command("gateway health")
def test_the_gateway_named_on_the_command_line_is_healthy(cli: Cli) -> None:
    assert cli.run("gateway", "health", "--json", *cli.flags).json["ok"] is True


@command("gateway health")
def test_a_wrong_token_is_refused(cli: Cli) -> None:
    outcome = cli.run("gateway", "health", "--url", cli.url, "--token", cli.token[:-4] + "aaaa")

    assert "unauthorized" in outcome.refusal


@command("health")
def test_the_configured_gateway_is_healthy(cli: Cli) -> None:
    health = cli.run("health", "--json").json

    assert health["ok"] is True
    assert [agent["agentId"] for agent in health["agents"]] == ["main"]


@command("gateway probe")
def test_a_probe_reaches_the_gateway_and_may_read(cli: Cli) -> None:
    probe = look(cli, "gateway", "probe", "--json", *cli.flags).json
    target = next(target for target in probe["targets"] if target["url"] == cli.url)

    assert probe["ok"] is True
    assert target["connect"]["ok"] is True
    assert target["connect"].get("rpcOk", True) is True
    assert target["health"]["ok"] is True
    assert target["self"]["host"] == "openclawmu"
    assert not target["connect"].get("scopeLimited")


@command("gateway usage-cost")
def test_usage_comes_with_a_day_each_and_totals(cli: Cli) -> None:
    usage = cli.run("gateway", "usage-cost", "--json").json

    assert usage["days"] == 30
    assert usage["totals"].keys() >= {"input", "output", "totalTokens", "totalCost"}


@command("status")
def test_status_says_that_the_gateway_is_reachable(cli: Cli) -> None:
    status = look(cli, "status").text

    assert "openclawmu app" in status
    assert "unreachable" not in status


@command("status")
def test_status_is_json_too(cli: Cli) -> None:
    status = look(cli, "status", "--json").json

    assert status["gateway"]["reachable"] is True
    assert status["gateway"]["self"]["host"] == "openclawmu"
    assert status["gateway"]["error"] is None


@command("status --all")
def test_status_can_tell_all(cli: Cli) -> None:
    status = look(cli, "status", "--all").text

    assert "openclawmu app" in status
    assert "unreachable" not in status


@command("status --deep")
def test_status_can_look_deeper(cli: Cli) -> None:
    status = look(cli, "status", "--deep").text

    assert "reachable" in status
    assert "Last heartbeat" in status


@command("logs")
def test_logs_are_the_tenants_own(cli: Cli) -> None:
    cli.call("agents.list")

    lines = [json.loads(line) for line in cli.run("logs", "--json").text.splitlines()]
    meta, *entries = [line for line in lines if line["type"] in {"meta", "log"}]

    assert meta["type"] == "meta"
    assert any("agents.list" in entry["message"] for entry in entries), entries[-5:]
    assert {json.loads(entry["raw"])["tenant"] for entry in entries} == {
        f"v{cli.release.replace('.', '-')}"
    }


@command("logs")
def test_logs_are_plain_text_too(cli: Cli) -> None:
    cli.call("agents.list")

    assert "agents.list" in cli.run("logs", "--plain").text


@command("system presence")
def test_presence_names_the_gateway_and_who_asks(cli: Cli) -> None:
    entries = cli.run("system", "presence", "--json").json

    assert entries[0]["host"] == "openclawmu"
    assert any(entry.get("mode") == "cli" for entry in entries)


@command("models list", releases=(PROTOCOL_4,))
def test_models_are_listed_with_the_default_marked(cli: Cli) -> None:
    listing = cli.run("models", "list", "--json").json

    assert "stub/mock" in {model["key"] for model in listing["models"]}


@command("channels status")
def test_channels_are_none_yet_and_the_gateway_is_reachable(cli: Cli) -> None:
    status = cli.run("channels", "status", "--json").json

    assert status["channelOrder"] == []
    assert status["channelAccounts"] == {}


@command("channels status")
def test_channels_can_be_probed(cli: Cli) -> None:
    outcome = cli.run("channels", "status", "--probe")

    assert "reachable" in outcome.text
    assert "not reachable" not in outcome.out + outcome.err


@command("system heartbeat last")
def test_there_was_no_heartbeat_yet(cli: Cli) -> None:
    assert cli.run("system", "heartbeat", "last", "--json").json is None


@command("system heartbeat enable", "system heartbeat disable")
def test_heartbeats_are_switched_off_and_on(cli: Cli) -> None:
    off = cli.run("system", "heartbeat", "disable", "--json").json
    on = cli.run("system", "heartbeat", "enable", "--json").json

    assert (off["enabled"], on["enabled"]) == (False, True)
