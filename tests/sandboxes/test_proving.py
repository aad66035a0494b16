"""What a proof is made of: reports, judgements and remedies."""

import os
from pathlib import Path

import pytest

from appliance.sandboxes import proving
from appliance.sandboxes.base import Probe


def test_a_report_passes_where_nothing_was_found() -> None:
    report = "".join(f"{name}\t\n" for name in proving.INSIDE)

    assert all(probe.passed for probe in proving.parse_report(report))


def test_what_was_found_or_not_reported_has_failed() -> None:
    report = "host-files\t /etc/shadow\nnetwork\t\nnoise\n"
    probes = {probe.name: probe for probe in proving.parse_report(report)}

    assert probes["host-files"] == Probe("host-files", passed=False, detail="/etc/shadow")
    assert probes["network"].passed
    assert probes["seccomp"] == Probe("seccomp", passed=False, detail="nothing was reported")
    assert len(probes) == len(proving.INSIDE)


def test_the_script_reports_what_is_expected_of_it() -> None:
    assert [name for name in proving.INSIDE if f"tell {name} " not in proving.SCRIPT] == []


def test_one_failed_probe_is_a_problem_that_names_it() -> None:
    good = {name: Probe(name, passed=True) for name in proving.INSIDE}
    bad = Probe("host-files", passed=False, detail="/etc/shadow")

    assert proving.judge(list(good.values())) == ""
    problem = proving.judge(list((good | {"host-files": bad}).values()))
    assert "host-files (/etc/shadow)" in problem
    assert "network" not in problem
    assert "sandbox.backend" in problem


def test_what_was_not_tried_is_a_problem() -> None:
    assert "network (not tried)" in proving.judge(
        [Probe(name, passed=True) for name in proving.INSIDE if name != "network"]
    )


def settings(proc: Path, **values: str) -> Path:
    for name, value in values.items():
        path = proc / "sys" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return proc


NO_MAP = "bwrap: setting up uid map: Permission denied"


@pytest.mark.parametrize(
    ("diagnosis", "found", "remedy"),
    [
        ("bwrap: Unknown option --bind-fd", {}, "too old"),
        ("setpriv: setresuid failed: Operation not permitted", {}, "CAP_SETUID"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", {}, "below /proc"),
        (
            "bwrap: Creating new namespace failed: Resource temporarily unavailable",
            {},
            "LimitNPROC",
        ),
        (NO_MAP, {"kernel__apparmor_restrict_unprivileged_userns": "1"}, "AppArmor"),
        (NO_MAP, {"kernel__unprivileged_userns_clone": "0"}, "unprivileged_userns_clone to 1"),
        (NO_MAP, {"user__max_user_namespaces": "0"}, "raise user.max_user_namespaces"),
        (NO_MAP, {"user__max_user_namespaces": "9"}, "RestrictNamespaces"),
        ("", {}, "no reason was given"),
    ],
)
def test_a_sandbox_that_cannot_start_is_explained_with_a_remedy(
    diagnosis: str, found: dict[str, str], remedy: str, tmp_path: Path
) -> None:
    said = proving.explain(
        f"something before\n{diagnosis}" if diagnosis else "", proc=settings(tmp_path, **found)
    )

    assert remedy in said
    assert diagnosis in said
    assert "something before" not in said


def test_traps_are_taken_away_again() -> None:
    before = set(os.environ), descriptors()
    with proving.planted(None) as spec:
        secret = Path(spec.command[-3])
        assert secret.read_text()
        assert spec.command[-2] in os.environ
    assert not secret.parent.exists()
    assert (set(os.environ), descriptors()) == before


def test_a_process_of_root_or_outside_of_its_group_is_seen(tmp_path: Path) -> None:
    group = tmp_path / "cgroup.procs"
    group.write_text("1\n2\n")
    pid, uid = os.getpid(), os.geteuid()
    user, member = proving.look_from_outside(pid, uid, [str(group)])

    assert user.passed is (uid != 0)
    assert not member.passed
    group.write_text(f"1\n{pid}\n")
    assert proving.look_from_outside(pid, uid + 1, [str(group)])[0].passed is False
    assert proving.look_from_outside(pid, uid, [str(group)])[1].passed
    assert not proving.look_from_outside(None, uid, [])[0].passed


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
