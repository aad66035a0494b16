"""Bubblewrap keeps what every backend promises, with control groups and without."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.sandboxes.cgroup_files import owner_mark
from appliance.sandboxes.cgroup_mounts import CgroupMounts
from appliance.sandboxes.cgroup_v1 import use_hierarchies
from appliance.sandboxes.groups import Groups, NoGroups
from tests.sandboxes import grouped
from tests.sandboxes.contract import SandboxContract
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP, Workshop, opened

pytestmark = pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)


class TestBubblewrap(SandboxContract):
    @pytest.fixture
    async def shop(self, tmp_path: Path) -> AsyncIterator[Workshop]:
        async with opened(tmp_path, NoGroups()) as workshop:
            yield workshop


class TestBubblewrapInGroups(SandboxContract):
    @pytest.fixture
    def groups(self, tmp_path: Path) -> Groups:
        mounts = CgroupMounts(None, None, grouped.real_v1())
        return use_hierarchies(mounts, owner_mark(tmp_path))

    @pytest.fixture
    async def shop(self, tmp_path: Path, groups: Groups) -> AsyncIterator[Workshop]:
        async with opened(tmp_path, groups) as workshop:
            yield workshop
