"""How often one client may have the settings of its tenant written and applied.

Each write is synced twice and reaches everything that is awake; three in a
minute are plenty for a person, and a program that loops is stopped early.
"""

import math
from collections import deque

from appliance.model.errors import RateLimited

_MOST = 3
_WINDOW = 60.0  # seconds
_MOST_CLIENTS = 1_000


class ConfigWrites:
    """One tenant's."""

    def __init__(self) -> None:
        self._clients: dict[str, deque[float]] = {}

    def note(self, client: str, *, method: str, now: float) -> None:
        """Count one write by ``client`` at ``now`` (seconds of any clock that goes on).

        Raises :exc:`RateLimited`; a refused one does not count.
        """
        times = self._clients.pop(client, deque())
        while times and times[0] <= now - _WINDOW:
            times.popleft()
        self._clients[client] = times
        if len(times) >= _MOST:
            wait = max(1, math.ceil(times[0] + _WINDOW - now))
            raise RateLimited(
                f"rate limit exceeded for {method}; retry after {wait}s", retry_after=wait
            )
        times.append(now)
        if len(self._clients) > _MOST_CLIENTS:
            del self._clients[next(iter(self._clients))]  # the one least recently active
