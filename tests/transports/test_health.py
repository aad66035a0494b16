from dataclasses import dataclass

from appliance.services.checks import Finding, Verdict
from appliance.transports.health import Health


@dataclass
class Lag:
    p99_ms: float = 1.0
    is_slow: bool = False


def health(*findings: Finding, lag: Lag | None = None) -> Health:
    return Health(lag=lag or Lag(), vitals=lambda: findings)


def test_a_gateway_is_ready_between_starting_and_draining() -> None:
    gateway = health()
    starting = gateway.readiness()
    gateway.serving()
    serving = gateway.readiness()
    gateway.draining()
    draining = gateway.readiness()

    assert starting.reasons == ("starting",)
    assert serving.ready
    assert draining.reasons == ("draining",)


def test_a_full_disk_keeps_new_work_away() -> None:
    gateway = health(Finding("disk", Verdict.BROKEN, "3 MiB are free", "free space"))
    gateway.serving()

    assert gateway.readiness().reasons == ("disk: broken",)


def test_a_warning_is_told_and_stops_nothing() -> None:
    gateway = health(Finding("config", Verdict.WARNING, "line 3: acme's secret", "correct it"))
    gateway.serving()
    now = gateway.readiness()

    assert now.ready
    assert now.warnings == ("config: warning",)


def test_a_late_loop_keeps_new_work_away() -> None:
    gateway = health(lag=Lag(p99_ms=400.0, is_slow=True))
    gateway.serving()
    now = gateway.readiness()

    assert now.reasons == ("event loop: overloaded",)
    assert now.loop_lag_ms == 400.0
