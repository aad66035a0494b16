from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from appliance.cli.main import ENTRIES, main

DOCS = Path(__file__).parents[2] / "docs"


def test_help_lists_every_command_that_people_use() -> None:
    result = CliRunner().invoke(main, ["--help"])

    assert result.exit_code == 0
    for entry in ENTRIES:
        assert (f"\n  {entry.name} " in result.output) is not entry.hidden


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.name not in {"serve", "demo"}])
def test_a_command_is_called_what_the_table_says(entry: object) -> None:
    name = getattr(entry, "name", "")
    command = next(each for each in ENTRIES if each.name == name).load()

    assert command.name == name


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["fly"]).exit_code == 2


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(main, ["--version"])

    assert result.output.startswith("openclawmu, version ")


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        path = (*names, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path)
        else:
            yield " ".join(path), command


def test_the_manual_has_every_command_and_every_option() -> None:
    manual = (DOCS / "cli.md").read_text()
    for entry in ENTRIES:
        if entry.hidden:
            continue
        assert f"`{entry.name}" in manual
        if entry.name in {"serve", "demo"}:
            continue
        command = entry.load()
        below = commands(command, entry.name) if isinstance(command, click.Group) else []
        for name, each in [*below, (entry.name, command)]:
            assert f"`{name}" in manual
            for parameter in each.params:
                if isinstance(parameter, click.Option):
                    assert any(spelling in manual for spelling in parameter.opts), parameter.opts
