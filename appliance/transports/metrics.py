"""What the gateway counts, and how Prometheus reads it.

Every label has few values, whatever callers send: routes come from the table,
methods and outcomes from fixed lists, providers from the gateway's config. A
tenant is a label only where the operator wants it (``metrics.per_tenant``).
``docs/metrics.md`` explains each series.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from appliance.model.money import NANO
from appliance.model.spending import OutcomeStatus
from appliance.model.usage import TokenUsage
from appliance.transports.sandbox_metrics import SandboxMetrics

PREFIX = "openclawmu"

# WS: what is asked on a WebSocket of the API's.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS"})
_OTHER = "other"
# From a health check to a long generation.
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What is read at the moment of a scrape instead of being counted."""

    ready: bool
    tenants_known: int
    tenants_disabled: int
    tenants_broken: int
    tenants_awake: int
    loop_lag_p99_ms: float
    disk_free_bytes: int
    websocket_connections: int = 0
    websocket_waiting: int = 0
    gateway_requests: Mapping[tuple[str, str], int] = field(default_factory=dict)
    sandboxes: int = 0
    sandboxes_available: bool = False


@dataclass(frozen=True, slots=True)
class _Series:
    requests: Counter
    seconds: Histogram


class Metrics:
    """The counters of one gateway, in a registry of their own.

    ``routes`` are the paths that may appear as a label; one that ends in a
    parameter stands for everything below it. ``holds`` says which tenants may
    be one, with ``per_tenant``.
    """

    def __init__(
        self,
        *,
        version: str,
        levels: Callable[[], Levels],
        routes: Iterable[str] = (),
        per_tenant: bool = False,
        holds: Callable[[str], bool] = lambda _tenant: True,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        known = set(routes)
        self._routes = {path: path for path in known if not path.endswith("}")}
        self._below = tuple(
            (path[: path.rindex("{")], path) for path in known if path.endswith("}")
        )
        self._routes.update({path: path for path in known}, unmatched="unmatched")
        self._requests = self._counter(
            "http_requests", "HTTP requests answered.", ["route", "method", "status"]
        )
        self._seconds = Histogram(
            f"{PREFIX}_http_request_duration_seconds",
            "Time from accepting a request to its last byte.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._calls = self._counter("model_calls", "Calls of a model.", ["provider", "outcome"])
        self._tokens = self._counter("tokens", "Tokens used, by class.", ["class"])
        self._cost = self._counter(
            "cost", "Cost of all calls with a known price, in the billing currency.", []
        )
        self._unpriced = self._counter(
            "unpriced_calls", "Calls of a model whose price is not known.", []
        )
        self._refusals = self._counter(
            "refusals", "Requests refused, by the code of the reason.", ["code"]
        )
        self._handshakes = self._counter(
            "websocket_handshakes", "WebSocket handshakes, by how they ended.", ["outcome"]
        )
        self.sandboxes = SandboxMetrics(self._registry)
        self._tenants = _PerTenant(self._registry, holds) if per_tenant else None
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._registry.register(_Scraped(version, levels))

    def observe(
        self, *, route: str, method: str, status: int, seconds: float, tenant: str | None
    ) -> None:
        """Count one finished HTTP request."""
        key = (route, method, status)
        series = self._series.get(key)
        if series is None:
            series = self._find_series(key)
        series.requests.inc()
        series.seconds.observe(seconds)
        if self._tenants is not None and tenant is not None:
            self._tenants.request(tenant)

    def _find_series(self, key: tuple[str, str, int]) -> "_Series":
        """Looking a series up by its labels costs three times what counting does."""
        route, method, status = key
        label = self._label(route)
        known = method if method in _METHODS else _OTHER
        series = _Series(
            self._requests.labels(label, known, str(status)), self._seconds.labels(label)
        )
        # Callers choose the path and the method, so only what we know is kept.
        if label == route and known == method:
            self._series[key] = series
        return series

    def model_call(
        self,
        *,
        provider: str,
        outcome: OutcomeStatus,
        usage: TokenUsage,
        cost_nano: int | None,
        tenant: str,
    ) -> None:
        """Count one settled call of a model. ``provider`` is "" for a call that reached none."""
        self._calls.labels(provider or "none", outcome.value).inc()
        for name in _TOKEN_CLASSES:
            if count := getattr(usage, name):
                self._tokens.labels(name).inc(count)
        if cost_nano is None:
            self._unpriced.inc()
        else:
            self._cost.inc(cost_nano / NANO)
        if self._tenants is not None:
            self._tenants.model_call(tenant, tokens=usage.total, cost_nano=cost_nano or 0)

    def refused(self, code: str) -> None:
        """Count one refusal; ``code`` is that of an ``ApplianceError``."""
        self._refusals.labels(code).inc()

    def handshake(self, outcome: str) -> None:
        """Count one WebSocket handshake: ok, refused or timeout."""
        self._handshakes.labels(outcome).inc()

    def forget(self, tenant: str) -> None:
        """Drop the series of a tenant that was deleted."""
        if self._tenants is not None:
            self._tenants.forget(tenant)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Everything in the format that ``accept`` asks for, with its media type."""
        if self._tenants is not None:
            self._tenants.forget_gone()
        encode, media_type = choose_encoder(accept)
        return encode(_WithoutBirthdays(self._registry)), media_type

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self._registry)

    def _label(self, route: str) -> str:
        label = self._routes.get(route)
        if label is not None:
            return label
        return next((path for start, path in self._below if route.startswith(start)), _OTHER)


class _PerTenant:
    """Series of tenants that are here.

    A request may end after its tenant was deleted, the one that deletes it
    always does, and an admin may ask for a tenant that never was.
    """

    def __init__(self, registry: CollectorRegistry, holds: Callable[[str], bool]) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"{PREFIX}_tenant_{name}", text, ["tenant"], registry=registry)

        self._holds = holds
        self._named: set[str] = set()
        self._requests = counter("requests", "HTTP requests answered, by tenant.")
        self._tokens = counter("tokens", "Tokens used, by tenant.")
        self._cost = counter("cost", "Cost in the billing currency, by tenant.")

    def request(self, tenant: str) -> None:
        if self._is_named(tenant):
            self._requests.labels(tenant).inc()

    def model_call(self, tenant: str, *, tokens: int, cost_nano: int) -> None:
        if self._is_named(tenant):
            self._tokens.labels(tenant).inc(tokens)
            self._cost.labels(tenant).inc(cost_nano / NANO)

    def forget(self, tenant: str) -> None:
        self._named.discard(tenant)
        for series in (self._requests, self._tokens, self._cost):
            series.remove_by_labels({"tenant": tenant})

    def forget_gone(self) -> None:
        """Forget whoever was deleted, by whatever door."""
        for tenant in [each for each in self._named if not self._holds(each)]:
            self.forget(tenant)

    def _is_named(self, tenant: str) -> bool:
        if not self._holds(tenant):
            return False
        self._named.add(tenant)
        return True


class _Scraped(Collector):
    def __init__(self, version: str, levels: Callable[[], Levels]) -> None:
        self._version = version
        self._levels = levels

    def collect(self) -> Iterator[Metric]:
        now = self._levels()
        yield InfoMetricFamily(
            f"{PREFIX}_build", "The running release.", {"version": self._version}
        )
        yield _gauge("ready", "Whether the gateway is ready (1) or not (0).", float(now.ready))
        tenants = GaugeMetricFamily(
            f"{PREFIX}_tenants", "Tenants of this gateway, by state.", labels=["state"]
        )
        for state in ("known", "disabled", "broken", "awake"):
            tenants.add_metric([state], getattr(now, f"tenants_{state}"))
        yield tenants
        yield _gauge(
            "event_loop_lag_seconds",
            "How late the event loop ran: 99th percentile of the last half minute.",
            now.loop_lag_p99_ms / 1000,
        )
        yield _gauge(
            "state_free_bytes", "Free bytes where the state directory is.", now.disk_free_bytes
        )
        connections = GaugeMetricFamily(
            f"{PREFIX}_websocket_connections", "Open WebSockets, by state.", labels=["state"]
        )
        connections.add_metric(["connected"], now.websocket_connections)
        connections.add_metric(["waiting"], now.websocket_waiting)
        yield connections
        yield _gauge("sandboxes", "Sandboxes that run now.", now.sandboxes)
        yield _gauge(
            "sandbox_available",
            "Whether the isolation holds, so that commands are run (1), or not (0).",
            float(now.sandboxes_available),
        )
        requests = CounterMetricFamily(
            f"{PREFIX}_gateway_requests",
            "Requests to the Gateway's methods, by method and how they ended.",
            labels=["method", "outcome"],
        )
        for (method, outcome), count in now.gateway_requests.items():
            requests.add_metric([method, outcome], count)
        yield requests


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


class _WithoutBirthdays(CollectorRegistry):
    """The same series without when each was born: a third of the lines, read by nobody."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._whole = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._whole.collect():
            kept = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            metric.samples = kept
            yield metric
