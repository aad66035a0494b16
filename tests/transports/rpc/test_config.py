"""``config.*`` as a tenant's client calls them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from appliance.config.loading import parse_config
from appliance.config.redaction import REDACTED
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import (
    AdminOnlyKey,
    ConfigInvalid,
    Forbidden,
    ForeignSession,
    InvalidRequest,
    RateLimited,
    ScopeMissing,
)
from appliance.model.tokens import Scope
from appliance.transports.rpc.config import METHODS
from tests.services.tenancy import ADMIN, CONFIG
from tests.transports.rpc.settings_bench import Bench, Heard, open_bench

FAST = {"models": {"aliases": {"fast": "stub/mock"}}}
SECRETIVE = CONFIG.replace(
    'base_url: "http://127.0.0.1:9101/v1"',
    'base_url: "http://10.9.8.7/v1", api_key: "env:STUB_KEY"',
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, METHODS) as bench:
        bench.tenancy.gateway = parse_config(
            SECRETIVE + "\nenv: {LANG: C}\nmeta: {note: mine}\n", name="config.yaml"
        )
        yield bench


async def test_what_was_never_written_is_shown_as_such(bench: Bench) -> None:
    shown = await bench.call("config.get")

    assert shown["path"] == "tenant:acme"
    assert (shown["exists"], shown["valid"], shown["raw"], shown["parsed"]) == (
        False,
        True,
        None,
        {},
    )
    assert shown["config"]["models"]["default"] == "stub/mock"
    assert shown["issues"] == shown["warnings"] == shown["legacyIssues"] == []


async def test_nothing_of_the_operator_is_shown(bench: Bench) -> None:
    text = json.dumps(await bench.call("config.get"))

    for secret in (
        "STUB_KEY",
        "10.9.8.7",
        str(bench.tenancy.state.path),
        "LANG",
        "mine",
        "rate_card",
        "allow_private",
    ):
        assert secret not in text
    for section in ("server", "providers", "quotas", "env", "meta", "logging", "backup"):
        assert f'"{section}"' not in text


async def test_what_is_set_is_what_is_read(bench: Bench) -> None:
    written = await bench.call("config.set", raw=json.dumps(FAST))

    shown = await bench.call("config.get")

    assert written["ok"] is True
    assert shown["hash"] == shown["appliedConfigHash"] == written["hash"]
    assert json.loads(shown["raw"]) == shown["parsed"] == FAST
    assert shown["config"]["models"]["aliases"] == {"fast": "stub/mock"}
    assert bench.tenancy.running.calls[-1] == ("refresh", "acme")
    assert bench.tenancy.audit.actions[-1]["action"] == "config.write"


async def test_what_is_shown_may_be_sent_back_whole(bench: Bench) -> None:
    """The form of the original's web page does just that."""
    shown = (await bench.call("config.get"))["config"]

    await bench.call("config.set", raw=json.dumps(shown))

    assert (await bench.call("config.get"))["config"] == shown


async def test_json5_is_understood(bench: Bench) -> None:
    await bench.call("config.set", raw="{models: {aliases: {fast: 'stub/mock',}}} // quick")

    assert (await bench.call("config.get"))["parsed"] == FAST


async def test_a_write_names_what_it_replaces(bench: Bench) -> None:
    first = await bench.call("config.set", raw="{}")

    for name in ("config.set", "config.apply", "config.patch"):
        with pytest.raises(InvalidRequest, match=r"^config base hash required; re-run config\.get"):
            await bench.call(name, raw="{}")
    with pytest.raises(InvalidRequest) as caught:
        await bench.call("config.set", raw="{}", baseHash="0" * 32)
    assert str(caught.value) == "config changed since last load; re-run config.get and retry"
    await bench.call("config.set", raw=json.dumps(FAST), baseHash=first["hash"])


async def test_of_two_who_write_at_once_one_is_told(bench: Bench) -> None:
    base = (await bench.call("config.set", raw="{}"))["hash"]
    outcomes: list[str] = []

    async def write(alias: str) -> None:
        raw = json.dumps({"models": {"aliases": {alias: "stub/mock"}}})
        try:
            await bench.call("config.patch", raw=raw, baseHash=base)
        except InvalidRequest:
            outcomes.append("refused")
        else:
            outcomes.append("written")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, "a")
        nursery.start_soon(write, "b")

    assert sorted(outcomes) == ["refused", "written"]


async def test_a_patch_changes_what_it_names(bench: Bench) -> None:
    base = (await bench.call("config.set", raw=json.dumps(FAST)))["hash"]

    done = await bench.call(
        "config.patch",
        raw="{models: {aliases: {fast: null, smart: 'stub/b'}}}",
        baseHash=base,
        note="why not",
        sessionKey="agent:main:main",
        restartDelayMs=0,
        deliveryContext={"channel": "webchat", "threadId": 7},
        replacePaths=["a.b"],
    )

    assert done["restart"] is None
    assert (await bench.call("config.get"))["parsed"] == {
        "models": {"aliases": {"smart": "stub/b"}}
    }


