"""devices.json: what is written comes back, and damage is never written over."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest, TenantBroken, TooLarge
from appliance.model.tokens import stored_digest
from appliance.storage.paired import (
    FILE,
    MOST_REQUESTS,
    Device,
    DeviceTokenRecord,
    Node,
    Paired,
    PairedStore,
    PairRequest,
)
from tests.books import directory

HASH = stored_digest(b"\x01" * 32)
TOKEN = DeviceTokenRecord(
    hash=HASH, scopes=("operator.read",), created_at_ms=3, parent_token_id="t"
)
DEVICE = Device(
    device_id="d1", public_key="key", display_name="Ada's laptop", roles=("operator",),
    scopes=("operator.read",), created_at_ms=1, approved_at_ms=2, tokens={"operator": TOKEN},
)  # fmt: skip
NODE = Node(node_id="n1", caps=("camera",), token_hash=HASH, created_at_ms=1, approved_at_ms=2)
REQUEST = PairRequest(request_id="r1", kind="node", subject_id="n2", ts=5)
PAIRED = Paired(
    devices={"d1": DEVICE}, nodes={"n1": NODE}, requests=(REQUEST,), triggers=("computer",)
)


def test_nothing_is_paired_where_there_is_no_file(tmp_path: Path) -> None:
    assert PairedStore(directory(tmp_path)).load() == Paired()


def test_what_was_saved_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    PairedStore(directory(tmp_path)).save(PAIRED)
    assert PairedStore(directory(tmp_path)).load() == PAIRED
    PairedStore(directory(tmp_path)).save(Paired())
    assert PairedStore(directory(tmp_path)).load() == Paired()


def test_the_file_is_this(tmp_path: Path) -> None:
    PairedStore(directory(tmp_path)).save(PAIRED)
    stored = json.loads((tmp_path / FILE).read_text())
    assert (stored["schema_version"], stored["compat_version"]) == (1, 1)
    assert stored["devices"]["d1"]["tokens"]["operator"] == {
        "hash": HASH, "scopes": ["operator.read"], "created_at_ms": 3, "rotated_at_ms": None,
        "revoked_at_ms": None, "last_used_at_ms": None, "parent_token_id": "t",
    }  # fmt: skip
    assert stored["requests"][0]["kind"] == "node"
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_one_tenants_devices_are_not_in_anothers_store(tmp_path: Path) -> None:
    PairedStore(directory(tmp_path / "a")).save(PAIRED)
    other = PairedStore(directory(tmp_path / "b"))
    assert other.load() == Paired()
    other.save(Paired())
    assert PairedStore(directory(tmp_path / "a")).load() == PAIRED


def test_there_is_room_for_so_many(tmp_path: Path) -> None:
    store = PairedStore(directory(tmp_path))
    store.save(PAIRED)
    for paired, things in (
        (Paired(devices={str(n): DEVICE for n in range(201)}), "200 devices"),
        (Paired(nodes={str(n): NODE for n in range(201)}), "200 nodes"),
        (Paired(requests=(REQUEST,) * (MOST_REQUESTS + 1)), "100 pairing requests"),
        (Paired(triggers=("x",) * 33), "32 wake words"),
        (Paired(triggers=("x" * 5_000_000,)), "bytes"),
    ):
        with pytest.raises(TooLarge, match=things):
            store.save(paired)
    assert store.load() == PAIRED


def test_half_a_character_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    store = PairedStore(directory(tmp_path))
    store.save(PAIRED)
    with pytest.raises(InvalidRequest, match="surrogate"):
        store.save(Paired(triggers=("\ud83d",)))
    assert store.load() == PAIRED


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b'{"schema_version": 1, "compat_version": 1, "devices": 5}',
        b'{"schema_version": 2, "compat_version": 2}',
        b'{"schema_version": 1, "compat_version": 1, "odd": ' + b"[" * 10_000,
        msgspec.json.encode({"schema_version": 1, "compat_version": 1, "devices": {"x": DEVICE}}),
        msgspec.json.encode({"schema_version": 1, "compat_version": 1, "nodes": {"x": NODE}}),
        json.dumps(
            {"schema_version": 1, "compat_version": 1, "nodes": {"n": {"node_id": "n",
             "token_hash": "plain", "created_at_ms": 1, "approved_at_ms": 1}}}
        ).encode(),
    ],
)  # fmt: skip
def test_a_damaged_file_is_reported_and_left_as_it_is(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    store = PairedStore(directory(tmp_path))
    with pytest.raises(TenantBroken, match=FILE):
        store.load()
    with pytest.raises(TenantBroken, match=FILE):
        store.save(PAIRED)
    assert (tmp_path / FILE).read_bytes() == damage


def test_a_directory_or_a_link_in_its_place_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a" / FILE).mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / FILE).symlink_to("/etc/hostname")
    for name in ("a", "b"):
        with pytest.raises(TenantBroken):
            PairedStore(directory(tmp_path / name)).load()


def test_every_cut_of_the_file_is_damage_and_no_byte_turned_goes_through_unparsed(
    tmp_path: Path,
) -> None:
    store = PairedStore(directory(tmp_path))
    store.save(PAIRED)
    data = (tmp_path / FILE).read_bytes()
    for end in range(0, len(data) - 2, 37):
        (tmp_path / FILE).write_bytes(data[:end])
        with pytest.raises(TenantBroken):
            store.load()
    for at in range(0, len(data), 11):
        (tmp_path / FILE).write_bytes(data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :])
        with pytest.raises(TenantBroken):
            store.load()


def test_what_a_newer_release_added_stays(tmp_path: Path) -> None:
    store = PairedStore(directory(tmp_path))
    store.save(PAIRED)
    newer = json.loads((tmp_path / FILE).read_text()) | {"schema_version": 2, "tags": {"a": 1}}
    (tmp_path / FILE).write_text(json.dumps(newer))
    assert store.load() == PAIRED
    store.save(Paired())
    assert json.loads((tmp_path / FILE).read_text())["tags"] == {"a": 1}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tokens = st.builds(
    DeviceTokenRecord,
    hash=st.binary(min_size=32, max_size=32).map(stored_digest),
    scopes=st.lists(texts, max_size=3).map(tuple),
    created_at_ms=st.integers(0, 2**53),
    revoked_at_ms=st.none() | st.integers(0, 2**53),
)


@settings(max_examples=40)
@given(texts, texts, st.dictionaries(texts, tokens, max_size=3), st.lists(texts, max_size=5))
def test_any_text_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    device: str,
    name: str,
    held: dict[str, DeviceTokenRecord],
    triggers: list[str],
) -> None:
    paired = Paired(
        devices={
            device: msgspec.structs.replace(
                DEVICE, device_id=device, display_name=name, tokens=held
            )
        },
        triggers=tuple(triggers),
    )
    store = PairedStore(directory(tmp_path_factory.mktemp("paired")))
    store.save(paired)
    assert store.load() == paired
