"""What of a host a sandbox is built from."""

import platform
import resource
from pathlib import Path

import pytest

from appliance.sandboxes import host_layout
from appliance.sandboxes.base import SandboxUnavailable
from appliance.sandboxes.host_layout import HostLayout, Programs


def host(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    return root


def test_a_merged_usr(tmp_path: Path) -> None:
    root = host(tmp_path, "usr/bin/", "usr/lib/", "proc/kcore")
    (root / "bin").symlink_to("usr/bin")
    (root / "lib").symlink_to("/usr/lib")
    layout = HostLayout.read(root, proc=root / "proc")

    assert layout.links == [("usr/bin", "/bin"), ("usr/lib", "/lib")]
    assert layout.folders == []
    assert layout.masked == ["/proc/kcore"]


def test_a_usr_that_is_not_merged(tmp_path: Path) -> None:
    root = host(tmp_path, "bin/", "lib/", "sbin/", "usr/bin/")
    layout = HostLayout.read(root, proc=root)

    assert layout.links == []
    assert layout.folders == ["/bin", "/sbin", "/lib"]


def test_only_public_parts_of_etc_are_shown(tmp_path: Path) -> None:
    root = host(tmp_path, "etc/shadow", "etc/ssl/private/key", "etc/ssl/certs/ca-certificates.crt")
    layout = HostLayout.read(root, proc=root)

    assert layout.etc == ["/etc/ssl/certs"]
    assert layout.certificates == b"etc/ssl/certs/ca-certificates.crt"


def test_a_limit_is_what_this_process_may_have_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    infinity = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda number: (1, 50 if number == 7 else infinity))
    layout = HostLayout.read()

    assert resource.RLIMIT_NOFILE == 7
    assert layout.within("nofile", 1024) == 50
    assert layout.within("nofile", 10) == 10
    assert layout.within("nproc", 1024) == 1024


@pytest.mark.parametrize(
    ("release", "counts"),
    [("5.13.19-2", False), ("5.14", True), ("6.1.0-50-cloud-amd64", True), ("4.19.0", False)],
)
def test_processes_are_counted_per_namespace_since_5_14(
    release: str, *, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)

    assert HostLayout.read().counts_processes is counts


def test_an_architecture_without_a_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    with pytest.raises(SandboxUnavailable, match="riscv64, only for x86_64, aarch64"):
        HostLayout.read()


def test_a_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_layout, "SYSTEM_PATH", str(tmp_path))

    with pytest.raises(
        SandboxUnavailable, match=r"bwrap is not installed.* apt install bubblewrap"
    ):
        Programs.find()