@pytest.mark.parametrize("name", ["config.set", "config.apply", "config.patch"])
@pytest.mark.parametrize("raw", ["[]", "7", "null", '"text"'])
async def test_settings_are_an_object(bench: Bench, name: str, raw: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} raw must be an object"):
        await bench.call(name, raw=raw)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("server", {"server": {"bind": "0.0.0.0:1"}}),
        ("providers", {"providers": {"evil": {"dialect": "openai"}}}),
        ("models.rate_card", {"models": {"rate_card": {}}}),
        ("egress.allow_private", {"egress": {"allow_private": True}}),
        ("env", {"env": {"LD_PRELOAD": "x"}}),
    ],
)
async def test_keys_of_the_operator_are_refused_by_name(
    bench: Bench, key: str, settings: dict[str, Any]
) -> None:
    for name in ("config.set", "config.patch"):
        with pytest.raises(AdminOnlyKey, match=key):
            await bench.call(name, raw=json.dumps(settings))

    assert (await bench.call("config.get"))["exists"] is False


async def test_a_mistake_is_named_with_its_place(bench: Bench) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        await bench.call("config.set", raw='{"defaults": {"session": {"scope": "galaxy"}}}')

    assert str(caught.value).startswith(
        "invalid config: at /defaults/session/scope: must be one of"
    )


async def test_a_secrets_mark_is_not_taken_for_a_value(bench: Bench) -> None:
    base = (await bench.call("config.set", raw=json.dumps(FAST)))["hash"]

    with pytest.raises(ConfigInvalid, match="at /models/default: there is no stored value"):
        await bench.call(
            "config.set", raw=json.dumps({"models": {"default": REDACTED}}), baseHash=base
        )
    await bench.call(
        "config.set", raw=json.dumps({"models": {"aliases": {"fast": REDACTED}}}), baseHash=base
    )

    assert (await bench.call("config.get"))["parsed"] == FAST


async def test_whoever_writes_in_a_loop_is_stopped(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    for name in ("config.apply", "config.patch", "config.apply"):
        shown = await bench.call("config.get")
        await bench.call(name, raw="{}", baseHash=shown["hash"])

    with pytest.raises(RateLimited) as caught:
        await bench.call("config.patch", raw="{}")

    assert str(caught.value) == "rate limit exceeded for config.patch; retry after 60s"
    await trio.sleep(60)
    await bench.call("config.patch", raw="{}", baseHash=(await bench.call("config.get"))["hash"])


async def test_the_tenants_clients_hear_of_a_change(bench: Bench) -> None:
    heard = Heard()
    assert bench.tenant is not None

    with bench.tenant.events.subscribed(heard):
        written = await bench.call("config.set", raw="{}")

    (event,) = heard.events
    assert event.name == "config.changed"
    payload = json.loads(event.payload)
    assert payload == {"path": "tenant:acme", "hash": written["hash"], "ts": payload["ts"]}


async def test_a_file_that_was_damaged_by_hand_is_shown_and_replaced(bench: Bench) -> None:
    bench.tenancy.file("acme", "config.yaml").write_text("models: {default: [\n")

    shown = await bench.call("config.get")
    await bench.call("config.set", raw=json.dumps(FAST), baseHash=shown["hash"])

    assert (shown["valid"], shown["exists"]) == (False, True)
    assert shown["issues"]
    assert (await bench.call("config.get"))["parsed"] == FAST


async def test_a_file_with_the_operators_keys_in_it_says_so(bench: Bench) -> None:
    bench.tenancy.file("acme", "config.yaml").write_text("server: {bind: '0.0.0.0:1'}\n")

    shown = await bench.call("config.get")

    assert [issue["path"] for issue in shown["issues"]] == ["server"]
    assert "bind" not in json.dumps(shown["config"])


async def test_looking_is_not_changing(bench: Bench) -> None:
    bench.caller = await bench.tenancy.caller("acme", Scope.READ)

    await bench.call("config.get")
    with pytest.raises(ScopeMissing):
        await bench.call("config.set", raw="{}")


async def test_a_foreign_session_is_refused(bench: Bench) -> None:
    with pytest.raises(ForeignSession):
        await bench.call("config.patch", raw="{}", sessionKey="tenant:other:agent:main:main")


async def test_an_admin_at_large_sees_the_gateways_config_without_secrets(bench: Bench) -> None:
    bench.tenant, bench.caller = None, ADMIN

    shown = await bench.call("config.get")

    assert shown["path"] == "gateway"
    assert shown["config"]["providers"]["stub"]["api_key"] == REDACTED
    assert "STUB_KEY" not in json.dumps(shown)
    for name in ("config.set", "config.apply", "config.patch"):
        with pytest.raises(Forbidden, match=r"config\.yaml"):
            await bench.call(name, raw="{}")


async def test_an_admin_who_acts_for_a_tenant_changes_the_tenants(bench: Bench) -> None:
    bench.caller = Caller(ActorKind.ADMIN_ON_BEHALF, "first", "acme")

    base = (await bench.call("config.set", raw=json.dumps(FAST)))["hash"]

    with pytest.raises(AdminOnlyKey, match="server"):
        await bench.call("config.patch", raw='{"server": {"bind": "x"}}', baseHash=base)


async def test_the_schema_describes_the_settings(bench: Bench) -> None:
    described = await bench.call("config.schema")
    agents = await bench.call("config.schema.lookup", path="defaults.agents")

    assert described["version"] == "1.2.3"
    assert "server" not in described["schema"]["properties"]
    assert [child["path"] for child in agents["children"]] == ["defaults.agents.*"]
    assert agents["children"][0]["hasChildren"] is True
    with pytest.raises(InvalidRequest, match="config schema path not found"):
        await bench.call("config.schema.lookup", path="server.bind")
