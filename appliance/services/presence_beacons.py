"""What clients say of themselves beside their connection (``system-event``)."""

from collections import OrderedDict

import msgspec

_MOST = 32
_LIFE_MS = 5 * 60 * 1000


class PresenceEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One row of the presence list, as it goes over the wire."""

    ts: int
    host: str | None = None
    ip: str | None = None
    version: str | None = None
    platform: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    mode: str | None = None
    last_input_seconds: int | None = None
    reason: str | None = None
    tags: tuple[str, ...] | None = None
    text: str | None = None
    device_id: str | None = None
    roles: tuple[str, ...] | None = None
    scopes: tuple[str, ...] | None = None
    instance_id: str | None = None


class Beacons:
    """The latest word of each sender, for five minutes; beyond 32 senders the oldest goes."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, PresenceEntry] = OrderedDict()

    def put(self, entry: PresenceEntry) -> None:
        """Take ``entry``; what it leaves open stays as its sender said before."""
        sender = entry.device_id or entry.instance_id or entry.host or (entry.text or "")[:64]
        key = sender.casefold()
        before = self._entries.pop(key, None)
        if before is not None:
            said = {name: value for name, value in _fields(entry).items() if value is not None}
            entry = msgspec.structs.replace(before, **said)
        self._entries[key] = entry
        while len(self._entries) > _MOST:
            self._entries.popitem(last=False)

    def recent(self, now_ms: int) -> list[PresenceEntry]:
        """The newest first."""
        for key, entry in list(self._entries.items()):
            if entry.ts + _LIFE_MS <= now_ms:
                del self._entries[key]
        return list(reversed(self._entries.values()))


def _fields(entry: PresenceEntry) -> dict[str, object]:
    return msgspec.structs.asdict(entry)
