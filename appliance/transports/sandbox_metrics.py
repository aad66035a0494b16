"""What is counted of sandboxes. ``docs/metrics.md`` explains each series."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from appliance.sandboxes.base import SandboxUsage

_PREFIX = "openclawmu_sandbox"
_PURPOSES = frozenset({"exec", "terminal", "mcp", "search"})
_OTHER = "other"
# A bare start takes 10 ms on an idle machine; Podman's takes half a second.
_START_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_MEMORY_BUCKETS = tuple(mib * 1024 * 1024 for mib in (4, 16, 64, 256, 512, 1024, 4096))


class SandboxMetrics:
    """Satisfies ``services.sandbox_books.SandboxCounters``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: list[str]) -> Counter:
            return Counter(f"{_PREFIX}_{name}", text, labels, registry=registry)

        self._runs = counter(
            "runs", "Sandboxes, by what they were for and how they ended.", ["purpose", "outcome"]
        )
        self._seconds = counter("seconds", "Time that sandboxes ran.", ["purpose"])
        self._cpu = counter("cpu_seconds", "CPU time of all processes in sandboxes.", ["purpose"])
        self._egress = counter(
            "egress_bytes", "Bytes that went out of sandboxes and in, by the egress proxy.", []
        )
        self._starts = Histogram(
            f"{_PREFIX}_start_duration_seconds",
            "Time until a sandbox runs its command.",
            buckets=_START_BUCKETS,
            registry=registry,
        )
        self._memory = Histogram(
            f"{_PREFIX}_peak_memory_bytes",
            "The most memory a sandbox used, where that is counted.",
            buckets=_MEMORY_BUCKETS,
            registry=registry,
        )

    def started(self, seconds: float) -> None:
        self._starts.observe(seconds)

    def ended(self, *, purpose: str, outcome: str, usage: SandboxUsage, egress_bytes: int) -> None:
        known = purpose if purpose in _PURPOSES else _OTHER
        self._runs.labels(known, outcome).inc()
        self._seconds.labels(known).inc(usage.wall_seconds)
        self._cpu.labels(known).inc(usage.cpu_seconds)
        self._egress.inc(egress_bytes)
        if usage.peak_memory_bytes is not None:
            self._memory.observe(usage.peak_memory_bytes)
