"""Gives a workspace to those who run in it.

The gateway made the directory, and an earlier release all that is in it, as
whoever it is itself. Where sandboxes are another user, that is theirs from now
on. The directory itself comes last, so what was interrupted begins again.
"""

import os
import stat
from collections.abc import Generator
from contextlib import suppress

from appliance.storage.tree_walk import walk
from appliance.storage.workspace import Workspace


def hand_over(workspace: Workspace) -> Generator[int, None, None]:
    """Make everything in it its owner's, some entries at a time; for ``services.stepping``.

    Blocks; raises ``TreeTooLarge`` and :exc:`OSError`. Nobody may be running in
    there yet.
    """
    owner = workspace.owner
    if owner is None or workspace.is_handed_over:
        return
    with workspace.handle() as top:
        former = frozenset({os.geteuid(), os.fstat(top).st_uid})

        def give(directory: int, name: str, _top: str, found: os.stat_result) -> None:
            # A second name of a file may lie where it is not theirs.
            is_shared = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
            if found.st_uid not in former or (is_shared and found.st_uid == os.geteuid()):
                return
            with suppress(FileNotFoundError):
                os.chown(name, owner, owner, dir_fd=directory, follow_symlinks=False)

        yield from walk(top, give, skipped=workspace.hidden)
        os.chown(f"/proc/self/fd/{top}", owner, owner)
