from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

import msgspec
import pytest

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.errors import Unavailable
from appliance.model.session_keys import SessionKey
from appliance.sandboxes.base import Proof
from appliance.services.events import TenantEvents
from appliance.services.routing import Router
from appliance.services.snapshot_shapes import Health, Status
from appliance.services.snapshots import LASTS, Snapshots
from appliance.services.tenant_state import SystemText, TenantState
from appliance.storage.sessions import SessionStore
from tests.books import NOON, HandClock
from tests.storage.talks import KEY, later, store_in_memory, turn

CONFIG = """
models: {default: stub/m}
providers: {stub: {dialect: openai, base_url: "http://127.0.0.1:9101/v1", context_tokens: 1000}}
defaults: {agents: {ops: {name: Operations}}}
"""


class NoRuns:
    def for_session(self, key: str, /) -> Iterable[Any]:
        return ()

    async def wait(self, run_id: str, timeout: float, /) -> object | None:  # noqa: ASYNC109 - the run book's
        return None


class FakeTenant:
    def __init__(self, store: SessionStore) -> None:
        self.id = "acme"
        self.config: GatewayConfig = parse_config(CONFIG, name="config.yaml")
        self.events = TenantEvents()
        self.runs = NoRuns()
        self.state = TenantState()
        self.store = store
        self.opened = 0

    async def sessions(self) -> SessionStore:
        self.opened += 1
        return self.store


class FakeFacts:
    started_at: datetime = NOON - timedelta(minutes=1)
    tenants_known = 3
    tenants_disabled = 1
    tenants_awake = 2
    broken: Mapping[str, str] = {"torn": "cut off"}
    disk_free_bytes = 5
    config_problem: str | None = None
    providers: Sequence[str] = ("stub",)
    sandbox = Proof(backend="bubblewrap", limits="cgroup v2")


@pytest.fixture
def clock() -> HandClock:
    return HandClock(later(5))


@pytest.fixture
def snapshots(clock: HandClock) -> Snapshots:
    return Snapshots(router=Router(dict, clock=clock), facts=FakeFacts, clock=clock, version="1.2")


@pytest.fixture
def tenant() -> FakeTenant:
    store = store_in_memory()
    turn(store, "hi", "hello", minutes=1)
    turn(store, "deploy", "done", key=SessionKey("acme", "ops", "room"), minutes=2)
    return FakeTenant(store)


async def test_health_counts_the_sessions_of_each_agent(
    snapshots: Snapshots, tenant: FakeTenant
) -> None:
    health = msgspec.json.decode(await snapshots.health(tenant))

    assert health["ok"] is True
    assert health["sessions"]["count"] == 2
    assert health["sessions"]["path"] == "tenant:acme"
    assert health["sessions"]["recent"][0] == {
        "key": "agent:ops:room",
        "updatedAt": 1_795_262_520_000,
        "age": 180_000,
    }
    main, ops = health["agents"]
    assert (main["agentId"], main["isDefault"], main["sessions"]["count"]) == ("main", True, 1)
    assert (ops["agentId"], ops["name"], ops["isDefault"]) == ("ops", "Operations", False)
    # What stock clients read unasked:
    assert {
        "channels",
        "channelOrder",
        "channelLabels",
        "heartbeatSeconds",
        "durationMs",
        "ts",
    } <= {*health}
    assert {"enabled", "every", "everyMs", "prompt", "target", "ackMaxChars"} == {
        *main["heartbeat"]
    }
    msgspec.convert(health, Health)


async def test_health_is_made_anew_after_five_seconds_or_when_probed(
    snapshots: Snapshots, tenant: FakeTenant, clock: HandClock
) -> None:
    first = await snapshots.health(tenant)
    turn(tenant.store, "more", "yes", key=SessionKey("acme", "main", "new"))

    assert snapshots.health_nowait(tenant) is first
    probed = snapshots.health_nowait(tenant, probe=True)
    assert msgspec.json.decode(probed)["sessions"]["count"] == 3
    clock.now += LASTS
    assert snapshots.health_nowait(tenant) is not probed
    assert tenant.opened == 1


async def test_before_the_sessions_are_open_nothing_is_made_up(
    snapshots: Snapshots, tenant: FakeTenant
) -> None:
    with pytest.raises(Unavailable, match="waking up"):
        snapshots.health_nowait(tenant)


async def test_a_tenant_that_woke_again_is_looked_at_again(
    snapshots: Snapshots, tenant: FakeTenant
) -> None:
    await snapshots.health(tenant)
    again = FakeTenant(store_in_memory())

    assert msgspec.json.decode(await snapshots.health(again))["sessions"]["count"] == 0


async def test_a_fresh_health_costs_a_look_up(snapshots: Snapshots, tenant: FakeTenant) -> None:
    await snapshots.health(tenant)
    began = perf_counter()
    for _ in range(10_000):
        snapshots.health_nowait(tenant)

    assert perf_counter() - began < 0.2  # 50,000 a second, on whatever runs this


async def test_status_shows_how_full_the_sessions_are(
    snapshots: Snapshots, tenant: FakeTenant
) -> None:
    tenant.store.begin_run(
        KEY, [{"role": "user", "content": "x"}], request_id="r", model="stub/m", now=later(3)
    )
    tenant.state.system_texts.append(SystemText(0, "the kettle boils"))
    status = msgspec.json.decode(msgspec.json.encode(await snapshots.status(tenant)))

    assert status["channelSummary"] == []
    assert status["queuedSystemEvents"] == ["the kettle boils"]
    assert status["runtimeVersion"] == "1.2"
    assert "cliProjection" not in status
    assert "gateway" not in status
    sessions = status["sessions"]
    assert (sessions["paths"], sessions["count"]) == (["tenant:acme"], 2)
    assert sessions["defaults"] == {"model": "m", "contextTokens": 1000}
    assert [each["agentId"] for each in sessions["byAgent"]] == ["main", "ops"]
    line = sessions["recent"][0]
    assert line["key"] == "agent:main:room"
    assert (line["kind"], line["model"], line["contextTokens"]) == ("direct", "m", 1000)
    assert line["totalTokens"] + line["remainingTokens"] == 1000
    assert line["percentUsed"] == round(line["totalTokens"] / 10)
    assert [each["agentId"] for each in status["heartbeat"]["agents"]] == ["main", "ops"]
    msgspec.convert(status, Status)


async def test_a_command_line_is_told_the_agents_names(
    snapshots: Snapshots, tenant: FakeTenant
) -> None:
    status = await snapshots.status(tenant, for_cli=True)

    agents = msgspec.to_builtins(status)["cliProjection"]["agents"]
    assert agents["defaultId"] == "main"
    assert agents["rows"] == [{"id": "main", "name": "main"}, {"id": "ops", "name": "Operations"}]


def test_an_admin_at_large_is_told_of_the_gateway(snapshots: Snapshots, clock: HandClock) -> None:
    health = msgspec.json.decode(snapshots.gateway_health())
    status = msgspec.json.decode(msgspec.json.encode(snapshots.gateway_status(for_cli=True)))

    assert health["gateway"] == status["gateway"]
    assert health["gateway"]["tenants"] == 3
    assert health["gateway"]["tenantsBroken"] == {"torn": "cut off"}
    assert health["gateway"]["uptimeMs"] == 360_000
    # Stock clients fall over without these.
    assert status["channelSummary"] == []
    assert status["sessions"]["byAgent"] == []
    assert snapshots.gateway_health() is snapshots.gateway_health()
    clock.now += LASTS
    assert msgspec.json.decode(snapshots.gateway_health())["ts"] == health["ts"] + 5000
