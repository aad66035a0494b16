"""The commands whose engines come later: each says so, and none of them breaks."""

import pytest

from tests.conformance.clients import PROTOCOL_4, Cli
from tests.conformance.commands import command

pytestmark = pytest.mark.system

UNAVAILABLE = "is not available in this release"


def refusal(cli: Cli, *arguments: str) -> str:
    return cli.run(*arguments).refusal


@command("cron status", comes_with="scheduled jobs")
def test_there_is_no_scheduler_to_report_on(cli: Cli) -> None:
    assert f"cron.status {UNAVAILABLE}" in refusal(cli, "cron", "status", "--json")


@command("cron list", comes_with="scheduled jobs")
def test_there_are_no_jobs_to_list(cli: Cli) -> None:
    assert f"cron.list {UNAVAILABLE}" in refusal(cli, "cron", "list", "--json")


@command("cron add", comes_with="scheduled jobs")
def test_no_job_is_taken_that_would_never_run(cli: Cli) -> None:
    job = ("--name", "a", "--every", "1h", "--session", "isolated", "--message", "hello")

    assert f"cron.add {UNAVAILABLE}" in refusal(cli, "cron", "add", *job)


@command("cron edit", comes_with="scheduled jobs")
def test_there_is_no_job_to_edit(cli: Cli) -> None:
    assert UNAVAILABLE in refusal(cli, "cron", "edit", "a-job", "--name", "b")


@command("cron enable", comes_with="scheduled jobs")
def test_there_is_no_job_to_enable(cli: Cli) -> None:
    assert UNAVAILABLE in refusal(cli, "cron", "enable", "a-job")


@command("cron disable", comes_with="scheduled jobs")
def test_there_is_no_job_to_disable(cli: Cli) -> None:
    assert UNAVAILABLE in refusal(cli, "cron", "disable", "a-job")


@command("cron run", comes_with="scheduled jobs")
def test_there_is_no_job_to_run(cli: Cli) -> None:
    assert f"cron.run {UNAVAILABLE}" in refusal(cli, "cron", "run", "a-job")


@command("cron runs", comes_with="scheduled jobs")
def test_there_are_no_runs_to_list(cli: Cli) -> None:
    assert f"cron.runs {UNAVAILABLE}" in refusal(cli, "cron", "runs", "--id", "a-job")


@command("cron rm", comes_with="scheduled jobs")
def test_there_is_no_job_to_remove(cli: Cli) -> None:
    assert f"cron.remove {UNAVAILABLE}" in refusal(cli, "cron", "rm", "a-job")


@command("system event", comes_with="scheduled jobs")
def test_nothing_can_be_woken_yet(cli: Cli) -> None:
    assert f"wake {UNAVAILABLE}" in refusal(cli, "system", "event", "--text", "hi", "--mode", "now")


@command("skills list", releases=(PROTOCOL_4,), comes_with="skills")
def test_there_are_no_skills_to_list(cli: Cli) -> None:
    assert f"skills.status {UNAVAILABLE}" in refusal(cli, "skills", "list", "--json")


@command("skills check", releases=(PROTOCOL_4,), comes_with="skills")
def test_there_are_no_skills_to_check(cli: Cli) -> None:
    assert f"skills.status {UNAVAILABLE}" in refusal(cli, "skills", "check", "--json")
