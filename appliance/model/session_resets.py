"""When a conversation is over: daily at an hour, or after a time without a word.

The rule is looked at when the next message comes, so nothing has to wake up for
it. The hour is one of a time zone; on the day it does not exist the session is
reset when the clock is put forward, on the day it comes twice at the first time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

from appliance.model.session_scopes import ChatType

DEFAULT_HOUR = 4
DEFAULT_IDLE_MINUTES = 60

# A session that only these moved was not used by anybody.
_NOBODY = frozenset({"heartbeat"})


class ResetMode(StrEnum):
    DAILY = "daily"
    IDLE = "idle"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class ResetRule:
    """``DAILY`` also ends what was idle if ``idle_minutes`` says so: whichever is first."""

    mode: ResetMode = ResetMode.DAILY
    at_hour: int | None = DEFAULT_HOUR
    idle_minutes: int | None = None

    def due(self, last_used: datetime, now: datetime, zone: tzinfo) -> str | None:
        """Why a session last used then is over now: ``daily``, ``idle``, or None if it is not.

        Both moments are aware. A clock that was set back ends nothing.
        """
        if self.mode is ResetMode.OFF or last_used > now:
            return None
        if self.mode is ResetMode.DAILY and last_used < _latest(self._hour, now, zone):
            return "daily"
        idle = self._idle
        if idle is not None and now - last_used >= idle:
            return "idle"
        return None

    @property
    def _hour(self) -> int:
        return DEFAULT_HOUR if self.at_hour is None else self.at_hour

    @property
    def _idle(self) -> timedelta | None:
        minutes = self.idle_minutes
        if minutes is None and self.mode is ResetMode.IDLE:
            minutes = DEFAULT_IDLE_MINUTES
        return None if minutes is None else timedelta(minutes=minutes)


@dataclass(frozen=True, slots=True)
class ResetRules:
    """The rule of a session: its channel's, else its type's, else that of all."""

    general: ResetRule = ResetRule()
    direct: ResetRule | None = None
    group: ResetRule | None = None
    thread: ResetRule | None = None
    by_channel: Mapping[str, ResetRule] = field(default_factory=dict)

    def choose(self, *, chat_type: ChatType, is_thread: bool, channel: str | None) -> ResetRule:
        if channel is not None and (rule := self.by_channel.get(channel)) is not None:
            return rule
        return self._by_type(chat_type, is_thread=is_thread) or self.general

    def _by_type(self, chat_type: ChatType, *, is_thread: bool) -> ResetRule | None:
        if is_thread and self.thread is not None:
            return self.thread
        return self.direct if chat_type is ChatType.DIRECT else self.group


def counts_as_use(source: str) -> bool:
    """Whether a turn from ``source`` moves the session's clock: a heartbeat's does not."""
    return source not in _NOBODY


def _latest(hour: int, now: datetime, zone: tzinfo) -> datetime:
    """The last time that it was ``hour`` o'clock in ``zone``, in UTC."""
    today = now.astimezone(zone).replace(hour=hour, minute=0, second=0, microsecond=0, fold=0)
    moment = today.astimezone(UTC)
    if moment <= now:
        return moment
    # By the calendar, not by 24 hours: yesterday may have had 23 or 25.
    yesterday = today.replace(tzinfo=None) - timedelta(days=1)
    return yesterday.replace(tzinfo=zone, fold=0).astimezone(UTC)
