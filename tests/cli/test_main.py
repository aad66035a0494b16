import pytest
from click.testing import CliRunner

from appliance.cli.main import ENTRIES, main


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
