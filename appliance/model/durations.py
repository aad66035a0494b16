"""Durations as people write them: ``30d``, ``10m``, ``90s``."""

import re
from datetime import timedelta

_PART = re.compile(r"(\d{1,6})(ms|s|m|h|d|w)", re.ASCII)
_UNIT = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def parse_duration(text: str) -> timedelta:
    """Read ``1h30m`` and the like; raise :exc:`ValueError` for anything else."""
    if not text or _PART.sub("", text):
        raise ValueError("a duration reads 30d, 12h, 10m, 90s or a sum such as 1h30m")
    parts = (int(number) * _UNIT[unit] for number, unit in _PART.findall(text))
    try:
        return sum(parts, start=timedelta())
    except OverflowError:
        raise ValueError("a duration is shorter than three million years") from None
