"""The state directory: where everything of a gateway lies.

The directories below ``tenants/`` are the registry; there is no list of
tenants beside them that could disagree.
"""

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from appliance.model.errors import AlreadyExists, ApplianceError, Kind, TenantUnknown
from appliance.model.ids import is_tenant_id, parse_tenant_id
from appliance.storage.beneath import OpenBeneath
from appliance.storage.files import full_disk_reported, remove_leftovers
from appliance.storage.paths import ConfinedDirectory, PathRefused, TenantRoot
from appliance.storage.state_lock import StateLock

TENANTS = "tenants"
DELETED = "deleted"
SECRETS = "secrets"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class StateUnusable(ApplianceError):
    """The state directory cannot be trusted or reached."""

    code = "state-unusable"
    title = "The state directory cannot be used"
    kind = Kind.UNAVAILABLE


class StateDirectory(ConfinedDirectory):
    """The gateway's own files at the top, and the tenants' directories below."""

    def __init__(
        self,
        path: Path,
        fd: int,
        *,
        clock: Callable[[], datetime] = _utc_now,
        opener: OpenBeneath | None = None,
    ) -> None:
        super().__init__(fd, opener=opener)
        self.path = path
        self._clock = clock

    def __repr__(self) -> str:
        return f"<StateDirectory {self.path}>"

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        clock: Callable[[], datetime] = _utc_now,
        opener: OpenBeneath | None = None,
    ) -> Self:
        """Open the directory at ``path``, making it (0700) where there is none.

        Raises :exc:`StateUnusable` if it belongs to or can be written by
        somebody else: whoever can rename in there could swap a tenant.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would hide links from messages
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise StateUnusable(f"{path}: {exc.strerror}") from exc
        state = cls(path, fd, clock=clock, opener=opener)
        try:
            _require_private(path, os.fstat(fd))
            for name in (TENANTS, SECRETS):
                state.mkdir(name)
        except BaseException:
            state.close()
            raise
        return state

    def lock(self) -> StateLock:
        """Become the one owner; raise :exc:`StateInUse` if there is another."""
        lock = StateLock.acquire(self, shown_as=str(self.path))
        # Only the owner knows that what lies around belongs to nobody.
        for folder in ("", SECRETS):
            with self._opened(folder) as fd:
                remove_leftovers(fd)
        return lock

    def tenants(self) -> list[str]:
        """Ids of all tenants that have a directory, sorted."""
        with self._opened(TENANTS) as fd, os.scandir(fd) as entries:
            return sorted(
                entry.name
                for entry in entries
                if is_tenant_id(entry.name) and entry.is_dir(follow_symlinks=False)
            )

    def tenant_root(self, tenant: str) -> TenantRoot:
        """Open a tenant's directory; :exc:`TenantUnknown` if there is none."""
        return TenantRoot.open(self, tenant)

    def create_tenant(self, tenant: str) -> TenantRoot:
        """Make an empty directory for ``tenant``; :exc:`AlreadyExists` if there is any."""
        parse_tenant_id(tenant)
        with self._opened(TENANTS) as fd, full_disk_reported():
            try:
                os.mkdir(tenant, 0o700, dir_fd=fd)
            except FileExistsError:
                raise AlreadyExists(f"there is a tenant {tenant!r} already") from None
            os.fsync(fd)
        return self.tenant_root(tenant)

    def retire_tenant(self, tenant: str) -> str:
        """Move a tenant's directory out of the way and return its name below ``deleted/``.

        It is one rename: after a crash the tenant is there, or it is not.
        """
        if not is_tenant_id(tenant):
            raise TenantUnknown("there is no such tenant")
        self.mkdir(DELETED)
        stamp = self._clock().strftime("%Y%m%dT%H%M%SZ")
        retired = f"{tenant}-{stamp}-{secrets.token_hex(3)}"
        try:
            self.rename(f"{TENANTS}/{tenant}", f"{DELETED}/{retired}")
        except FileNotFoundError:
            raise TenantUnknown(f"there is no tenant {tenant!r}") from None
        return retired

    def retired(self) -> list[str]:
        """Names below ``deleted/``."""
        return self.listdir(DELETED) if self.exists(DELETED) else []

    def purge(self, retired: str) -> None:
        """Remove for good what :meth:`retire_tenant` put away."""
        if "/" in retired:
            raise PathRefused("name one directory below deleted/")
        self.remove_tree(f"{DELETED}/{retired}")


def _require_private(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise StateUnusable(
            f"{path} belongs to user {found.st_uid} and this process runs as {os.geteuid()};"
            " run as that user, or give the directory to this one"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateUnusable(f"{path} can be written by others; run: chmod go-w {path}")
