"""The latest log lines, kept in memory so that they can be read from afar.

The operator sees the whole gateway's lines. A tenant sees the lines that were
logged on its behalf, and of those nothing that belongs to the operator: no
traceback, no path of the host, no other tenant's name in a session key.
"""

import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

GATEWAY_BYTES = 1024 * 1024
TENANT_BYTES = 256 * 1024
MOST_TENANTS = 1_000
ALL_TENANTS_BYTES = 64 * 1024 * 1024

# A path of the host: what follows a letter, a colon or another slash is a part
# of a word or of a URL.
_PATH: Final = re.compile(r"(?<![\w/:.@-])/(?:[\w.@+~-]+/)*[\w.@+~-]+")
_OWNER: Final = re.compile(r"\btenant:([A-Za-z0-9_-]+):")
_HIDDEN: Final = frozenset({"traceback", "logger"})


@dataclass(frozen=True, slots=True)
class LogTail:
    """The newest lines behind a cursor, oldest first.

    ``truncated`` says that older ones behind the cursor are left out, ``reset``
    that the cursor means nothing any more and the answer begins anew.
    """

    file: str
    cursor: int
    size: int
    lines: list[str]
    truncated: bool
    reset: bool


class LogBook:
    """Takes each line from :meth:`appliance.log.LineWriter.listen`, in any thread."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        gateway_bytes: int = GATEWAY_BYTES,
        tenant_bytes: int = TENANT_BYTES,
        most_tenants: int = MOST_TENANTS,
        all_tenants_bytes: int = ALL_TENANTS_BYTES,
    ) -> None:
        self._clock = clock
        self._tenant_bytes = tenant_bytes
        self._most_tenants = most_tenants
        self._all_tenants_bytes = all_tenants_bytes
        self._lock = threading.Lock()
        self._gateway = _Ring(gateway_bytes, start=self._first_offset())
        self._tenants: OrderedDict[str, _Ring] = OrderedDict()  # longest silent first
        self._tenants_held = 0  # bytes

    def take(self, record: Mapping[str, Any], line: bytes) -> None:
        """Keep one line. Never waits for long and never raises."""
        at = record["ts"]
        tenant = record.get("tenant")
        own = None
        if tenant is not None:
            tenant = str(tenant)
            # An access line says what the tenant itself asked for; whatever
            # else was logged may say more.
            own = for_tenant(line, tenant) if "logger" in record else line
        with self._lock:
            self._gateway.append(at, line)
            if tenant is not None and own is not None:
                self._tenants_held += self._ring(tenant).append(at, own)
                self._make_room()

    def tail(
        self,
        tenant: str | None,
        *,
        cursor: int | None = None,
        limit: int = 500,
        max_bytes: int = 250_000,
        since: datetime | None = None,
    ) -> LogTail:
        """The newest lines behind ``cursor``, of the gateway if no tenant is named.

        Lines from before ``since`` were another's, who had the same id, and
        are passed over.
        """
        with self._lock:
            ring = self._gateway if tenant is None else self._tenants.get(tenant)
            if ring is None:
                # Nothing was logged for it: whoever follows goes on waiting.
                now = self._first_offset()
                ring = _Ring(0, start=now if cursor is None else min(cursor, now))
            file = "gateway.log" if tenant is None else f"tenant:{tenant}.log"
            return ring.tail(file, cursor, limit, max_bytes, _stamp(since))

    def _ring(self, tenant: str) -> "_Ring":
        ring = self._tenants.get(tenant)
        if ring is None:
            ring = self._tenants[tenant] = _Ring(self._tenant_bytes, start=self._first_offset())
        else:
            self._tenants.move_to_end(tenant)
        return ring

    def _make_room(self) -> None:
        while len(self._tenants) > self._most_tenants or (
            self._tenants_held > self._all_tenants_bytes and len(self._tenants) > 1
        ):
            _, ring = self._tenants.popitem(last=False)
            self._tenants_held -= ring.held

    def _first_offset(self) -> int:
        """Where a ring begins to count.

        A thousand for each millisecond since 1970: unless somebody logs a
        megabyte a second for good, a cursor of an earlier process, or of a
        ring that was given up, lies before this one and is recognised.
        """
        return int(self._clock() * 1000) * 1000


class _Ring:
    """Lines, bounded in bytes, each with the offset at which it ends."""

    __slots__ = ("_end", "_limit", "_lines", "_start", "held")

    def __init__(self, limit: int, *, start: int) -> None:
        self._limit = limit
        self._start = self._end = start
        self._lines: deque[tuple[int, str, bytes]] = deque()
        self.held = 0  # bytes

    def append(self, at: str, line: bytes) -> int:
        """Keep a line, drop the oldest; return by how many bytes more are held."""
        before = self.held
        self._end += len(line)
        self._lines.append((self._end, at, line))
        self.held += len(line)
        while self.held > self._limit:
            self.held -= len(self._lines.popleft()[2])
        return self.held - before

    def tail(
        self, file: str, cursor: int | None, limit: int, max_bytes: int, since: str
    ) -> LogTail:
        oldest = self._end - self.held
        reset = cursor is not None and not oldest <= cursor <= self._end
        behind = oldest if cursor is None or reset else cursor
        truncated = oldest > self._start and (cursor is None or reset)
        found: list[str] = []
        for end, at, line in reversed(self._lines):
            if end <= behind or at < since:
                break
            max_bytes -= len(line)
            if len(found) == limit or max_bytes < 0:
                truncated = True
                break
            found.append(line.decode().rstrip("\n"))
        found.reverse()
        return LogTail(file, self._end, self._end, found, truncated, reset)


def for_tenant(line: bytes, tenant: str) -> bytes:
    """A log line without what is the operator's or another tenant's."""
    record: dict[str, Any] = msgspec.json.decode(line)
    shown = {key: _clean(value, tenant) for key, value in record.items() if key not in _HIDDEN}
    return msgspec.json.encode(shown) + b"\n"


def _clean(value: object, tenant: str) -> object:
    match value:
        case str():
            return _OWNER.sub(
                lambda found: found[0] if found[1] == tenant else "tenant:[other]:",
                _PATH.sub("[path]", value),
            )
        case dict():
            return {key: _clean(each, tenant) for key, each in value.items()}
        case list():
            return [_clean(each, tenant) for each in value]
        case _:
            return value


def _stamp(moment: datetime | None) -> str:
    """``moment`` as lines of the log write it, so that text can be compared."""
    if moment is None:
        return ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
