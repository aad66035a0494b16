"""What sandboxes use is written down: in the tenant's ledger and in the metrics."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from appliance.model.errors import ApplianceError
from appliance.model.periods import to_ns
from appliance.model.spending import OutcomeStatus
from appliance.sandboxes.base import SandboxUsage
from appliance.services.meter import Meter
from appliance.services.sandboxes.egress import Egress
from appliance.services.sandboxes.running import RunningSandbox
from appliance.storage.sandbox_entries import SandboxEntry

log = logging.getLogger(__name__)


class SandboxCounters(Protocol):
    """The metrics."""

    def started(self, seconds: float) -> None: ...
    def ended(
        self, *, purpose: str, outcome: str, usage: SandboxUsage, egress_bytes: int
    ) -> None: ...


class NoCounters:
    def started(self, seconds: float) -> None: ...
    def ended(
        self, *, purpose: str, outcome: str, usage: SandboxUsage, egress_bytes: int
    ) -> None: ...


@dataclass(slots=True, kw_only=True)
class Bill:
    """For whom something runs. ``sandbox`` is None until it has started."""

    meter: Meter
    purpose: str
    session: str | None
    run_id: str
    credential: str
    sandbox: RunningSandbox | None = None
    egress: Egress | None = None


_NOTHING = SandboxUsage(wall_seconds=0.0, cpu_seconds=0.0, peak_memory_bytes=None)


class SandboxBooks:
    def __init__(self, *, clock: Callable[[], datetime], counters: SandboxCounters) -> None:
        self._clock = clock
        self._counters = counters

    def started(self, seconds: float) -> None:
        """``seconds`` is how long it took."""
        self._counters.started(seconds)

    def failed(self, bill: Bill) -> None:
        """It could not be started."""
        self._counters.ended(purpose=bill.purpose, outcome="failed", usage=_NOTHING, egress_bytes=0)

    def settle(self, bill: Bill) -> None:
        """What was started has ended. Raises nothing."""
        sandbox = bill.sandbox
        if sandbox is None:
            return
        usage = sandbox.usage()
        egress_bytes = 0 if bill.egress is None else bill.egress.used_bytes
        self._counters.ended(
            purpose=bill.purpose, outcome=_outcome(sandbox), usage=usage, egress_bytes=egress_bytes
        )
        try:
            bill.meter.book_sandbox(self._entry(bill, sandbox, usage, egress_bytes))
        except ApplianceError as error:
            # The command has run; whoever asked is not to lose what it printed.
            log.error(  # noqa: TRY400 - an expected failure, its text says it all
                "a sandbox cannot be booked",
                extra={"tenant": sandbox.tenant, "sandbox": sandbox.id, "reason": error.detail},
            )

    def _entry(
        self, bill: Bill, sandbox: RunningSandbox, usage: SandboxUsage, egress_bytes: int
    ) -> SandboxEntry:
        return SandboxEntry(
            ts_ns=to_ns(sandbox.started_at),
            settled_ns=to_ns(self._clock()),
            run_id=bill.run_id or sandbox.id,
            purpose=bill.purpose,
            agent=sandbox.agent,
            session=bill.session,
            token_id=bill.credential or None,
            sandbox_ms=round(usage.wall_seconds * 1000),
            cpu_ms=round(usage.cpu_seconds * 1000),
            peak_memory_bytes=usage.peak_memory_bytes,
            egress_bytes=egress_bytes,
            outcome=OutcomeStatus.CANCELLED if sandbox.was_killed else OutcomeStatus.OK,
        )


def _outcome(sandbox: RunningSandbox) -> str:
    """One of few words: what became of it."""
    if sandbox.over_disk:
        return "over_disk"
    return "killed" if sandbox.was_killed else "ended"
