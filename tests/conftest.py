"""What all tests share: control groups that a killed gateway left behind go with the session."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

_GROUPS = Path("/sys/fs/cgroup")


def groups_of_gateways() -> set[Path]:
    """Where gateways keep the groups of their sandboxes, in every hierarchy there is."""
    return {*_GROUPS.glob("openclawmu-*"), *_GROUPS.glob("*/openclawmu-*")}


@pytest.fixture(scope="session", autouse=True)
def no_control_groups_are_left() -> Iterator[None]:
    """A gateway clears up after one of the same state directory; a test's is never used again."""
    before = groups_of_gateways()
    yield
    for group in groups_of_gateways() - before:
        inner = [path for path in group.rglob("*") if path.is_dir()]
        for path in sorted([group, *inner], reverse=True):
            with suppress(OSError):  # not empty: somebody still runs in it
                path.rmdir()
