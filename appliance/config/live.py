"""The config of a running gateway: taken anew when the file changes.

A file that cannot be used changes nothing: the last good config stays in
force and :attr:`LiveConfig.problem` says what is wrong, for the log,
``/readyz`` and ``doctor``.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

from appliance.config.documents import LARGEST, invalid
from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.config.text_files import Unreadable, read_text
from appliance.model.errors import ConfigInvalid, FieldError

log = logging.getLogger(__name__)

POLL_INTERVAL = 1.0  # seconds

Subscriber = Callable[[GatewayConfig], None]

# Read once, when the socket is opened.
_AT_START = ("bind", "tls")


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells one version of a file from the next without reading it."""

    device: int
    inode: int
    size: int
    changed: int  # ns

    @classmethod
    def of(cls, path: Path) -> "_Stamp | None":
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class LiveConfig:
    """Holds the config in force and tells subscribers of each new one.

    ``checks`` see a config before it is taken and may refuse it by raising
    :exc:`ConfigInvalid`, as for a reference to a secret that is not there.
    Subscribers are told afterwards and cannot refuse.
    """

    def __init__(
        self,
        path: Path,
        *,
        checks: Iterable[Subscriber] = (),
        on_change: Iterable[Subscriber] = (),
    ) -> None:
        """Read ``path``; raise :exc:`ConfigInvalid` if it cannot be used."""
        self.path = path
        self.problem: str | None = None
        self._checks = tuple(checks)
        self._subscribers = list(on_change)
        self._stamp = _Stamp.of(path)
        self._current = self._load()

    @property
    def current(self) -> GatewayConfig:
        return self._current

    def subscribe(self, callback: Subscriber) -> None:
        """Have ``callback`` called, in the loop's thread, with every config taken from now on."""
        self._subscribers.append(callback)

    def reload(self) -> bool:
        """Read the file now (as on SIGHUP); return whether its content was taken."""
        self._stamp = _Stamp.of(self.path)
        try:
            config = self._load()
        except ConfigInvalid as exc:
            self._refuse(exc)
            return False
        self._take(config)
        return True

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reload whenever the file has changed, until cancelled.

        It is read and checked in a thread: a large one must not hold up the loop.
        """
        task_status.started()
        while True:
            await trio.sleep(POLL_INTERVAL)
            # Taken before the file is read: what changes meanwhile is seen next time.
            stamp = _Stamp.of(self.path)
            if stamp == self._stamp:
                continue
            try:
                config = await trio.to_thread.run_sync(self._load)
            except ConfigInvalid as exc:
                self._refuse(exc)
            else:
                self._take(config)
            self._stamp = stamp

    def _load(self) -> GatewayConfig:
        config = parse_config(_read(self.path), name=str(self.path))
        for check in self._checks:
            check(config)
        return config

    def _take(self, config: GatewayConfig) -> None:
        self.problem = None
        if config == self._current:
            return
        waiting = [
            f"server.{key}"
            for key in _AT_START
            if getattr(config.server, key) != getattr(self._current.server, key)
        ]
        self._current = config
        log.info("the config was read again", extra={"file": str(self.path)})
        if waiting:
            log.warning("takes effect at the next start", extra={"keys": ", ".join(waiting)})
        for subscriber in self._subscribers:
            subscriber(config)

    def _refuse(self, exc: ConfigInvalid) -> None:
        if exc.detail != self.problem:  # said once, not once a second
            log.error(
                "the config was not taken; the last good one stays in force",
                extra={"reason": exc.detail},
            )
        self.problem = exc.detail


def _read(path: Path) -> str:
    try:
        return read_text(path, limit=LARGEST)
    except Unreadable as exc:
        raise invalid(str(path), [FieldError("", str(exc))]) from exc
