"""What all tests share: none hangs for ever, and control groups go with the session."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from appliance.sandboxes.cgroup_files import owner_mark
from tests.watchdog import pytest_configure as pytest_configure  # the hook of that name

_GROUPS = Path("/sys/fs/cgroup")
_DEPTH = 3  # of a gateway's state directory below the session's temporary one

# How long an example takes says more about the machine than about the code. Otherwise as
# Hypothesis has it: another profile where it finds itself in CI.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def no_control_groups_are_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A gateway clears up after one of the same state directory; a test's is never used again."""
    before = groups_of_gateways()
    yield
    left = groups_of_gateways() - before
    if not left:
        return
    # Only those of this session: one of somebody else's may be empty because what shall
    # run in it is just being started.
    mine = {f"openclawmu-{owner_mark(path)}" for path in folders_of(tmp_path_factory.getbasetemp())}
    for group in left:
        if group.name in mine:
            remove(group)


def groups_of_gateways() -> set[Path]:
    """Where gateways keep the groups of their sandboxes, in every hierarchy there is."""
    return {*_GROUPS.glob("openclawmu-*"), *_GROUPS.glob("*/openclawmu-*")}


def folders_of(top: Path) -> Iterator[Path]:
    for place, names, _ in os.walk(top):
        yield Path(place)
        if len(Path(place).relative_to(top).parts) >= _DEPTH:
            names.clear()


def remove(group: Path) -> None:
    # os.walk passes over what goes away meanwhile.
    for place, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):  # not empty: somebody still runs in it
            Path(place).rmdir()
