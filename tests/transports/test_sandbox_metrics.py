from prometheus_client import CollectorRegistry

from appliance.sandboxes.base import SandboxUsage
from appliance.transports.sandbox_metrics import SandboxMetrics

USED = SandboxUsage(wall_seconds=2.0, cpu_seconds=0.5, peak_memory_bytes=10_000_000)


def test_what_ends_is_counted_by_what_it_was_for() -> None:
    registry = CollectorRegistry()
    counted = SandboxMetrics(registry)
    counted.started(0.012)
    counted.ended(purpose="exec", outcome="ended", usage=USED, egress_bytes=70)
    counted.ended(purpose="exec", outcome="over_disk", usage=USED, egress_bytes=0)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"openclawmu_sandbox_{name}", labels)

    assert value("runs_total", purpose="exec", outcome="ended") == 1
    assert value("runs_total", purpose="exec", outcome="over_disk") == 1
    assert value("seconds_total", purpose="exec") == 4
    assert value("cpu_seconds_total", purpose="exec") == 1
    assert value("egress_bytes_total") == 70
    assert value("start_duration_seconds_count") == 1
    assert value("peak_memory_bytes_count") == 2


def test_nobody_can_make_up_a_purpose() -> None:
    registry = CollectorRegistry()
    unknown = SandboxUsage(wall_seconds=1, cpu_seconds=0, peak_memory_bytes=None)
    SandboxMetrics(registry).ended(purpose="x" * 99, outcome="ended", usage=unknown, egress_bytes=0)

    labels = {"purpose": "other", "outcome": "ended"}
    assert registry.get_sample_value("openclawmu_sandbox_runs_total", labels) == 1
    assert registry.get_sample_value("openclawmu_sandbox_peak_memory_bytes_count") == 0
