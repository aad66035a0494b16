import base64
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, NotFound
from appliance.storage.credentials import (
    CredentialDamaged,
    CredentialStore,
    ProviderCredential,
    ProviderEntry,
    Vault,
    VaultUnusable,
)
from appliance.storage.paths import TenantRoot
from appliance.storage.state import StateDirectory

KEY = bytes(range(32))
PLACE = ("provider-key", "acme", "openai", "", "")
# What Vault(KEY) made of "sk-secret" at PLACE in the first release. It must open for ever.
SEALED = "v1:AAECAwQFBgcICQoLNGn7aKCGsH75dgvdCP5E9bTE17M8YoNegA=="
OURS = ProviderCredential("openai", None, None, "sk-secret-123")
OWN = ProviderCredential("mine", "openai", "https://api.example.org/v1", "sk-other")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    with StateDirectory.open(tmp_path / "state") as state:
        yield state


@pytest.fixture
def vault(state: StateDirectory) -> Vault:
    return Vault.open(state)


@pytest.fixture
def acme(state: StateDirectory) -> Iterator[TenantRoot]:
    with state.create_tenant("acme") as root:
        yield root


@pytest.fixture
def store(acme: TenantRoot, vault: Vault) -> CredentialStore:
    return CredentialStore(acme, vault)


def file_of(state: StateDirectory, tenant: str = "acme", provider: str = "openai") -> Path:
    return state.path / "tenants" / tenant / "credentials" / f"provider-{provider}.yaml"


def test_a_key_that_was_set_can_be_used(store: CredentialStore) -> None:
    store.set(OURS)
    store.set(OWN)
    assert store.get("openai") == OURS
    assert store.get("mine") == OWN
    assert store.get("nothing") is None


def test_a_listing_shows_no_key(store: CredentialStore) -> None:
    assert store.list() == []
    store.set(OURS)
    store.set(OWN)
    assert store.list() == [
        ProviderEntry("mine", "openai", "https://api.example.org/v1"),
        ProviderEntry("openai", None, None),
    ]


def test_a_key_is_nowhere_in_clear(store: CredentialStore, state: StateDirectory) -> None:
    store.set(OURS)
    text = file_of(state).read_text()
    assert "sk-secret" not in text
    assert base64.b64encode(b"sk-secret-123").decode()[:8] not in text
    assert "sk-secret" not in repr(OURS)
    assert stat.S_IMODE(file_of(state).stat().st_mode) == 0o600


def test_setting_it_again_replaces_it_under_a_new_nonce(
    store: CredentialStore, state: StateDirectory
) -> None:
    store.set(OURS)
    before = file_of(state).read_text()
    store.set(OURS)
    assert file_of(state).read_text() != before
    assert store.get("openai") == OURS
    assert len(store.list()) == 1


def test_a_key_can_be_forgotten(store: CredentialStore) -> None:
    store.set(OURS)
    store.delete("openai")
    assert store.get("openai") is None
    with pytest.raises(NotFound):
        store.delete("openai")


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 65, "a\n", "../../secrets/kek"])
def test_a_provider_name_never_becomes_a_path(store: CredentialStore, name: str) -> None:
    for verb in (store.get, store.delete):
        with pytest.raises(InvalidRequest):
            verb(name)
    with pytest.raises(InvalidRequest):
        store.set(ProviderCredential(name, None, None, "sk-x"))


def test_a_key_copied_to_another_tenant_opens_nothing(
    store: CredentialStore, state: StateDirectory, vault: Vault
) -> None:
    store.set(OURS)
    with state.create_tenant("other") as root:
        root.mkdir("credentials")
        root.write_atomic("credentials/provider-openai.yaml", file_of(state).read_bytes())
        with pytest.raises(CredentialDamaged):
            CredentialStore(root, vault).get("openai")


def test_one_tenant_s_store_does_not_see_another_s_keys(
    store: CredentialStore, state: StateDirectory, vault: Vault
) -> None:
    store.set(OURS)
    with state.create_tenant("other") as root:
        other = CredentialStore(root, vault)
        assert other.get("openai") is None
        assert other.list() == []


