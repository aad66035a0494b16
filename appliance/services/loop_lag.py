"""How late the event loop runs: the honest measure of "is this gateway overloaded?".

A task sleeps for a short while and looks at how much later than asked it woke.
What it sees is what every request waits before its first line runs.
"""

from collections import deque
from time import perf_counter

import trio

INTERVAL = 0.05  # seconds between probes
WINDOW = 30.0  # seconds the percentile looks back
SLOW_MS = 250.0  # a p99 above this is not ready


class LoopLag:
    def __init__(self, *, interval: float = INTERVAL, window: float = WINDOW) -> None:
        self._interval = interval
        self._samples: deque[float] = deque(maxlen=int(window / interval))

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            began = perf_counter()
            await trio.sleep(self._interval)
            self.note(perf_counter() - began - self._interval)

    def note(self, seconds: float) -> None:
        self._samples.append(max(0.0, seconds))

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the last half minute, in ms; 0 before the first probe."""
        if not self._samples:
            return 0.0
        ordered = sorted(self._samples)
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2)

    @property
    def is_slow(self) -> bool:
        return self.p99_ms > SLOW_MS
