"""What a tenant holds open: read from its files, read again, and closed whatever happens."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.config.loading import parse_config
from appliance.model.errors import (
    ApplianceError,
    TenantBroken,
    TenantDisabled,
    TenantUnknown,
    Unavailable,
)
from appliance.model.quotas import Quotas
from appliance.storage.credentials import CredentialStore, ProviderCredential, Vault
from appliance.tenants.resources import (
    LARGEST_OVERLAY,
    OVERLAY,
    OwnProvider,
    TenantOpener,
    TenantResources,
)
from tests.books import spend
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeProvider
from tests.services.tenancy import ADMIN, CONFIG, Tenancy

MINE = ProviderCredential("mine", "openai", "https://models.example.com/v1", "sk-mine")
GATEWAYS = ProviderCredential("stub", None, None, "sk-of-the-tenant")
ELSEWHERE = ProviderCredential("stub", "openai", "https://elsewhere.example.com/v1", "sk-elsewhere")


@dataclass
class Bench:
    tenancy: Tenancy
    vault: Vault = field(default_factory=lambda: Vault(b"k" * 32))
    built: list[ProviderCredential] = field(default_factory=list)
    providers: list[FakeProvider] = field(default_factory=list)
    opener: TenantOpener = field(init=False)

    def __post_init__(self) -> None:
        self.opener = TenantOpener(
            registry=self.tenancy.registry,
            roots=self.tenancy.state,
            vault=self.vault,
            config=lambda: self.tenancy.gateway,
            build_provider=self._build,
            clock=self.tenancy.clock,
        )

    def _build(self, credential: ProviderCredential) -> OwnProvider:
        provider = FakeProvider(credential.provider)
        self.built.append(credential)
        self.providers.append(provider)
        return provider

    def overlay(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.tenancy.file("acme", OVERLAY).write_bytes(data)

    def give(self, credential: ProviderCredential, *, vault: Vault | None = None) -> None:
        with self.tenancy.state.tenant_root("acme") as root:
            CredentialStore(root, vault or self.vault).set(credential)

    def take(self, provider: str) -> None:
        with self.tenancy.state.tenant_root("acme") as root:
            CredentialStore(root, self.vault).delete(provider)

    async def fails_to_open(self, failure: type[ApplianceError], text: str | None = None) -> None:
        with pytest.raises(failure, match=text):
            async with self.opener("acme"):
                pass


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    tenancy = Tenancy(tmp_path / "state")
    await tenancy.make("acme", quotas={"requests_per_minute": 7})
    yield Bench(tenancy)
    tenancy.close()


# Opening


async def test_a_tenant_opens_with_the_gateways_settings_and_its_own_quotas(bench: Bench) -> None:
    async with bench.opener("acme") as acme:
        assert acme.record.id == "acme"
        assert acme.config is bench.tenancy.gateway
        assert acme.meter.limits.requests_per_minute == 7
        assert acme.meter.limits.cost_per_month == 50 * 10**9
        assert (acme.provider_key("stub"), acme.own_provider("stub")) == (None, None)
        assert not any(service.keeps_awake for service in acme.services.values())


async def test_the_overlay_lies_on_top_of_the_gateways_settings(bench: Bench) -> None:
    bench.overlay("models: {aliases: {fast: stub/a}, max_output_tokens: 77}")

    async with bench.opener("acme") as acme:
        assert acme.config.models.aliases == {"fast": "stub/a"}
        assert acme.config.models.default == "stub/mock"
        assert acme.meter.assumed_output == 77


async def test_a_tenant_that_is_unknown_or_disabled_does_not_open(bench: Bench) -> None:
    with pytest.raises(TenantUnknown):
        async with bench.opener("nobody"):
            pass
    await bench.tenancy.tenants.update(ADMIN, "acme", disabled=True)

    await bench.fails_to_open(TenantDisabled)


BAD_OVERLAYS: dict[str, bytes] = {
    "no yaml": b"{",
    "no mapping": b"- a",
    "no utf-8": b"models: \xff",
    "unknown key": b"modles: {}",
    "wrong type": b"models: {default: 7}",
    "admin only": b"providers: {}",
    "too large": b"# " + b"x" * LARGEST_OVERLAY,
}


@pytest.mark.parametrize("overlay", BAD_OVERLAYS.values(), ids=BAD_OVERLAYS)
async def test_a_tenant_whose_overlay_cannot_be_used_is_broken(
    bench: Bench, overlay: bytes
) -> None:
    bench.overlay(overlay)

    await bench.fails_to_open(TenantBroken, r"config\.yaml")


async def test_a_link_in_the_overlays_place_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("models: {default: stub/other}")
    bench.tenancy.file("acme", OVERLAY).unlink(missing_ok=True)
    bench.tenancy.file("acme", OVERLAY).symlink_to(elsewhere)

    await bench.fails_to_open(TenantBroken)


async def test_a_damaged_ledger_breaks_only_its_tenant(bench: Bench) -> None:
    async with bench.opener("acme"):
        pass
    bench.tenancy.file("acme", "ledger/ledger.sqlite").write_bytes(b"no database" * 1000)
    await bench.tenancy.make("other")

    await bench.fails_to_open(TenantBroken)

    async with bench.opener("other") as other:
        assert other.record.id == "other"


# Reading again


@pytest.mark.parametrize("overlay", BAD_OVERLAYS.values(), ids=BAD_OVERLAYS)
async def test_a_bad_overlay_on_refresh_changes_nothing(bench: Bench, overlay: bytes) -> None:
    bench.overlay("models: {default: stub/good}")
    bench.give(GATEWAYS)
    async with bench.opener("acme") as acme:
        before = acme.config, acme.record, acme.meter.limits, acme.meter.assumed_output
        bench.overlay(overlay)
        bench.take("stub")
        await bench.tenancy.tenants.put_quotas(ADMIN, "acme", {"requests_per_minute": 1})

        with pytest.raises(TenantBroken):
            acme.refresh()

        after = acme.config, acme.record, acme.meter.limits, acme.meter.assumed_output
        assert after == before
        assert acme.provider_key("stub") == "sk-of-the-tenant"


async def test_a_refresh_takes_the_new_settings_quotas_and_keys(bench: Bench) -> None:
    async with bench.opener("acme") as acme:
        bench.overlay("models: {default: stub/new, max_output_tokens: 77}")
        bench.give(GATEWAYS)
        await bench.tenancy.tenants.put_quotas(ADMIN, "acme", {"requests_per_minute": 1})

        acme.refresh()

        assert acme.config.models.default == "stub/new"
        assert acme.meter.limits.requests_per_minute == 1
        assert acme.meter.assumed_output == 77
        assert acme.provider_key("stub") == "sk-of-the-tenant"


async def test_a_refresh_of_a_tenant_disabled_meanwhile_is_refused(bench: Bench) -> None:
    async with bench.opener("acme") as acme:
        await bench.tenancy.tenants.update(ADMIN, "acme", disabled=True)

        with pytest.raises(TenantDisabled):
            acme.refresh()

        assert not acme.record.disabled


# Keys and providers of the tenant's own


async def test_a_provider_of_ones_own_is_built_once_and_again_when_it_changes(
    bench: Bench,
) -> None:
    bench.give(MINE)
    async with bench.opener("acme") as acme:
        first = acme.own_provider("mine")
        assert acme.own_provider("mine") is first
        assert acme.provider_key("mine") is None, "it has its key already"
        assert acme.config.providers["mine"].base_url == MINE.base_url
        assert "stub" in acme.config.providers

        changed = ProviderCredential("mine", "anthropic", None, "sk-new")
        bench.give(changed)
        acme.refresh()

        assert acme.own_provider("mine") is not first
        assert bench.built == [MINE, changed]

        bench.take("mine")
        acme.refresh()
        assert acme.own_provider("mine") is None
        assert "mine" not in acme.config.providers


async def test_a_provider_that_is_not_in_use_any_more_keeps_no_connections(bench: Bench) -> None:
    def closed() -> list[int]:
        return [provider.closed for provider in bench.providers]

    bench.give(MINE)
    async with bench.opener("acme") as acme:
        acme.own_provider("mine")
        acme.refresh()
        assert closed() == [0], "nothing has changed"

        bench.give(replace(MINE, api_key="sk-new"))
        acme.refresh()
        assert closed() == [1], "at once: the tenant may stay awake for good"

        acme.own_provider("mine")
        bench.take("mine")
        acme.refresh()
        assert closed() == [1, 1]

    assert closed() == [1, 1], "once is enough"


async def test_a_key_for_another_address_never_goes_to_the_gateways_provider(
    bench: Bench,
) -> None:
    bench.give(ELSEWHERE)

    async with bench.opener("acme") as acme:
        assert acme.own_provider("stub") is None
        assert acme.provider_key("stub") == "", "not the tenant's, not the gateway's"


async def test_a_name_the_gateway_takes_later_gets_no_key_of_the_tenant(bench: Bench) -> None:
    bench.give(MINE)
    async with bench.opener("acme") as acme:
        assert acme.own_provider("mine") is not None

        more = CONFIG.replace("providers: {", "providers: {mine: {dialect: openai}, ")
        bench.tenancy.gateway = parse_config(more, name="config.yaml")
        acme.refresh()

        assert acme.own_provider("mine") is None
        assert acme.provider_key("mine") == ""


@pytest.mark.parametrize("credential", [GATEWAYS, MINE])
async def test_a_key_that_cannot_be_opened_fails_closed(
    bench: Bench, credential: ProviderCredential, caplog: pytest.LogCaptureFixture
) -> None:
    bench.give(credential, vault=Vault(b"x" * 32))

    async with bench.opener("acme") as acme:
        name = credential.provider
        if credential is MINE:
            assert acme.own_provider(name) is not None
            assert bench.built[0].api_key == ""
        else:
            assert acme.provider_key(name) == ""

    assert "a tenant's own key cannot be used" in caplog.text
    assert credential.api_key not in caplog.text


async def test_a_damaged_key_file_is_no_reason_to_use_the_gateways_key(bench: Bench) -> None:
    bench.give(MINE)
    bench.give(GATEWAYS)
    bench.tenancy.file("acme", "credentials/provider-stub.yaml").write_bytes(b"\xff")

    async with bench.opener("acme") as acme:
        assert acme.provider_key("stub") == ""
        assert acme.own_provider("mine") is not None


# Sessions, and closing


async def test_sessions_are_opened_once_by_whoever_asks_first(bench: Bench) -> None:
    async with bench.opener("acme") as acme:
        found: list[object] = []

        async def ask() -> None:
            found.append(await acme.sessions())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)

        assert len(found) == 3
        assert len(set(map(id, found))) == 1


async def test_the_session_store_is_tended_only_once_it_is_open(bench: Bench) -> None:
    async with bench.opener("acme") as acme, trio.open_nursery() as nursery:
        nursery.start_soon(acme.services["sessions"].run)
        await trio.testing.wait_all_tasks_blocked()
        assert not bench.tenancy.file("acme", "sessions/sessions.sqlite").exists()

        await acme.sessions()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def is_closed(resources: TenantResources) -> bool:
    try:
        resources.meter.reserve(spend())
    except Unavailable as error:
        return "closed" in error.detail
    return False


async def test_closing_closes_everything_even_when_cancelled(bench: Bench) -> None:
    bench.give(MINE)
    with trio.CancelScope() as scope:
        async with bench.opener("acme") as acme:
            store = await acme.sessions()
            acme.own_provider("mine")
            scope.cancel()
            await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert is_closed(acme)
    with pytest.raises(Unavailable, match="closed"):
        store.page()
    assert bench.providers[0].closed == 1
    with pytest.raises(ValueError, match="closed"):
        acme.root.exists("tenant.json")


@pytest.mark.parametrize("what", ["sessions", "ledger", "provider"])
async def test_what_cannot_be_closed_keeps_nothing_else_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    closed: list[str] = []

    def note(name: str, holder: Any, method: str) -> None:
        really = getattr(holder, method)

        async def close() -> None:
            closed.append(name)
            await really()
            if name == what:
                raise OSError(name)

        monkeypatch.setattr(holder, method, close)

    async def open_and_close() -> None:
        async with bench.opener("acme") as acme:
            for name in ("mine", "yours"):
                acme.own_provider(name)
            note("sessions", await acme.sessions(), "close")
            note("ledger", acme._ledger, "close")
            note("provider", bench.providers[0], "aclose")
            note("other provider", bench.providers[1], "aclose")

    bench.give(MINE)
    bench.give(ProviderCredential("yours", "openai", "https://b.example.com/v1", "sk-b"))
    with pytest.raises(OSError, match=what):
        await open_and_close()

    assert sorted(closed) == ["ledger", "other provider", "provider", "sessions"]


async def test_an_opening_cancelled_anywhere_leaves_nothing_open(bench: Bench) -> None:
    opened: list[TenantResources] = []

    async def work() -> None:
        async with bench.opener("acme") as acme:
            opened.append(acme)
            await acme.sessions()

    async for _ in each_cancellation(work):
        assert all(is_closed(acme) for acme in opened)

    assert opened
    async with bench.opener("acme") as acme:
        assert acme.meter.limits != Quotas()
