from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.config.loading import parse_config
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import (
    AuditUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    ScopeMissing,
    TenantUnknown,
)
from appliance.model.tokens import Scope
from appliance.services.credentials import ProviderKeys
from appliance.storage.credentials import CredentialStore, ProviderEntry, Vault
from appliance.storage.state import StateDirectory

ADMIN = Caller(ActorKind.ADMIN, "first", None)
PROVIDERS = "providers: {openai: {dialect: openai}, claude: {dialect: anthropic}}\n"


def tenant(tenant_id: str, *scopes: Scope) -> Caller:
    return Caller(ActorKind.TENANT, "tok_1", tenant_id, frozenset(scopes))


OWNER = tenant("acme", Scope.MANAGE)


class FakeAudit:
    """Notes what happened in which order; ``broken`` refuses as the real one does."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, Mapping[str, object]]] = []
        self.broken = False

    @asynccontextmanager
    async def action(
        self,
        caller: Caller,
        action: str,
        *,
        tenant: str | None = None,
        target: str = "",
        details: Mapping[str, object] | None = None,
    ) -> AsyncIterator[None]:
        if self.broken:
            raise AuditUnavailable("the disk is full")
        self.lines.append((action, f"{tenant}/{target}", dict(details or {})))
        yield


class FakeRunning:
    def __init__(self) -> None:
        self.refreshed: list[str] = []

    def refresh(self, tenant: str) -> None:
        self.refreshed.append(tenant)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    with StateDirectory.open(tmp_path / "state") as state:
        for name in ("acme", "other"):
            state.create_tenant(name).close()
        yield state


@pytest.fixture
def vault(state: StateDirectory) -> Vault:
    return Vault.open(state)


@pytest.fixture
def audit() -> FakeAudit:
    return FakeAudit()


@pytest.fixture
def running() -> FakeRunning:
    return FakeRunning()


def service(
    state: StateDirectory, vault: Vault, audit: FakeAudit, running: FakeRunning, more: str = ""
) -> ProviderKeys:
    config = parse_config(PROVIDERS + more, name="config.yaml")
    return ProviderKeys(state, vault, audit=audit, running=running, config=lambda: config)


@pytest.fixture
def keys(
    state: StateDirectory, vault: Vault, audit: FakeAudit, running: FakeRunning
) -> ProviderKeys:
    return service(state, vault, audit, running)


def stored(state: StateDirectory, vault: Vault, provider: str) -> str | None:
    with state.tenant_root("acme") as root:
        found = CredentialStore(root, vault).get(provider)
    return None if found is None else found.api_key


async def test_a_key_for_a_provider_of_the_gateway_is_the_key_alone(
    keys: ProviderKeys, state: StateDirectory, vault: Vault
) -> None:
    assert await keys.put(OWNER, "acme", "openai", api_key="sk-1") == ProviderEntry(
        "openai", None, None
    )
    assert stored(state, vault, "openai") == "sk-1"
    assert await keys.list(OWNER, "acme") == [ProviderEntry("openai", None, None)]
    assert await keys.list(OWNER, "acme") == await keys.list(ADMIN, "acme")


@pytest.mark.parametrize(
    ("dialect", "base_url"), [("openai", None), (None, "https://evil.example.org")]
)
async def test_the_address_of_a_provider_of_the_gateway_is_the_operator_s(
    keys: ProviderKeys, dialect: str | None, base_url: str | None
) -> None:
    with pytest.raises(InvalidRequest, match="choose another name"):
        await keys.put(OWNER, "acme", "openai", api_key="k", dialect=dialect, base_url=base_url)


async def test_a_provider_of_one_s_own_has_a_dialect_and_an_address(
    keys: ProviderKeys, state: StateDirectory, vault: Vault
) -> None:
    await keys.put(
        OWNER, "acme", "mine", api_key="k", dialect="openai", base_url="https://api.example.org/v1"
    )
    await keys.put(OWNER, "acme", "home", api_key="k", dialect="anthropic")
    assert {entry.provider for entry in await keys.list(OWNER, "acme")} == {"home", "mine"}
    assert stored(state, vault, "mine") == "k"


@pytest.mark.parametrize("dialect", [None, "embedded", "openia", ""])
async def test_a_provider_of_one_s_own_speaks_a_dialect_that_leaves_the_machine(
    keys: ProviderKeys, dialect: str | None
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await keys.put(OWNER, "acme", "mine", api_key="k", dialect=dialect)
    assert caught.value.fields[0].field == "dialect"


PRIVATE = [
    "https://127.0.0.1/", "https://10.0.0.1/", "https://192.168.1.1/", "https://169.254.169.254/",
    "https://[::1]/", "https://[fd00::1]/", "https://[::ffff:127.0.0.1]/", "https://localhost/",
    "https://printer/", "https://x.localhost/", "https://nas.local/", "https://0.0.0.0/",
    "https://metadata.google.internal/", "https://metadata.google.internal./", "https://224.0.0.1/",
    "https://100.64.0.1/", "http://api.example.org/",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE)
async def test_a_provider_of_one_s_own_is_not_inside_the_operator_s_network(
    keys: ProviderKeys, audit: FakeAudit, url: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await keys.put(OWNER, "acme", "mine", api_key="k", dialect="openai", base_url=url)
    assert caught.value.fields[0].field == "base_url"
    assert audit.lines == []


async def test_the_operator_may_allow_private_addresses(
    state: StateDirectory, vault: Vault, audit: FakeAudit, running: FakeRunning
) -> None:
    keys = service(state, vault, audit, running, "egress: {allow_private: true}\n")
    await keys.put(
        OWNER, "acme", "mine", api_key="k", dialect="ollama", base_url="http://10.0.0.5:11434"
    )
    with pytest.raises(InvalidRequest, match="name it"):
        await keys.put(OWNER, "acme", "mine", api_key="k", dialect="ollama")


@pytest.mark.parametrize("url", ["ftp://x.org", "https://u:p@x.org", "https://x.org/?a=1", "x"])
async def test_an_address_is_a_plain_url(keys: ProviderKeys, url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await keys.put(OWNER, "acme", "mine", api_key="k", dialect="openai", base_url=url)
    assert caught.value.fields[0].field == "base_url"


@pytest.mark.parametrize("api_key", ["", " ", "a b", "a\r\nx: y", "é", "x" * 4097, "a\ud800"])
async def test_a_key_that_could_not_stand_in_a_header_is_refused(
    keys: ProviderKeys, api_key: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await keys.put(OWNER, "acme", "openai", api_key=api_key)
    assert caught.value.fields[0].field == "api_key"


@pytest.mark.parametrize("name", ["openclaw", "..", "A", "a/b", ""])
async def test_a_provider_name_that_would_be_confused_is_refused(
    keys: ProviderKeys, name: str
) -> None:
    with pytest.raises(InvalidRequest):
        await keys.put(OWNER, "acme", name, api_key="k", dialect="openai")
    with pytest.raises(InvalidRequest):
        await keys.delete(OWNER, "acme", name)


async def test_a_key_can_be_forgotten(keys: ProviderKeys) -> None:
    await keys.put(OWNER, "acme", "openai", api_key="k")
    await keys.delete(OWNER, "acme", "openai")
    assert await keys.list(OWNER, "acme") == []
    with pytest.raises(NotFound):
        await keys.delete(OWNER, "acme", "openai")


async def test_every_change_is_audited_without_the_key_and_reaches_the_running_tenant(
    keys: ProviderKeys, audit: FakeAudit, running: FakeRunning
) -> None:
    await keys.put(OWNER, "acme", "openai", api_key="sk-secret")
    await keys.delete(OWNER, "acme", "openai")
    assert [line[:2] for line in audit.lines] == [
        ("credential.set", "acme/openai"),
        ("credential.delete", "acme/openai"),
    ]
    assert "sk-secret" not in repr(audit.lines)
    assert running.refreshed == ["acme", "acme"]


async def test_a_change_that_cannot_be_audited_does_not_happen(
    keys: ProviderKeys,
    audit: FakeAudit,
    running: FakeRunning,
    state: StateDirectory,
    vault: Vault,
) -> None:
    await keys.put(OWNER, "acme", "openai", api_key="old")
    audit.broken = True
    with pytest.raises(AuditUnavailable):
        await keys.put(OWNER, "acme", "openai", api_key="new")
    with pytest.raises(AuditUnavailable):
        await keys.delete(OWNER, "acme", "openai")
    assert stored(state, vault, "openai") == "old"
    assert running.refreshed == ["acme"]


async def test_a_stranger_may_neither_look_nor_touch(keys: ProviderKeys) -> None:
    await keys.put(OWNER, "acme", "openai", api_key="k")
    for stranger in (tenant("other", Scope.FULL), tenant("nobody", Scope.FULL)):
        with pytest.raises(Forbidden):
            await keys.list(stranger, "acme")
        with pytest.raises(Forbidden):
            await keys.put(stranger, "acme", "openai", api_key="theirs")
        with pytest.raises(Forbidden):
            await keys.delete(stranger, "acme", "openai")


async def test_a_token_needs_the_scope_for_it(keys: ProviderKeys) -> None:
    reader = tenant("acme", Scope.READ)
    assert await keys.list(reader, "acme") == []
    with pytest.raises(ScopeMissing):
        await keys.put(reader, "acme", "openai", api_key="k")
    with pytest.raises(ScopeMissing):
        await keys.list(tenant("acme", Scope.CHAT), "acme")


async def test_an_unknown_tenant_is_unknown(keys: ProviderKeys) -> None:
    for name in ("nobody", "../acme"):
        with pytest.raises(TenantUnknown):
            await keys.list(ADMIN, name)
        with pytest.raises(TenantUnknown):
            await keys.put(ADMIN, name, "openai", api_key="k")
