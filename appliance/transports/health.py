"""Alive, ready, draining: what a load balancer asks and what it is told.

A process that answers at all is alive. It is ready while new work would go
well: it has started, is not draining, has room on its disk, and its event loop
keeps up. The answers hold no tenant's name: anyone may read them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from appliance.services.checks import Finding, Verdict


class Phase(Enum):
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Lag(Protocol):
    @property
    def p99_ms(self) -> float: ...
    @property
    def is_slow(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """``reasons`` keep new work away; ``warnings`` do not."""

    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    loop_lag_ms: float

    @property
    def ready(self) -> bool:
        return not self.reasons


class Health:
    """The gateway's phase, which the composition root moves on, and what is wrong now."""

    def __init__(self, *, lag: Lag, vitals: Callable[[], Iterable[Finding]]) -> None:
        self._lag = lag
        self._vitals = vitals
        self.phase = Phase.STARTING

    def serving(self) -> None:
        self.phase = Phase.SERVING

    def draining(self) -> None:
        self.phase = Phase.DRAINING

    def readiness(self) -> Readiness:
        findings = tuple(self._vitals())
        reasons = [self.phase.value] if self.phase is not Phase.SERVING else []
        reasons += _told(findings, Verdict.BROKEN)
        if self._lag.is_slow:
            reasons.append("event loop: overloaded")
        return Readiness(tuple(reasons), tuple(_told(findings, Verdict.WARNING)), self._lag.p99_ms)


def _told(findings: Iterable[Finding], verdict: Verdict) -> list[str]:
    # Only which check, never what it found: that may name a tenant or a path.
    return [f"{each.name}: {verdict.value}" for each in findings if each.verdict is verdict]
