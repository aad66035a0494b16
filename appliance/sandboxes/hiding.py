"""What of the names that shall be hidden is there to be hidden."""

import os
import stat
from collections.abc import Iterator

from appliance.sandboxes.base import Access, SandboxSpec
from appliance.sandboxes.bubblewrap_arguments import HiddenName


def hidden_names(spec: SandboxSpec) -> Iterator[HiddenName]:
    """A link is left alone: what it leads to is no secret of the workspace's."""
    if spec.access is Access.NONE:
        return
    for name in spec.hidden:
        try:
            mode = os.stat(name, dir_fd=spec.workspace, follow_symlinks=False).st_mode
        except OSError:
            continue
        if not stat.S_ISLNK(mode):
            yield HiddenName(name, is_directory=stat.S_ISDIR(mode))
