import json

from appliance.model.tokens import Scope
from tests.cli.conftest import Cli


def test_create_prints_the_token_once(cli: Cli) -> None:
    cli.bench.tenants.add("acme")
    scopes = ("--scope", "chat", "--scope", "read")
    models = ("--model", "stub/*", "--model", "fast")
    printed = cli.ok(
        "tokens", "create", "acme", "--label", "ci", *scopes, *models, "--expires", "30d"
    )

    assert printed.startswith("tenant:acme:")
    made = cli.bench.tenants.records["acme"].tokens[-1]
    assert made.scopes == {Scope.CHAT, Scope.READ}
    assert printed.strip().rpartition(":")[2] not in cli.ok("tokens", "list", "acme", "--json")


def test_a_scope_is_one_of_a_few(cli: Cli) -> None:
    result = cli.run("tokens", "create", "acme", "--scope", "root")

    assert result.exit_code == 2
    assert "'manage'" in result.stderr


def test_list_shows_ids_and_scopes(cli: Cli) -> None:
    cli.bench.tenants.add("acme", Scope.CHAT)

    printed = cli.ok("tokens", "list", "acme")
    assert printed.splitlines()[-1].split() == [
        *("tok_acme_0", "chat", "2026-11-21", "12:00Z", "-", "-")
    ]
    (token,) = json.loads(cli.ok("tokens", "list", "acme", "--json"))["tokens"]
    assert token["scopes"] == ["chat"]


def test_revoke_names_one_token(cli: Cli) -> None:
    cli.bench.tenants.add("acme")
    cli.ok("tokens", "revoke", "acme", "tok_1")

    assert cli.bench.tenants.calls[-1][0] == "revoke tok_1"


def test_an_id_cannot_wander_to_another_path(cli: Cli) -> None:
    cli.bench.tenants.add("acme")
    result = cli.run("tokens", "revoke", "acme", "../../acme")

    assert result.exit_code == 3
    assert "acme" in cli.bench.tenants.records
