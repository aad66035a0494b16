"""Noticing that an agent goes in circles."""

import hashlib
from collections import Counter
from enum import Enum


class Verdict(Enum):
    FINE = "fine"
    WARN = "warn"
    END = "end"


class Repeats:
    """Counts calls that are the same and brought the same, of one turn."""

    def __init__(self, *, warn_at: int, end_at: int) -> None:
        self._warn_at = warn_at
        self._end_at = max(end_at, warn_at + 1)
        self._seen: Counter[bytes] = Counter()

    def note(self, name: str, arguments: str, result: str) -> Verdict:
        """Note a call with its result; tell what should become of the turn."""
        digest = hashlib.sha256()
        for text in (name, arguments, result):
            data = text.encode(errors="surrogatepass")
            digest.update(b"%d:" % len(data))
            digest.update(data)
        key = digest.digest()
        self._seen[key] += 1
        times = self._seen[key]
        if times >= self._end_at:
            return Verdict.END
        return Verdict.WARN if times >= self._warn_at else Verdict.FINE
