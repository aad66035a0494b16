"""The commands about what agents may run without asking."""

import pytest

from tests.conformance.clients import Cli
from tests.conformance.commands import command

pytestmark = pytest.mark.system


@command("approvals get --gateway")
def test_what_may_run_without_asking_is_shown(cli: Cli) -> None:
    shown = cli.run("approvals", "get", "--gateway", "--json").json
    table = cli.run("approvals", "get", "--gateway")

    table.require_success()
    assert shown["file"]["version"] == 1
    assert shown["hash"]


@command("approvals allowlist --gateway")
def test_programs_are_added_to_the_list_and_taken_off(cli: Cli) -> None:
    where = ("--gateway", "--agent", "main")
    added = cli.run("approvals", "allowlist", "add", *where, "/bin/ls")
    again = cli.run("approvals", "allowlist", "add", *where, "/usr/bin/git")
    file = cli.call("exec.approvals.get")["file"]
    removed = cli.run("approvals", "allowlist", "remove", *where, "/bin/ls")
    rest = cli.call("exec.approvals.get")["file"]

    for each in (added, again, removed):
        each.require_success()
    assert [e["pattern"] for e in file["agents"]["main"]["allowlist"]] == [
        "/bin/ls",
        "/usr/bin/git",
    ]
    assert [e["pattern"] for e in rest["agents"]["main"]["allowlist"]] == ["/usr/bin/git"]
