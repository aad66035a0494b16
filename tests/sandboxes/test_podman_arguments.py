"""The command line of a container, for Podman and for Docker."""

from typing import Any

import pytest

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import Access, Bind, EgressDoor, Limits, SandboxSpec, TerminalSize
from appliance.sandboxes.bubblewrap_arguments import HiddenName
from appliance.sandboxes.commands import Command
from appliance.sandboxes.podman_arguments import Container, Engine, create, variable_lines

CONTAINER = Container(
    name="openclawmu-x-1",
    owner="x",
    image="localhost/base:1",
    workspace="/srv/tenants/workspace",
    seccomp="/srv/seccomp.json",
    variables="/srv/variables",
    uid=60_900,
)
MIB = 1024 * 1024


def line(
    *, engine: Engine = Engine.PODMAN, container: dict[str, Any] | None = None, **changes: Any
) -> list[str]:
    spec = SandboxSpec(**{"group": "g", "workspace": 3, "command": ("echo", "hi"), **changes})
    from_dict = {name: getattr(CONTAINER, name) for name in CONTAINER.__slots__}
    made = Container(**{**from_dict, **(container or {})})
    arguments = create(spec, Command.of(spec), made, engine=engine)
    return [
        argument.decode() if isinstance(argument, bytes) else argument for argument in arguments
    ]


@pytest.mark.parametrize("engine", list(Engine))
def test_what_isolates_is_always_there(engine: Engine) -> None:
    asked = line(engine=engine)

    assert asked[0] == "create"
    for argument in (
        "--network=none",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--security-opt=seccomp=/srv/seccomp.json",
        "--read-only",
        "--ipc=private",
        "--cgroupns=private",
        "--pull=never",
        "--log-driver=none",
        "--user=60900:60900",
        "--init",
    ):
        assert argument in asked


@pytest.mark.parametrize("engine", list(Engine))
def test_nothing_gives_more_rights(engine: Engine) -> None:
    asked = line(engine=engine)

    assert not [one for one in asked if one.startswith(("--privileged", "--cap-add", "--device"))]
    assert not [one for one in asked if one.endswith("=host")]


def test_docker_is_not_asked_for_what_only_podman_knows() -> None:
    asked = line(engine=Engine.DOCKER, container={"runtime_parent": "/parent"})

    for option in ("--systemd", "--http-proxy", "--unsetenv-all", "--image-volume", "--userns"):
        assert not [one for one in asked if one.startswith(option)]
    assert not [one for one in asked if "notmpcopyup" in one or "cgroup-parent" in one]


def test_a_users_podman_maps_that_user_to_the_one_inside() -> None:
    asked = line(container={"uid": None})

    assert "--userns=keep-id:uid=1000,gid=1000" in asked
    assert "--user=1000:1000" in asked


def test_limits_are_the_containers_and_its_group_is_ours() -> None:
    limits = Limits(memory_bytes=64 * MIB, pids=10, cpu_percent=150, file_bytes=5, open_files=99)
    asked = line(limits=limits, container={"runtime_parent": "/own/tenant/leaf"})

    assert f"--memory={64 * MIB}b" in asked
    assert f"--memory-swap={64 * MIB}b" in asked
    assert "--pids-limit=11" in asked  # with process 1, which is not the tenant's
    assert "--cpus=1.50" in asked
    assert "--ulimit=fsize=5:5" in asked
    assert "--ulimit=nofile=99:99" in asked
    assert "--cgroup-parent=/own/tenant/leaf" in asked


def test_no_limit_is_said_so_where_the_engine_has_one_of_its_own() -> None:
    asked = line(limits=Limits(memory_bytes=None, pids=None, cpu_percent=None))

    assert "--pids-limit=-1" in asked
    assert not [one for one in asked if one.startswith(("--memory", "--cpus"))]


def test_variables_are_in_a_file_and_those_of_several_lines_are_not() -> None:
    environment = {"KEY": "hunter2", "LINES_2": "one\ntwo"}
    spec = SandboxSpec(group="g", workspace=3, command=("env",), environment=environment)
    lines = variable_lines(Command.of(spec)).decode().splitlines()
    asked = line(environment=environment)

    assert "KEY=hunter2" in lines
    assert not [one for one in lines if one.startswith(("LINES_2", "two"))]
    assert not [one for one in asked if "hunter2" in one]
    assert "--env=LINES_2=one\ntwo" in asked


def test_the_workspace_is_shown_as_it_may_be_used() -> None:
    mount = "type=bind,source=/srv/tenants/workspace,destination=/workspace"

    assert mount in line(access=Access.WRITE)
    assert f"{mount},readonly" in line(access=Access.READ)
    none = line(access=Access.NONE)
    assert not [one for one in none if "/srv/tenants" in one]
    assert [one for one in none if one.startswith("/workspace:")]


def test_hidden_names_are_covered_with_nothing_copied_from_below() -> None:
    hidden = [HiddenName("keys", is_directory=True), HiddenName("secret", is_directory=False)]
    asked = line(container={"hidden": hidden})

    [covered] = [one for one in asked if one.startswith("/workspace/keys:")]
    assert "ro" in covered
    assert "notmpcopyup" in covered
    assert "type=bind,source=/dev/null,destination=/workspace/secret,readonly" in asked


def test_binds_and_the_door_are_shown() -> None:
    door = EgressDoor(socket=5, path="/run/x.sock", certificates="pem")
    asked = line(
        binds=(Bind("/opt/a", "/mnt/a"), Bind("/opt/b", "/mnt/b", is_writable=True)),
        egress=door,
        container={"certificates": "/srv/trusted.pem"},
    )

    assert "type=bind,source=/opt/a,destination=/mnt/a,readonly" in asked
    assert "type=bind,source=/opt/b,destination=/mnt/b" in asked
    assert "type=bind,source=/run/x.sock,destination=/run/egress.sock,readonly" in asked
    assert (
        "type=bind,source=/srv/trusted.pem,destination=/run/egress-certificates.pem,readonly"
        in asked
    )


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a:b"])
def test_a_path_that_would_become_an_option_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="rename it"):
        line(binds=(Bind(f"/opt/{name}", "/mnt"),))
    with pytest.raises(InvalidRequest, match="rename it"):
        line(container={"hidden": [HiddenName(name, is_directory=True)]})


def test_the_command_comes_last_and_as_it_is() -> None:
    asked = line(command=("printf", "--pull=always", ""), directory="/workspace/sub")

    assert asked[-4:] == ["/workspace/sub", "printf", "--pull=always", ""]
    assert asked.index("localhost/base:1") < len(asked) - 4


def test_a_terminal_is_asked_for() -> None:
    assert "--tty" in line(terminal=TerminalSize(80, 24))
    assert "--tty" not in line()
    assert "--interactive" in line()
