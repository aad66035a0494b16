"""The command line of a sandbox: pure, so the same on every machine."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from appliance.sandboxes import bubblewrap_arguments
from appliance.sandboxes.base import Access, Bind, EgressDoor, Limits, SandboxSpec, TerminalSize
from appliance.sandboxes.bubblewrap_arguments import HiddenName, Invocation
from appliance.sandboxes.commands import Command
from appliance.sandboxes.host_layout import HostLayout, Programs
from appliance.sandboxes.launcher import Descriptor
from appliance.sandboxes.seccomp import program_bytes
from appliance.sandboxes.seccomp_tables import Architecture

PROGRAMS = Programs(bwrap="/p/bwrap", unshare="/p/unshare", setpriv="/p/setpriv", mount="/p/mount")
DEBIAN = HostLayout(
    architecture=Architecture.X86_64,
    links=[("usr/bin", "/bin"), ("usr/lib", "/lib"), ("usr/lib64", "/lib64")],
    folders=[],
    etc=["/etc/localtime", "/etc/ssl/certs", "/etc/pki/ca-trust/extracted"],
    masked=["/proc/kcore", "/proc/keys"],
    certificates=b"SYSTEM\n",
    hard_limits={},
    counts_processes=True,
)
SPEC = SandboxSpec(group="g", workspace=33, command=["run", "me"])
DOOR = EgressDoor(44, "/host/door.sock")


def build(spec: SandboxSpec = SPEC, **changes: Any) -> Invocation:
    options = {"programs": PROGRAMS, "layout": DEBIAN, **changes}
    return bubblewrap_arguments.build(spec, Command.of(spec), **options)


def options(invocation: Invocation) -> list[str]:
    return [text.decode() for text in invocation.arguments.split(b"\0")]


def has(arguments: list[str], *run: str) -> bool:
    return any(arguments[place : place + len(run)] == list(run) for place in range(len(arguments)))


def text(invocation: Invocation) -> str:
    return "\n".join(part if isinstance(part, str) else part.decode() for part in invocation.argv)


def test_every_namespace_is_new_and_nothing_is_left_to_chance() -> None:
    said = options(build())

    for option in (
        *("--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent"),
        *("--new-session", "--clearenv"),
    ):
        assert option in said
    assert has(said, "--cap-drop", "ALL")
    assert has(said, "--seccomp", "6")
    assert has(said, "--json-status-fd", "4")
    assert "--share-net" not in said
    assert not [each for each in said if each.endswith("-try") and each != "--ro-bind-try"]


def test_the_root_becomes_read_only_after_the_last_mount() -> None:
    spec = replace(SPEC, egress=DOOR, binds=[Bind("/a", "/b")])
    said = options(build(spec, hidden=[HiddenName("x", is_directory=True)]))
    last = said.index("/", said.index("--cap-drop"))

    assert said[last - 1] == "--remount-ro"
    assert not {"--bind", "--ro-bind", "--tmpfs", "--dir", "--bind-fd"} & set(said[last:])


def test_every_tmpfs_has_a_size_and_a_mode() -> None:
    for access in Access:
        said = options(
            build(replace(SPEC, access=access), hidden=[HiddenName("x", is_directory=True)])
        )
        for place, option in enumerate(said):
            if option == "--tmpfs":
                assert said[place - 2] == "--size"
                assert said[place - 4] == "--perms"


def test_paths_and_values_are_not_on_the_command_line() -> None:
    spec = replace(SPEC, environment={"TOKEN": "hunter2"}, binds=[Bind("/host/secret", "/opt/x")])
    invocation = build(spec)

    assert "hunter2" not in text(invocation)
    assert "/host/secret" not in text(invocation)
    assert has(options(invocation), "--setenv", "TOKEN", "hunter2")
    assert has(options(invocation), "--ro-bind", "/host/secret", "/opt/x")
    assert invocation.argv[-2:] == [b"run", b"me"]


def test_values_cannot_become_options() -> None:
    spec = replace(SPEC, environment={"A": "--bind"}, command=["x", "--bind", "/", "/"])
    said = options(build(spec))

    assert said[said.index("A") - 1 : said.index("A") + 2] == ["--setenv", "A", "--bind"]
    assert said.count("--bind") == 1


def test_a_host_without_lib64_has_none_inside() -> None:
    layout = replace(DEBIAN, links=[("usr/lib", "/lib")], folders=["/bin"])
    said = options(build(layout=layout))

    assert "/lib64" not in said
    assert has(said, "--symlink", "usr/lib", "/lib")
    assert has(said, "--ro-bind", "/bin", "/bin")


def test_parents_of_what_is_shown_can_be_entered() -> None:
    said = options(build())
    for parent in ("/etc", "/etc/ssl", "/etc/pki", "/etc/pki/ca-trust"):
        assert has(said, "--perms", "0755", "--dir", parent)
        assert said.index(parent) < said.index("/etc/ssl/certs")


@pytest.mark.parametrize(
    ("access", "option"), [(Access.WRITE, "--bind-fd"), (Access.READ, "--ro-bind-fd")]
)
def test_the_workspace_is_bound_by_descriptor(access: Access, option: str) -> None:
    invocation = build(replace(SPEC, access=access))

    assert has(options(invocation), option, "7", "/workspace")
    assert invocation.descriptors == {Descriptor.WORKSPACE: 33}


def test_without_a_workspace_none_is_passed_on() -> None:
    for uid in (None, 60_900):
        invocation = build(replace(SPEC, access=Access.NONE), uid=uid)
        assert has(options(invocation), "--size", "67108864", "--tmpfs", "/workspace")
        assert invocation.descriptors == {}
        assert "mount" not in text(invocation)


def test_hidden_names_are_covered_by_what_they_are() -> None:
    hidden = [HiddenName("folder", is_directory=True), HiddenName("file", is_directory=False)]
    said = options(build(hidden=hidden))

    assert has(said, "--tmpfs", "/workspace/folder", "--remount-ro", "/workspace/folder")
    assert has(said, "--ro-bind", "/dev/null", "/workspace/file")
    assert said.index("/workspace") < said.index("/workspace/folder")


def test_the_door() -> None:
    invocation = build(replace(SPEC, egress=DOOR))
    assert has(options(invocation), "--ro-bind-fd", "8", "/run/egress.sock")
    assert invocation.descriptors[Descriptor.EGRESS] == 44
    assert Descriptor.CERTIFICATES not in invocation.files

    trusted = build(replace(SPEC, egress=replace(DOOR, certificates="DOOR\n")))
    assert trusted.files[Descriptor.CERTIFICATES] == b"SYSTEM\nDOOR\n"
    assert has(options(trusted), "--file", "10", "/run/egress-certificates.pem")
    assert not [path for path in options(build()) if "egress" in path]


def test_root_becomes_somebody_else_before_bwrap() -> None:
    invocation = build(replace(SPEC, egress=DOOR), uid=60_900)
    steps = text(invocation)

    assert "--reuid=60900 --regid=60900 --clear-groups --inh-caps=-all --no-new-privs" in steps
    assert steps.index("mount -n -c --bind") < steps.index("--reuid") < steps.index("bwrap")
    # Bound by where root has mounted it: the other user cannot walk to it.
    assert has(options(invocation), "--bind", "/run/openclawmu-sandbox/workspace", "/workspace")
    assert has(
        options(invocation), "--ro-bind", "/run/openclawmu-sandbox/egress.sock", "/run/egress.sock"
    )
    assert invocation.descriptors == {Descriptor.WORKSPACE: 33}
    # And not inside, where ".." would lead on.
    assert "exec 7<&-" in steps


def test_groups_are_joined_first() -> None:
    invocation = build(join_files=["/cg/a/cgroup.procs", "/cg/b/cgroup.procs"])
    script = str(invocation.argv[2])

    assert invocation.argv[3:7] == ["sandbox", "/cg/a/cgroup.procs", "/cg/b/cgroup.procs", "--"]
    assert script.startswith(
        'while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift'
    )


def test_limits_of_processes() -> None:
    limits = Limits(file_bytes=1024 * 1024, open_files=99, pids=7, memory_bytes=64 * 1024 * 1024)
    script = text(build(replace(SPEC, limits=limits)))

    assert "ulimit -n 99" in script
    assert "ulimit -f 2048" in script
    assert "ulimit -u 7 2>/dev/null || ulimit -p 7" in script
    assert "ulimit -d 65536" in script
    assert "ulimit -c 0" in script
    # What a group limits as a whole is not limited for each process.
    assert "ulimit -d" not in text(build(replace(SPEC, limits=limits), join_files=["/cg"]))


def test_limits_nobody_asked_for_are_not_set() -> None:
    limits = Limits(file_bytes=None, pids=None, memory_bytes=None)
    script = text(build(replace(SPEC, limits=limits)))

    assert not re.search(r"ulimit -[fudp]\b", script)


def test_a_limit_is_never_above_the_gateways_own() -> None:
    layout = replace(DEBIAN, hard_limits={"nofile": 64, "nproc": 5, "memlock": 8192})
    script = text(build(layout=layout))

    assert "ulimit -n 64" in script
    assert "ulimit -u 5" in script
    assert "ulimit -l 8" in script


def test_processes_are_not_counted_where_it_would_count_the_hosts() -> None:
    script = text(build(layout=replace(DEBIAN, counts_processes=False)))

    assert "ulimit -u" not in script


def test_a_terminal_gets_a_session_of_its_own() -> None:
    assert "setsid -c" in text(build(replace(SPEC, terminal=TerminalSize(80, 24))))
    assert "setsid" not in text(build())


def test_the_filter_is_that_of_the_machine() -> None:
    for architecture in Architecture:
        invocation = build(layout=replace(DEBIAN, architecture=architecture))
        assert invocation.files[Descriptor.SECCOMP] == program_bytes(architecture)


def test_descriptors_do_not_overlap() -> None:
    invocation = build(replace(SPEC, egress=replace(DOOR, certificates="x")))
    numbers = [*invocation.files, *invocation.descriptors]

    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 64
    assert set(numbers) & {0, 1, 2, Descriptor.HANDSHAKE, Descriptor.STATUS} == set()


def test_the_inner_users_are_known() -> None:
    invocation = build()
    said = options(invocation)
    number = int(said[said.index("/etc/passwd") - 1])

    assert b"agent:x:1000:1000::/workspace:" in invocation.files[number]


@pytest.mark.parametrize("uid", [None, 60_900])
@pytest.mark.parametrize("egress", [None, DOOR])
def test_the_text_of_each_step_is_valid_shell(uid: int | None, egress: EgressDoor | None) -> None:
    spec = replace(SPEC, egress=egress, limits=Limits(file_bytes=1))
    for terminal in (None, TerminalSize(80, 24)):
        argv = build(replace(spec, terminal=terminal), uid=uid, join_files=["/cg"]).argv
        scripts = [after for before, after in pairwise(argv) if before == "-c"]
        assert len(scripts) == 2
        for script in scripts:
            subprocess.run(["/bin/sh", "-n", "-c", script], check=True)


def test_the_launcher_passes_everything_on_as_it_is() -> None:
    """With programs that say what they were called with, from the first step to bwrap."""
    tricky = ["a b", "'", '"$(id)"', "", "\\", "*"]
    spec = replace(SPEC, command=["run", *tricky], limits=Limits(pids=None, memory_bytes=None))
    argv = list(build(spec).argv)
    script = str(argv[2])
    # From the namespace's step on it needs /proc/sys/user: taken out here.
    script = re.sub(r"echo \d+ >/proc/sys/user/max_inotify_\w+ \|\| exit 125\n", "", script)
    script = script.replace("/p/unshare -Ur ", "")
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    argv[2] = script
    argv[argv.index("/p/bwrap")] = sys.executable
    argv[argv.index("--args") : argv.index("--args") + 1] = ["-c", show, "--args"]
    done = subprocess.run(argv, capture_output=True, check=True)

    passed = json.loads(done.stdout)
    assert passed[:3] == ["--args", "5", "--"]
    assert passed[-len(tricky) - 2 :] == ["/workspace", "run", *tricky]
