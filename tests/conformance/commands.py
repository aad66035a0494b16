"""Which command a test covers: what the tests run, and what docs/clients.md promises."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.clients import RELEASES

Test = Callable[..., Any]


def command(
    *names: str, releases: tuple[str, ...] = RELEASES, comes_with: str = ""
) -> Callable[[Test], Test]:
    """Run the test with the CLI of each of ``releases``; it covers the commands ``names``.

    ``comes_with`` is the feature they wait for: until then the test asserts
    that the answer is an honest one.
    """

    def mark(test: Test) -> Test:
        each_release = pytest.mark.parametrize("cli", releases, indirect=True)
        covered = pytest.mark.command(names, releases, comes_with)
        marked: Test = covered(each_release(test))
        return marked

    return mark
