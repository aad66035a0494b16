"""``tenant.json``: what is written, what is refused, and what survives."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import AlreadyExists, TenantBroken, TenantUnknown
from appliance.model.quotas import COST_KEYS, QUOTA_KEYS
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope, TokenRecord, digest
from appliance.storage.state import StateDirectory
from appliance.storage.tenant_records import (
    FILE,
    BrokenRecord,
    TenantRecords,
    parse_record,
    render_record,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TOKEN = TokenRecord(
    id="tok_1",
    label="first",
    digest=digest("a"),
    scopes=frozenset({Scope.FULL}),
    created_at=NOW,
)
ACME = TenantRecord(
    id="acme",
    name="Acme & Söhne",
    created_at=NOW,
    quotas={"cost_per_day": 1_500_000_000, "tokens_per_day": None, "channels": 0},
    tokens=(TOKEN,),
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    with StateDirectory.open(tmp_path / "state") as state:
        yield state


@pytest.fixture
def records(state: StateDirectory) -> TenantRecords:
    return TenantRecords(state)


def path_of(state: StateDirectory, tenant: str) -> Path:
    return state.path / "tenants" / tenant / FILE


def test_a_record_reads_like_this_for_ever() -> None:
    assert render_record(ACME).decode() == (
        """\
{
  "schema_version": 1,
  "compat_version": 1,
  "id": "acme",
  "name": "Acme & Söhne",
  "created_at": "2026-11-21T12:00:00Z",
  "disabled": false,
  "disabled_reason": "",
  "quotas": {
    "cost_per_day": "1.50",
    "tokens_per_day": null,
    "channels": 0
  },
  "tokens": [
    {
      "id": "tok_1",
      "label": "first",
      "hash": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
      "scopes": [
        "full"
      ],
      "created_at": "2026-11-21T12:00:00Z",
      "expires_at": null,
      "last_used_at": null,
      "parent": null
    }
  ],
  "version": 1
}
"""
    )


moments = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
).map(lambda moment: moment.astimezone(UTC))
tokens = st.builds(
    TokenRecord,
    id=st.uuids().map(lambda value: f"tok_{value.hex}"),
    label=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    digest=st.binary(min_size=32, max_size=32),
    scopes=st.frozensets(st.sampled_from(Scope)),
    created_at=moments,
    expires_at=st.none() | moments,
    last_used_at=st.none() | moments,
    parent=st.none() | st.just("tok_0"),
)
limits = st.none() | st.integers(min_value=0, max_value=2**53 - 1)
record_values = st.builds(
    TenantRecord,
    id=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    created_at=moments,
    disabled=st.booleans(),
    disabled_reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    quotas=st.dictionaries(st.sampled_from(QUOTA_KEYS), limits),
    tokens=st.lists(tokens, max_size=4, unique_by=lambda token: token.id).map(tuple),
    version=st.integers(min_value=1, max_value=2**53),
)


@given(record_values)
def test_what_is_written_is_what_is_read(record: TenantRecord) -> None:
    assert parse_record(render_record(record), tenant=record.id) == record


@given(st.binary(max_size=200))
def test_whatever_is_in_the_file_it_is_a_record_or_broken(data: bytes) -> None:
    with pytest.raises(TenantBroken):
        parse_record(data, tenant="acme")


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_flipped_byte_is_a_record_or_broken(position: int, value: int) -> None:
    data = bytearray(render_record(ACME))
    data[position % len(data)] = value
    with suppress(TenantBroken):
        parse_record(bytes(data), tenant="acme")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"disabled"', '"disbled"', "unknown field `disbled`"),
        ('"acme"', '"other"', "another tenant"),
        ('"sha256:', '"md5:', "sha256"),
        ("ca978112", "zz978112", "hex digits"),
        ('"full"', '"root"', "scopes"),
        ('"2026-11-21T12:00:00Z"', '"2026-11-21T12:00:00"', "created_at"),
        ('"channels": 0', '"channels": -1', "channels"),
        ('"channels": 0', '"chanels": 0', "did you mean 'channels'"),
        ('"cost_per_day": "1.50"', '"cost_per_day": 1.5', "cost_per_day"),
        ('"version": 1\n', '"version": 1,\n', "malformed"),
        ('"label"', '"labl"', "labl"),
    ],
)
def test_a_slip_of_the_hand_breaks_the_record_and_says_where(
    old: str, new: str, reason: str
) -> None:
    edited = render_record(ACME).decode().replace(old, new)

    with pytest.raises(TenantBroken, match=reason):
        parse_record(edited.encode(), tenant="acme")


def test_two_tokens_with_one_id_break_the_record() -> None:
    doubled = replace(ACME, tokens=(TOKEN, TOKEN))

    with pytest.raises(TenantBroken, match="same id"):
        parse_record(render_record(doubled), tenant="acme")


def test_no_reason_quotes_a_hash() -> None:
    edited = render_record(ACME).replace(b"sha256:", b"sha512:")

    with pytest.raises(TenantBroken) as caught:
        parse_record(edited, tenant="acme")

    assert "ca978112" not in str(caught.value)


def _from_a_newer_release(*, compat: int) -> bytes:
    stored = json.loads(render_record(ACME))
    stored |= {"schema_version": 3, "compat_version": compat, "region": {"name": "eu", "n": 1}}
    return json.dumps(stored).encode()


def test_a_record_of_a_newer_release_is_read_and_what_we_do_not_know_is_kept() -> None:
    newer = _from_a_newer_release(compat=1)

    record = parse_record(newer, tenant="acme")
    written = json.loads(render_record(replace(record, name="New"), before=newer))

    assert record == ACME
    assert written["name"] == "New"
    assert written["region"] == {"name": "eu", "n": 1}
    assert written["schema_version"] == 3
    assert parse_record(json.dumps(written).encode(), tenant="acme").name == "New"


def test_a_record_of_a_release_that_forbids_it_is_broken() -> None:
    with pytest.raises(TenantBroken, match="newer release"):
        parse_record(_from_a_newer_release(compat=3), tenant="acme")


def test_tokens_for_some_models_are_kept_from_a_release_that_would_let_them_ask_any() -> None:
    plain = json.loads(render_record(ACME))
    tokens = tuple(replace(token, models=("stub/*",)) for token in ACME.tokens)
    limited = replace(ACME, tokens=tokens)

    written = render_record(limited)

    assert (plain["schema_version"], plain["compat_version"]) == (1, 1)
    assert "models" not in plain["tokens"][0]
    assert json.loads(written)["compat_version"] == 2
    assert parse_record(written, tenant="acme") == limited


def test_costs_are_written_as_decimals() -> None:
    quotas = dict.fromkeys(COST_KEYS, 10**9)

    written = json.loads(render_record(replace(ACME, quotas=quotas)))

    assert set(written["quotas"].values()) == {"1.00"}


def test_a_tenant_is_made_changed_and_taken_away(
    state: StateDirectory, records: TenantRecords
) -> None:
    records.create(ACME, {"config.yaml": b"models: {}\n"})
    changed = replace(ACME, name="New", version=2)
    records.write(changed)

    assert records.read("acme") == changed
    assert records.tenants() == ["acme"]
    assert path_of(state, "acme").stat().st_mode & 0o777 == 0o600
    assert path_of(state, "acme").parent.stat().st_mode & 0o777 == 0o700
    assert (path_of(state, "acme").parent / "config.yaml").read_bytes() == b"models: {}\n"

    removed = records.remove("acme")
    with pytest.raises(TenantUnknown):
        records.read("acme")
    assert (state.path / "deleted" / removed / FILE).exists()

    records.erase(removed)
    assert not (state.path / "deleted" / removed).exists()


def test_a_tenant_made_again_has_nothing_of_the_one_before(
    state: StateDirectory, records: TenantRecords
) -> None:
    records.create(ACME, {})
    (path_of(state, "acme").parent / "sessions.sqlite").write_text("of the first")
    records.remove("acme")

    records.create(replace(ACME, name="Second"), {})

    assert [path.name for path in path_of(state, "acme").parent.iterdir()] == [FILE]


def test_an_id_is_taken_by_whatever_is_there(state: StateDirectory, records: TenantRecords) -> None:
    place = path_of(state, "acme")
    place.parent.mkdir()
    place.write_bytes(b"{ torn")

    with pytest.raises(AlreadyExists):
        records.create(ACME, {})

    assert place.read_bytes() == b"{ torn"


def test_a_broken_record_is_not_written_over(state: StateDirectory, records: TenantRecords) -> None:
    records.create(ACME, {})
    path_of(state, "acme").write_bytes(b"")

    with pytest.raises(TenantBroken):
        records.write(ACME)

    assert path_of(state, "acme").read_bytes() == b""


@pytest.mark.parametrize("tenant", ["", ".", "..", "../acme", "acme/../acme", "ACME", "a\0b", "é"])
def test_what_is_no_id_is_no_tenant(records: TenantRecords, tenant: str) -> None:
    with pytest.raises(TenantUnknown):
        records.read(tenant)


def test_a_scan_finds_the_good_and_names_the_bad(
    state: StateDirectory, records: TenantRecords
) -> None:
    records.create(ACME, {})
    records.create(replace(ACME, id="other"), {})
    tenants = state.path / "tenants"
    for name in ("empty", "torn", "link", "fifo", "copy", "huge", "directory"):
        (tenants / name).mkdir()
    (tenants / "torn" / FILE).write_bytes(render_record(ACME)[:100])
    (tenants / "link" / FILE).symlink_to(path_of(state, "acme"))
    os.mkfifo(tenants / "fifo" / FILE)
    (tenants / "copy" / FILE).write_bytes(render_record(ACME))
    (tenants / "huge" / FILE).write_bytes(b" " * (1024 * 1024 + 1))
    (tenants / "directory" / FILE).mkdir()
    (tenants / "UPPER").mkdir()
    (tenants / "a file").write_text("")

    found = list(records.scan())

    good = [record.id for record in found if isinstance(record, TenantRecord)]
    broken = {b.tenant: b.reason for b in found if isinstance(b, BrokenRecord)}
    assert good == ["acme", "other"]
    assert set(broken) == {"copy", "directory", "empty", "fifo", "huge", "link", "torn"}
    assert "missing" in broken["empty"]
    assert "another tenant" in broken["copy"]
    assert "link" in broken["link"]


def test_a_tenant_that_was_never_finished_leaves_nothing(
    state: StateDirectory, records: TenantRecords
) -> None:
    unfinished = state.path / "tenants" / ".new-acme-0badcafe"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text("x")

    assert list(records.scan()) == []
    assert not unfinished.exists()
    records.create(ACME, {})


_WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.storage.test_tenant_records import ACME
from appliance.storage.state import StateDirectory
from appliance.storage.tenant_records import TenantRecords

records = TenantRecords(StateDirectory.open(Path(sys.argv[1])))
print("ready", flush=True)
for number in range(1_000_000):
    records.write(replace(ACME, name="x" * (number % 5000), version=number + 1))
    records.create(replace(ACME, id=f"new{number}"), {"config.yaml": b"{}"})
"""


def test_killed_in_the_middle_of_writing_it_loses_no_tenant(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with StateDirectory.open(path) as state:
        TenantRecords(state).create(ACME, {})
    root = Path(__file__).parents[2]
    for delay in (0.01, 0.03, 0.06):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, cwd=root
        )
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(delay)
            process.send_signal(signal.SIGKILL)

        with StateDirectory.open(path) as state:
            records = TenantRecords(state)
            found = list(records.scan())
            assert all(isinstance(record, TenantRecord) for record in found)
            assert "acme" in records.tenants()
            for tenant in records.tenants():
                if tenant != "acme":
                    records.erase(records.remove(tenant))
