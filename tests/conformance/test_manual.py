"""docs/clients.md says of each command what these tests assert of it."""

import re
from importlib import import_module
from pathlib import Path

from tests.conformance.clients import RELEASES
from tests.conformance.commands import Covered, covered_by

HERE = Path(__file__).resolve().parent
MANUAL = HERE.parent.parent / "docs" / "clients.md"
ROW = re.compile(r"^\| `([a-z-][a-z -]*)` \| (.+) \| (.+) \|$", re.MULTILINE)
LOCAL = "reads its own files"

SUITES = ("agent", "approvals", "looking", "pairing", "waiting")


def covered() -> list[Covered]:
    modules = [import_module(f"tests.conformance.test_cli_{suite}") for suite in SUITES]
    return [
        each for module in modules for test in vars(module).values() for each in covered_by(test)
    ]


def promised(command: str, release: str) -> str:
    """What may be said of a command, going by its tests."""
    mine = [each for each in covered() if each.command == command and release in each.releases]
    if not mine:
        return LOCAL
    waits = {each.comes_with for each in mine if each.comes_with}
    return f"with {' and '.join(sorted(waits))}" if waits else "works"


def test_the_manual_lists_every_command_and_how_far_it_works() -> None:
    documented = {row[0]: row[1:] for row in ROW.findall(MANUAL.read_text())}

    assert documented == {
        command: tuple(promised(command, release) for release in RELEASES)
        for command in {each.command for each in covered()}
    }


def test_every_suite_of_commands_is_looked_at() -> None:
    found = {path.stem.removeprefix("test_cli_") for path in HERE.glob("test_cli_*.py")}

    assert found == set(SUITES)
