"""Without control groups a sandbox still has a group: one that does nothing."""

from appliance.sandboxes.base import Limits
from appliance.sandboxes.groups import Groups, NoGroups


async def test_without_control_groups_nothing_is_joined_and_nothing_counted() -> None:
    groups: Groups = NoGroups("no control groups")

    await groups.sweep()
    group = await groups.open("acme", Limits(), None)
    await group.kill()
    await group.close()
    await groups.aclose()

    assert group.join_files == ()
    assert group.usage() is None


async def test_it_says_who_enforces_the_limits_and_why_nobody_better_does() -> None:
    assert NoGroups("no control groups").level == "rlimits"
    assert NoGroups("no control groups").warnings == ("no control groups",)
    assert NoGroups().warnings == ()
