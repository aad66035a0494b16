from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.model.spending import OutcomeStatus
from appliance.model.usage import TokenUsage
from appliance.transports.metrics import PREFIX, Levels, Metrics

DOCS = Path(__file__).parents[2] / "docs"


def levels() -> Levels:
    return Levels(
        ready=True,
        tenants_known=3,
        tenants_disabled=1,
        tenants_broken=0,
        tenants_awake=2,
        loop_lag_p99_ms=2.5,
        disk_free_bytes=1000,
    )


def metrics(*, per_tenant: bool = False) -> Metrics:
    routes = ["/v1/tenants/{id}", "/v1/models", "/v1/models/{model}"]
    return Metrics(version="1.2.3", levels=levels, routes=routes, per_tenant=per_tenant)


def samples(of: Metrics) -> dict[tuple[str, ...], float]:
    """Each value under the name of its series and its labels' values in order."""
    text = of.render("text/plain")[0].decode()
    return {
        (sample.name.removeprefix(f"{PREFIX}_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def observe(counted: Metrics, route: str, method: str = "GET", tenant: str | None = None) -> None:
    counted.observe(route=route, method=method, status=200, seconds=0.2, tenant=tenant)


def call(counted: Metrics, tenant: str) -> None:
    """Count a call of a model that took one token."""
    counted.model_call(
        provider="stub",
        outcome=OutcomeStatus.OK,
        usage=TokenUsage(input=1),
        cost_nano=1,
        tenant=tenant,
    )


def test_every_series_has_our_prefix_and_says_what_it_is() -> None:
    counted = metrics(per_tenant=True)
    observe(counted, "/v1/models", tenant="acme")
    text = counted.render("")[0].decode()

    for family in text_string_to_metric_families(text):
        assert family.name.startswith(f"{PREFIX}_")
        assert family.documentation.endswith(".")
    assert "_created" not in text


@pytest.mark.parametrize(
    ("route", "label"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/stub/mock", "/v1/models/{model}"),
        ("/v1/tenants/{id}", "/v1/tenants/{id}"),
        ("unmatched", "unmatched"),
        ("/wp-login.php", "other"),
    ],
)
def test_a_caller_cannot_make_up_a_label(route: str, label: str) -> None:
    counted = metrics()
    observe(counted, route, method="BREW")

    assert samples(counted)["http_requests_total", *sorted((label, "other", "200"))] == 1


def test_a_model_call_counts_its_tokens_and_its_cost() -> None:
    counted = metrics()
    usage = TokenUsage(input=10, output=5, reasoning=2)
    counted.model_call(
        provider="stub", outcome=OutcomeStatus.OK, usage=usage, cost_nano=1_500_000_000, tenant="a"
    )
    counted.model_call(
        provider="", outcome=OutcomeStatus.FAILED, usage=TokenUsage(), cost_nano=None, tenant="a"
    )

    found = samples(counted)
    assert found["model_calls_total", "ok", "stub"] == 1
    assert found["model_calls_total", "failed", "none"] == 1
    assert found["tokens_total", "input"] == 10
    assert found["tokens_total", "reasoning"] == 2
    assert ("tokens_total", "cache_read") not in found
    assert found["cost_total",] == 1.5
    assert found["unpriced_calls_total",] == 1


def test_refusals_are_counted_by_their_code() -> None:
    counted = metrics()
    counted.refused("insufficient-quota")

    assert samples(counted)["refusals_total", "insufficient-quota"] == 1


def test_levels_are_read_when_asked_for() -> None:
    found = samples(metrics())

    assert found["ready",] == 1
    assert found["tenants", "awake"] == 2
    assert found["event_loop_lag_seconds",] == 0.0025
    assert found["build_info", "1.2.3"] == 1


def test_a_tenant_is_a_label_only_where_the_operator_wants_it() -> None:
    silent, telling = metrics(), metrics(per_tenant=True)
    for counted in (silent, telling):
        observe(counted, "/v1/models", tenant="acme")

    assert "acme" not in silent.render("")[0].decode()
    assert samples(telling)["tenant_requests_total", "acme"] == 1


def test_a_deleted_tenant_leaves_no_series() -> None:
    counted = metrics(per_tenant=True)
    observe(counted, "/v1/models", tenant="acme")
    counted.forget("acme")
    counted.forget("never-seen")

    assert "acme" not in counted.render("")[0].decode()


def test_what_ends_after_its_tenant_was_deleted_makes_no_series() -> None:
    here = {"acme"}
    counted = Metrics(version="1", levels=levels, per_tenant=True, holds=here.__contains__)
    observe(counted, "/v1/models", tenant="acme")
    observe(counted, "/v1/tenants/{id}", tenant="made-up-by-an-admin")
    here.clear()
    counted.forget("acme")
    observe(counted, "/v1/tenants/{id}", method="DELETE", tenant="acme")
    call(counted, tenant="acme")

    text = counted.render("")[0].decode()
    assert "acme" not in text
    assert "made-up" not in text
    assert samples(counted)["tokens_total", "input"] == 1, "the sums have it"


def test_a_tenant_that_nobody_told_of_leaves_no_series_either() -> None:
    here = {"acme", "other"}
    counted = Metrics(version="1", levels=levels, per_tenant=True, holds=here.__contains__)
    for tenant in ("acme", "other"):
        call(counted, tenant=tenant)
    here.remove("acme")

    assert samples(counted)["tenant_tokens_total", "other"] == 1
    assert "acme" not in counted.render("")[0].decode()


def test_openmetrics_comes_when_asked_for() -> None:
    content, media_type = metrics().render("application/openmetrics-text; version=1.0.0")

    assert content.endswith(b"# EOF\n")
    assert media_type.startswith("application/openmetrics-text")


def test_the_manual_has_every_series() -> None:
    counted = metrics(per_tenant=True)
    manual = (DOCS / "metrics.md").read_text()
    text = counted.render("")[0].decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}

    assert names
    for name in names:
        assert f"`{name}`" in manual
