from dataclasses import replace
from typing import Any

import pytest

from appliance.config.schema import (
    AdminKeyConfig,
    GatewayConfig,
    ModelsConfig,
    ProviderConfig,
    ServerConfig,
)
from appliance.sandboxes.base import Probe, Proof
from appliance.services.checks import (
    INSTALLATION_CHECKS,
    VITAL_CHECKS,
    Finding,
    Installation,
    Verdict,
    Vitals,
    run_checks,
    worst,
)

GIB = 1024**3
HEALTHY = Vitals(free_bytes=10 * GIB)
SERVER = ServerConfig(admin_keys=[AdminKeyConfig(label="first", hash="sha256:" + "0" * 64)])
CONFIG = GatewayConfig(
    server=SERVER,
    providers={"stub": ProviderConfig(dialect="openai")},
    models=ModelsConfig(default="stub/mock"),
)
SOUND = Installation(
    vitals=HEALTHY,
    state_dir="/var/lib/openclawmu",
    state_mode=0o700,
    state_owner=1000,
    user=1000,
    config=CONFIG,
    secret_modes={"kek": 0o600},
    descriptor_limit=65536,
)


def verdict(found: Vitals | Installation, name: str) -> Verdict:
    (finding,) = [finding for finding in run_checks(found) if finding.name == name]
    return finding.verdict


def with_server(**changes: Any) -> Installation:
    server = ServerConfig(admin_keys=SERVER.admin_keys, **changes)
    return replace(SOUND, config=GatewayConfig(server=server))


def test_a_sound_installation_has_nothing_to_repair() -> None:
    findings = run_checks(SOUND)

    assert worst(findings) is Verdict.OK
    assert len(findings) == len(VITAL_CHECKS) + len(INSTALLATION_CHECKS)
    assert not any(finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (10 * GIB, Verdict.OK),
        (GIB - 1, Verdict.WARNING),
        (64 * 1024**2, Verdict.WARNING),
        (64 * 1024**2 - 1, Verdict.BROKEN),
        (0, Verdict.BROKEN),
    ],
)
def test_the_disk_is_broken_before_it_is_full(free: int, expected: Verdict) -> None:
    assert verdict(replace(HEALTHY, free_bytes=free), "disk") is expected


def test_a_running_gateway_survives_a_config_that_the_next_start_would_not() -> None:
    running = replace(HEALTHY, config_problem="line 3: unknown key")
    stopped = replace(SOUND, vitals=replace(running, running=False), config=None)

    assert verdict(running, "config") is Verdict.WARNING
    assert verdict(stopped, "config") is Verdict.BROKEN


def test_what_cannot_be_audited_cannot_be_done() -> None:
    assert verdict(replace(HEALTHY, audit_problem="read-only"), "audit log") is Verdict.BROKEN


def test_broken_tenants_are_named_but_not_all_of_a_thousand() -> None:
    broken = {f"t{number:04}": "cut off" for number in range(1000)}
    (finding,) = [
        each
        for each in run_checks(replace(HEALTHY, broken_tenants=broken))
        if each.name == "tenants"
    ]

    assert finding.verdict is Verdict.WARNING
    assert finding.found.startswith("t0000: cut off; t0001")
    assert finding.found.endswith("and 995 more")


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({"state_mode": 0o750}, "state directory", Verdict.BROKEN),
        ({"state_owner": 0}, "state directory", Verdict.BROKEN),
        ({"secret_modes": {"kek": 0o640}}, "secrets", Verdict.BROKEN),
        ({"secret_modes": {"kek": 0o400}}, "secrets", Verdict.OK),
        ({"unresolved": ["STUB_KEY is not set"]}, "secret references", Verdict.WARNING),
        ({"audit_findings": ["audit.log:2: edited"]}, "audit chain", Verdict.BROKEN),
        ({"descriptor_limit": 256}, "open files", Verdict.WARNING),
        ({"config": GatewayConfig()}, "admin key", Verdict.BROKEN),
        ({"config": GatewayConfig()}, "models", Verdict.WARNING),
        ({"config": None}, "admin key", Verdict.WARNING),
    ],
)
def test_each_thing_that_can_be_wrong_is_found(
    changes: dict[str, Any], name: str, expected: Verdict
) -> None:
    assert verdict(replace(SOUND, **changes), name) is expected


def test_a_proxy_that_nobody_named_is_noticed() -> None:
    unnamed = with_server(behind_proxy=True)
    named = with_server(behind_proxy=True, trusted_proxies=["127.0.0.1"])

    assert verdict(unnamed, "proxy") is Verdict.WARNING
    assert verdict(named, "proxy") is Verdict.OK


def test_a_part_that_does_not_load_is_broken() -> None:
    parts = [("vector search", False, "no such file"), ("database", True, "SQLite 3")]
    findings = {finding.name: finding for finding in run_checks(replace(SOUND, self_tests=parts))}

    assert findings["vector search"].verdict is Verdict.BROKEN
    assert findings["vector search"].remedy
    assert findings["database"] == Finding("database", Verdict.OK, "SQLite 3")


def test_a_gateway_without_isolation_is_warned_of_and_not_broken() -> None:
    assert verdict(HEALTHY, "sandbox") is Verdict.OK
    broken = replace(HEALTHY, sandbox=Proof(backend="bubblewrap", problem="no user namespaces"))
    assert verdict(broken, "sandbox") is Verdict.WARNING
    assert worst(run_checks(broken)) is Verdict.WARNING
    sound = Proof(backend="bubblewrap", probes=[Probe("user", passed=True)], limits="cgroup v2")
    (finding,) = [
        each for each in run_checks(replace(HEALTHY, sandbox=sound)) if each.name == "sandbox"
    ]
    assert finding.found == "bubblewrap: 1 of 1 probes hold; limits: cgroup v2"


def test_doctor_shows_each_probe_that_failed_and_what_is_not_enforced() -> None:
    proof = Proof(
        backend="bubblewrap",
        problem="the isolation does not hold",
        probes=[Probe("user", passed=True), Probe("network", passed=False, detail="it answered")],
        warnings=["nobody limits memory"],
    )
    findings = run_checks(replace(SOUND, vitals=replace(HEALTHY, sandbox=proof)))
    told = {finding.name: finding for finding in findings}
    assert told["sandbox: network"].found == "it answered"
    assert "sandbox: user" not in told
    assert told["sandbox limits"].found == "nobody limits memory"


def test_a_way_out_that_no_command_finds_is_told() -> None:
    assert (
        verdict(replace(SOUND, egress_problem="install socat"), "sandbox egress") is Verdict.WARNING
    )
