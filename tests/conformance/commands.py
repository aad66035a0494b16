"""Which commands a test covers: what the tests run, and what docs/clients.md promises."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conformance.clients import RELEASES

Test = Callable[..., Any]

MARK = "command"


@dataclass(frozen=True, slots=True)
class Covered:
    """A command that a test runs, with the CLIs of some releases."""

    command: str
    releases: tuple[str, ...]
    comes_with: str


def command(
    *names: str, releases: tuple[str, ...] = RELEASES, comes_with: str = ""
) -> Callable[[Test], Test]:
    """Run the test with the CLI of each of ``releases``; it covers the commands ``names``.

    ``comes_with`` is the feature they wait for: until then the test asserts
    that the answer is an honest one.
    """
    covers = [Covered(name, releases, comes_with) for name in names]

    def mark(test: Test) -> Test:
        each_release = pytest.mark.parametrize("cli", releases, indirect=True)
        marked: Test = getattr(pytest.mark, MARK)(*covers)(each_release(test))
        return marked

    return mark


def covered_by(test: object) -> Iterator[Covered]:
    """What a function of a test module covers: nothing, unless it was marked."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == MARK:
            yield from mark.args
