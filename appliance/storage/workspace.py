"""An agent's workspace: the one directory that its sandboxes write into.

Whoever runs in there is hostile: names, links, modes and kinds of files are
theirs to choose, also while we look. All that ``ConfinedDirectory`` promises
holds; besides, what is made in here belongs to whoever runs in there, so that
they may read and change it, and only what the tenant has room for is written.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from appliance.storage.beneath import OpenBeneath
from appliance.storage.files import full_disk_reported, replace_file
from appliance.storage.paths import ConfinedDirectory, PathRefused, TenantRoot, refused, split_path
from appliance.storage.room import Room

_CLOSED = frozenset({errno.EACCES, errno.EPERM})


class Workspace(ConfinedDirectory):
    """``owner`` is the user (and group) that sandboxes are on this machine, None if it is ours.

    Names in ``hidden`` are not shown at the top, and nothing below them is
    touched: other agents' workspaces lie there. What writes raises
    ``QuotaExceeded`` where ``room`` says so.
    """

    def __init__(
        self,
        fd: int,
        *,
        owner: int | None = None,
        hidden: frozenset[str] = frozenset(),
        room: Room | None = None,
        opener: OpenBeneath | None = None,
    ) -> None:
        super().__init__(fd, opener=opener)
        self.owner = owner
        self.hidden = hidden
        self.room = room or Room()

    @classmethod
    def open(
        cls,
        root: TenantRoot,
        relative: str,
        *,
        owner: int | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> Self:
        """Open the directory ``relative`` of ``root``, making it where there is none. Blocks."""
        try:
            return cls.find(root, relative, owner=owner, hidden=hidden)
        except FileNotFoundError:
            root.mkdir(relative)
            for name in hidden:
                # So that there is something to cover, and nobody puts a link there first.
                root.mkdir(f"{relative}/{name}")
            return cls.find(root, relative, owner=owner, hidden=hidden)

    @classmethod
    def find(
        cls,
        root: TenantRoot,
        relative: str,
        *,
        owner: int | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> Self:
        """As :meth:`open`, but :exc:`FileNotFoundError` where something has to be made."""
        fd = root.open_handle(relative, os.O_DIRECTORY)
        workspace = cls(fd, owner=owner, hidden=hidden, room=root.room)
        try:
            for name in hidden:
                if not stat.S_ISDIR(root.stat(f"{relative}/{name}").st_mode):
                    raise refused(name, "is not a directory")
        except BaseException:
            workspace.close()
            raise
        return workspace

    @property
    def is_handed_over(self) -> bool:
        """Whether all in it is its owner's; see ``workspace_handover``."""
        with self._directory as fd:
            return self.owner is None or os.fstat(fd).st_uid == self.owner

    def write_atomic(self, relative: str, data: bytes, *, mode: int = 0o600) -> None:
        self.room.require(len(data))
        with self._parent_of(relative) as (parent, name), self._modes_reported(relative):
            # No leftovers are looked for: a directory may hold a million names.
            try:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            except FileNotFoundError:
                found = stat.S_IFREG
            if not stat.S_ISREG(found):
                raise refused(relative, "is not a regular file")
            replace_file(parent, name, data, mode=mode, owner=self.owner)
        self.room.changed(len(data))

    def mkdir(self, relative: str) -> None:
        self.room.require()
        made = ""
        for part in split_path(relative):
            made = f"{made}/{part}" if made else part
            with self._parent_of(made) as (parent, name), self._modes_reported(relative):
                self._mkdir(parent, name, made)
        self.room.changed()

    def listdir(self, relative: str = "") -> list[str]:
        with self._modes_reported(relative):
            names = super().listdir(relative)
        return names if relative else [name for name in names if name not in self.hidden]

    def unlink(self, relative: str) -> None:
        with self._modes_reported(relative):
            super().unlink(relative)
        self.room.changed()

    def remove_tree(self, relative: str) -> None:
        with self._modes_reported(relative):
            super().remove_tree(relative)
        self.room.changed()

    def rename(self, old: str, new: str) -> None:
        with self._modes_reported(old):
            super().rename(old, new)

    def _mkdir(self, parent: int, name: str, shown: str) -> None:
        with full_disk_reported():
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
                if not stat.S_ISDIR(found):
                    raise refused(shown, "is not a directory") from None
                return
            if self.owner is not None:
                # They may have put another thing in its place since; a link is
                # not followed, and all else in here is theirs anyway.
                os.chown(name, self.owner, self.owner, dir_fd=parent, follow_symlinks=False)
            os.fsync(parent)

    def _open(self, relative: str, flags: int, mode: int = 0) -> int:
        self._refuse_hidden(relative)
        makes = bool(flags & os.O_CREAT)
        if makes:
            self.room.require()
        with self._modes_reported(relative):
            fd = super()._open(relative, flags, mode)
        if makes:
            if self.owner is not None:
                os.fchown(fd, self.owner, self.owner)
            self.room.changed()
        return fd

    @contextmanager
    def _parent_of(self, relative: str) -> Iterator[tuple[int, str]]:
        self._refuse_hidden(relative)
        with super()._parent_of(relative) as found:
            yield found

    def _refuse_hidden(self, relative: str) -> None:
        if self.hidden and relative.partition("/")[0] in self.hidden:
            raise refused(relative, "is kept for other agents")

    @contextmanager
    def _modes_reported(self, relative: str) -> Iterator[None]:
        """Modes are theirs to choose; what is closed to us is refused, it is no failure."""
        try:
            yield
        except PermissionError as exc:
            if exc.errno not in _CLOSED:
                raise
            raise PathRefused(f"{relative[:120]!a} is closed by its mode") from exc
