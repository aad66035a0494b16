import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.model.errors import AlreadyExists, TenantUnknown
from appliance.storage.paths import PathRefused
from appliance.storage.state import StateDirectory, StateUnusable
from appliance.storage.state_lock import StateInUse

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "state"


@pytest.fixture
def state(path: Path) -> Iterator[StateDirectory]:
    with StateDirectory.open(path, clock=lambda: NOW) as state:
        yield state


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_state_directory_is_ours_alone(state: StateDirectory, path: Path) -> None:
    assert mode(path) == 0o700
    assert mode(path / "tenants") == 0o700
    assert mode(path / "secrets") == 0o700
    assert state.path == path
    assert state.tenants() == []
    assert state.free_bytes() > 0


def test_an_existing_one_is_opened_as_it_is(state: StateDirectory, path: Path) -> None:
    state.create_tenant("acme").close()
    state.write_atomic("config.yaml", b"{}")
    with StateDirectory.open(str(path)) as again:
        assert again.tenants() == ["acme"]
        assert again.read_bytes("config.yaml", limit=10) == b"{}"


def test_the_path_may_be_a_link_of_the_operator_s(state: StateDirectory, path: Path) -> None:
    state.create_tenant("acme").close()
    path.with_name("link").symlink_to(path)
    with StateDirectory.open(path.with_name("link")) as linked:
        assert linked.tenants() == ["acme"]
        with linked.tenant_root("acme") as root:
            assert root.sqlite_path("db") == f"{path}/tenants/acme/db"


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o777, 0o1777])
def test_a_directory_that_others_may_write_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(bits)
    with pytest.raises(StateUnusable, match="chmod go-w"):
        StateDirectory.open(tmp_path / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 65534, 65534)
    with pytest.raises(StateUnusable, match="belongs to user 65534"):
        StateDirectory.open(tmp_path / "state")


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateUnusable):
            StateDirectory.open(path)


def test_a_tenant_is_a_directory_of_its_own(state: StateDirectory, path: Path) -> None:
    with state.create_tenant("acme") as root:
        root.write_atomic("tenant.json", b"{}")
    assert mode(path / "tenants" / "acme") == 0o700
    with state.tenant_root("acme") as root:
        assert root.tenant == "acme"
        assert root.read_bytes("tenant.json", limit=10) == b"{}"
    with pytest.raises(AlreadyExists):
        state.create_tenant("acme")


@pytest.mark.parametrize("tenant", ["", "..", "A", "a/b", "a" * 33, "constructor\n", "é"])
def test_a_directory_is_made_for_a_valid_id_only(state: StateDirectory, tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant id"):
        state.create_tenant(tenant)
    for verb in (state.tenant_root, state.retire_tenant):
        with pytest.raises(TenantUnknown):
            verb(tenant)


def test_only_directories_with_valid_names_are_tenants(state: StateDirectory, path: Path) -> None:
    for name in ("b", "a", "0-9_z"):
        state.create_tenant(name).close()
    (path / "tenants" / "Upper").mkdir()
    (path / "tenants" / ".hidden").mkdir()
    (path / "tenants" / "file").touch()
    (path / "tenants" / "link").symlink_to("a")
    assert state.tenants() == ["0-9_z", "a", "b"]


def test_a_retired_tenant_is_gone_and_its_data_is_not(state: StateDirectory) -> None:
    with state.create_tenant("acme") as root:
        root.write_atomic("file", b"old")
        retired = state.retire_tenant("acme")
        assert root.read_bytes("file", limit=10) == b"old"
    assert retired.startswith("acme-20261121T120000Z-")
    assert state.tenants() == []
    assert state.retired() == [retired]
    assert state.read_bytes(f"deleted/{retired}/file", limit=10) == b"old"
    with pytest.raises(TenantUnknown):
        state.tenant_root("acme")
    with pytest.raises(TenantUnknown):
        state.retire_tenant("acme")


def test_a_tenant_made_again_never_sees_the_old_data(state: StateDirectory) -> None:
    with state.create_tenant("acme") as root:
        root.write_atomic("file", b"old")
    first = state.retire_tenant("acme")
    with state.create_tenant("acme") as root:
        assert root.listdir() == []
    second = state.retire_tenant("acme")  # within the same second
    assert state.retired() == sorted([first, second])


def test_what_was_retired_can_be_removed_for_good(state: StateDirectory) -> None:
    with state.create_tenant("acme") as root:
        root.mkdir("workspace/deep")
    retired = state.retire_tenant("acme")
    state.purge(retired)
    assert state.retired() == []
    for name in ("../tenants", f"{retired}/workspace", "..", ""):
        with pytest.raises(PathRefused):
            state.purge(name)


def test_nothing_was_retired_yet(state: StateDirectory) -> None:
    assert state.retired() == []


def test_a_state_directory_has_one_owner(state: StateDirectory, path: Path) -> None:
    with state.lock():
        with (
            StateDirectory.open(path) as other,
            pytest.raises(StateInUse, match=rf"{path} is in use by process {os.getpid()}"),
        ):
            other.lock()
        with pytest.raises(StateInUse):
            state.lock()
    lock = state.lock()
    lock.release()
    lock.release()


def _holder(path: Path) -> subprocess.Popen[bytes]:
    script = (
        "import sys; from appliance.storage.state import StateDirectory;"
        "lock = StateDirectory.open(sys.argv[1]).lock(); print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"\n"
    return holder


def test_the_lock_of_another_process_ends_with_that_process_however_it_ends(
    state: StateDirectory, path: Path
) -> None:
    with _holder(path) as holder:
        with pytest.raises(StateInUse, match=f"process {holder.pid};"):
            state.lock()
        holder.kill()
        holder.wait()
        state.lock().release()


def test_a_lock_file_that_is_a_trap_is_refused(state: StateDirectory, path: Path) -> None:
    (path / "precious").write_bytes(b"old")
    (path / ".lock").symlink_to("precious")
    with pytest.raises(PathRefused):
        state.lock()
    assert (path / "precious").read_bytes() == b"old"


def test_nonsense_in_the_lock_file_is_not_repeated(state: StateDirectory, path: Path) -> None:
    with state.lock():
        (path / ".lock").write_bytes(b"\x1b[31m")
        with StateDirectory.open(path) as other, pytest.raises(StateInUse, match="another process"):
            other.lock()


def test_the_owner_clears_away_what_a_crash_left(state: StateDirectory, path: Path) -> None:
    for folder in (path, path / "secrets"):
        (folder / ".openclaw-00000000-1.tmp").touch()
    with state.lock():
        assert state.listdir() == [".lock", "secrets", "tenants"]
        assert state.listdir("secrets") == []
