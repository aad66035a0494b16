import json

import pytest

from tests.cli.conftest import Cli


def test_create_prints_the_token_alone_on_stdout(cli: Cli) -> None:
    quotas = ("--quota", "cost_per_day=5", "--quota", "requests_per_minute=unlimited")
    printed = cli.ok("tenants", "create", "acme", "--name", "Acme", *quotas)

    assert printed.startswith("tenant:acme:")
    assert printed.count("\n") == 1
    record = cli.bench.tenants.records["acme"]
    assert record.name == "Acme"
    assert record.quotas == {"cost_per_day": 5 * 10**9, "requests_per_minute": None}


def test_create_prints_json_for_machines(cli: Cli) -> None:
    made = json.loads(cli.ok("tenants", "create", "acme", "--json"))

    assert made["tenant"]["id"] == "acme"
    assert made["token"].startswith("tenant:acme:")


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "No Good"),
        ("create", "../acme"),
        ("create", "acme", "--quota", "tokens_per_dya=5"),
        ("create", "acme", "--quota", "terminals"),
        ("create", "acme", "--quota", "terminals=-1"),
        ("create", "acme", "--quota", "cost_per_day=a lot"),
        ("rotate", "acme", "--grace", "a while"),
        ("remove", "acme"),
        ("create",),
    ],
)
def test_a_slip_of_the_keyboard_is_a_usage_error_and_sends_nothing(
    cli: Cli, arguments: tuple[str, ...]
) -> None:
    result = cli.run("tenants", *arguments)

    assert result.exit_code == 2
    assert cli.bench.tenants.calls == []


def test_a_misspelt_quota_is_told_the_right_spelling(cli: Cli) -> None:
    result = cli.run("tenants", "create", "acme", "--quota", "tokens_per_dya=5")

    assert "did you mean 'tokens_per_day'?" in result.stderr


def test_an_id_that_is_taken_is_a_failure(cli: Cli) -> None:
    cli.bench.tenants.add("acme")
    result = cli.run("tenants", "create", "acme")

    assert result.exit_code == 1
    assert "there is a tenant 'acme' already" in result.stderr


def test_list_shows_every_page(cli: Cli) -> None:
    for number in range(1005):
        cli.bench.tenants.add(f"t{number:04}")
    found = json.loads(cli.ok("tenants", "list", "--json"))

    assert len(found["tenants"]) == 1005
    assert found["broken"] == [{"id": "torn", "reason": "tenant.json is cut off"}]


def test_list_shows_people_a_table_and_machines_no_markup(cli: Cli) -> None:
    cli.run("tenants", "create", "acme", "--name", "[red]\x1b[31mAcme[/red]")
    result = cli.run("tenants", "list")

    assert "[red]" in result.stdout
    assert "\x1b" not in result.stdout
    assert "torn cannot be used: tenant.json is cut off" in result.stderr


def test_info_shows_the_limits_in_force(cli: Cli) -> None:
    cli.bench.tenants.add("acme")
    printed = cli.ok("tenants", "info", "acme")

    assert "requests_per_minute  600" in printed
    assert "tokens_per_day" not in printed


def test_info_of_nobody_is_not_found(cli: Cli) -> None:
    assert cli.run("tenants", "info", "ghost").exit_code == 3


@pytest.mark.parametrize("command", ["rotate", "token"])
def test_rotate_prints_the_new_token_and_has_two_names(cli: Cli, command: str) -> None:
    cli.bench.tenants.add("acme")
    printed = cli.ok("tenants", command, "acme", "--grace", "10m")

    assert printed.startswith("tenant:acme:")
    assert cli.bench.tenants.calls[-1][0] == "rotate 600"


def test_disable_and_enable(cli: Cli) -> None:
    cli.bench.tenants.add("acme")
    cli.ok("tenants", "disable", "acme", "--reason", "unpaid")
    assert cli.bench.tenants.records["acme"].disabled_reason == "unpaid"

    cli.ok("tenants", "enable", "acme")
    assert not cli.bench.tenants.records["acme"].disabled


def test_remove_keeps_the_data_unless_told_otherwise(cli: Cli) -> None:
    cli.bench.tenants.add("acme")
    cli.bench.tenants.add("other")
    cli.ok("tenants", "remove", "acme", "--force")
    cli.ok("tenants", "remove", "other", "--force", "--delete-data")

    assert [verb for verb, _, _ in cli.bench.tenants.calls] == ["delete False", "delete True"]


@pytest.mark.parametrize("key", ["admin:not-the-right-one", ""])
def test_a_wrong_key_is_refused_and_never_repeated(cli: Cli, key: str) -> None:
    cli.environ["OPENCLAW_GATEWAY_TOKEN"] = key
    result = cli.run("tenants", "list")

    assert result.exit_code == 4
    assert "OPENCLAW_GATEWAY_TOKEN" in result.stderr
    assert not key or key not in result.output


def test_a_tenants_token_does_not_administer(cli: Cli) -> None:
    token = cli.bench.tenants.add("acme")
    result = cli.run("tenants", "list", "--admin-key", token)

    assert result.exit_code == 4
    assert token not in result.output
