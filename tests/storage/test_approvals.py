"""approvals.json: what is written comes back, and damage is never written over."""

import json
from pathlib import Path

import msgspec
import pytest

from appliance.model.errors import TenantBroken, TooLarge
from appliance.storage.approvals import (
    FILE,
    MOST_ENTRIES,
    MOST_GRANTS,
    AgentPolicy,
    AllowEntry,
    ApprovalStore,
    Grant,
    PolicyDefaults,
    PolicyFile,
    StoredApprovals,
)
from tests.books import directory

POLICY = PolicyFile(
    defaults=PolicyDefaults(security="allowlist", ask="on-miss", ask_fallback="deny"),
    agents={"*": AgentPolicy(allowlist=(AllowEntry(pattern="/bin/ls", last_used_at=5.0),))},
)
GRANT = Grant(
    id="grant_1", approval_id="approval_1", agent="main", command="git", pattern="git",
    created_at_ms=1, granted_by="tok_1", expires_at_ms=100,
)  # fmt: skip
STORED = StoredApprovals(policy=POLICY, grants=(GRANT,))


def test_nothing_is_stored_where_there_is_no_file(tmp_path: Path) -> None:
    assert ApprovalStore(directory(tmp_path)).load() == StoredApprovals()


def test_what_was_saved_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    ApprovalStore(directory(tmp_path)).save(STORED)
    assert ApprovalStore(directory(tmp_path)).load() == STORED


def test_the_file_is_this(tmp_path: Path) -> None:
    ApprovalStore(directory(tmp_path)).save(STORED)

    stored = json.loads((tmp_path / FILE).read_text())

    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert (stored["schema_version"], stored["compat_version"]) == (1, 1)
    assert stored["policy"] == {
        "version": 1,
        "defaults": {"security": "allowlist", "ask": "on-miss", "askFallback": "deny"},
        "agents": {"*": {"allowlist": [{"pattern": "/bin/ls", "lastUsedAt": 5.0}]}},
    }
    assert stored["grants"][0]["pattern"] == "git"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b'{"schema_version": 1, "compat_version": 2}',
        b'{"schema_version": 1, "compat_version": 1, "polcy": null}',
        b'{"schema_version": 1, "compat_version": 1, "policy": {"version": 2}}',
        b'{"schema_version": 1, "compat_version": 1, "policy": {"defaults": {"security": "ful"}}}',
        b'{"schema_version": 1, "compat_version": 1, "grants": [{"id": "x"}]}',
    ],
)
def test_a_damaged_file_is_not_used_and_not_written_over(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    store = ApprovalStore(directory(tmp_path))

    with pytest.raises(TenantBroken, match=FILE):
        store.load()
    with pytest.raises(TenantBroken, match=FILE):
        store.save(STORED)
    assert (tmp_path / FILE).read_bytes() == damage


def test_a_misspelt_revocation_is_damage(tmp_path: Path) -> None:
    ApprovalStore(directory(tmp_path)).save(STORED)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace("revoked_at_ms", "revoked_at_mz"))

    with pytest.raises(TenantBroken):
        ApprovalStore(directory(tmp_path)).load()


def test_what_a_newer_release_added_is_kept(tmp_path: Path) -> None:
    newer = {"schema_version": 2, "compat_version": 1, "policy": None, "grants": [], "more": [1]}
    (tmp_path / FILE).write_text(json.dumps(newer))

    ApprovalStore(directory(tmp_path)).save(STORED)

    assert json.loads((tmp_path / FILE).read_text())["more"] == [1]
    assert ApprovalStore(directory(tmp_path)).load() == STORED


def test_there_is_an_end_to_it(tmp_path: Path) -> None:
    store = ApprovalStore(directory(tmp_path))
    entries = (AllowEntry(pattern="x"),) * (MOST_ENTRIES + 1)
    crowded = PolicyFile(agents={"main": AgentPolicy(allowlist=entries)})

    with pytest.raises(TooLarge, match="lasting answers"):
        store.save(StoredApprovals(grants=(GRANT,) * (MOST_GRANTS + 1)))
    with pytest.raises(TooLarge, match="entries"):
        store.save(StoredApprovals(policy=crowded))
    assert not (tmp_path / FILE).exists()


def test_tenants_do_not_share_a_file(tmp_path: Path) -> None:
    ApprovalStore(directory(tmp_path / "acme")).save(STORED)
    assert ApprovalStore(directory(tmp_path / "other")).load() == StoredApprovals()


def test_a_hash_is_of_the_content() -> None:
    changed = msgspec.structs.replace(POLICY, agents={})
    assert POLICY.hash == msgspec.convert(msgspec.to_builtins(POLICY), PolicyFile).hash
    assert len({POLICY.hash, changed.hash, PolicyFile().hash}) == 3


def test_a_grant_holds_for_its_agent_until_it_ends() -> None:
    revoked = msgspec.structs.replace(GRANT, revoked_at_ms=5)

    assert GRANT.holds("main", 99)
    assert not GRANT.holds("main", 100)
    assert not GRANT.holds("other", 99)
    assert not revoked.holds("main", 99)
    assert msgspec.structs.replace(GRANT, expires_at_ms=None).holds("main", 10**15)