def test_a_key_under_another_name_opens_nothing(
    store: CredentialStore, state: StateDirectory
) -> None:
    store.set(OURS)
    file_of(state).rename(file_of(state, provider="evil"))
    with pytest.raises(CredentialDamaged):
        store.get("evil")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("https://api.example.org/v1", "https://evil.example.org/v1"),
        ("dialect: openai", "dialect: ollama"),
        ("base_url: https://api.example.org/v1", "base_url: null"),
    ],
)
def test_a_key_is_not_sent_to_an_address_it_was_not_given_for(
    store: CredentialStore, state: StateDirectory, old: str, new: str
) -> None:
    store.set(OWN)
    file = file_of(state, provider="mine")
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(CredentialDamaged):
        store.get("mine")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"api_key: 5", b"api_key: v1:", b"api_key: v1:!!!!", b"api_key: v2:AAAA",
     b"api_key: sk-plain", b"dialect: openai", b"api_key: v1:AAAA\nextra: 1", b"a: [", b"{}"],
)  # fmt: skip
def test_a_damaged_file_is_said_to_be_damaged(
    store: CredentialStore, state: StateDirectory, content: bytes
) -> None:
    store.set(OURS)
    file_of(state).write_bytes(content)
    with pytest.raises(CredentialDamaged) as caught:
        store.get("openai")
    assert "set it again" in caught.value.detail
    assert "sk-plain" not in caught.value.detail
    assert [entry.provider for entry in store.list()] == ["openai"]  # seen, to be set again
    store.set(OURS)
    assert store.get("openai") == OURS


def test_a_link_in_place_of_a_key_is_a_damaged_key(
    store: CredentialStore, state: StateDirectory
) -> None:
    store.set(OURS)
    file_of(state).rename(file_of(state, provider="mine"))
    file_of(state).symlink_to("provider-mine.yaml")
    with pytest.raises(CredentialDamaged):
        store.get("openai")
    assert {entry.provider for entry in store.list()} == {"mine", "openai"}


def test_any_flipped_byte_of_a_sealed_key_is_noticed() -> None:
    vault = Vault(KEY)
    sealed = base64.b64decode(vault.seal("sk-secret", bound_to=PLACE).removeprefix("v1:"))
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(CredentialDamaged):
            vault.open_sealed("v1:" + base64.b64encode(changed).decode(), bound_to=PLACE)


def test_what_the_first_release_sealed_still_opens() -> None:
    assert Vault(KEY).open_sealed(SEALED, bound_to=PLACE) == "sk-secret"
    assert Vault(KEY)._seal("sk-secret", PLACE, bytes(range(12))) == SEALED


_places = st.lists(st.text(max_size=5), max_size=4).map(tuple)


@given(st.text(st.characters(codec="utf-8"), max_size=40), _places, _places)
def test_a_seal_opens_where_it_belongs_and_nowhere_else(
    secret: str, place: tuple[str, ...], other: tuple[str, ...]
) -> None:
    vault = Vault(KEY)
    sealed = vault.seal(secret, bound_to=place)
    assert vault.open_sealed(sealed, bound_to=place) == secret
    if other != place:
        with pytest.raises(CredentialDamaged):
            vault.open_sealed(sealed, bound_to=other)


def test_the_key_of_another_gateway_opens_nothing() -> None:
    sealed = Vault(KEY).seal("sk-secret", bound_to=PLACE)
    with pytest.raises(CredentialDamaged):
        Vault(bytes(32)).open_sealed(sealed, bound_to=PLACE)


def test_the_key_encryption_key_is_made_once_and_kept(state: StateDirectory) -> None:
    sealed = Vault.open(state).seal("sk-secret", bound_to=PLACE)
    assert Vault.open(state).open_sealed(sealed, bound_to=PLACE) == "sk-secret"
    file = state.path / "secrets" / "kek"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("openclawmu-kek-v1:")


@pytest.mark.parametrize(
    "content",
    [b"", b"openclawmu-kek-v1:", b"openclawmu-kek-v1:AAAA", b"openclawmu-kek-v2:" + b"A" * 44,
     base64.b64encode(KEY), b"openclawmu-kek-v1:\xff", b"openclawmu-kek-v1:" + b"!" * 44],
)  # fmt: skip
def test_a_damaged_key_encryption_key_is_refused_and_never_replaced(
    state: StateDirectory, content: bytes
) -> None:
    state.write_atomic("secrets/kek", content)
    with pytest.raises(VaultUnusable, match="restore it from a backup"):
        Vault.open(state)
    assert state.read_bytes("secrets/kek", limit=1000) == content


def test_a_vault_tells_nothing_about_its_key() -> None:
    assert repr(Vault(KEY)) == "<Vault>"
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(b"short")
