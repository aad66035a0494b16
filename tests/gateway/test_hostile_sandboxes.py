"""What a hostile model, or what runs for it, does to the gateway: nothing, and it is told why."""

import os
import stat
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.bench.bombs import BOMBS, Bomb
from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.gateway.scripts import ACTS, ask, call, told
from tests.gateway.test_terminals import processes
from tests.gateway.vitals import is_failure, resident, wait_quiet
from tests.gateway.websocket import connected
from tests.sandboxes.workshop import HAS_BWRAP, IS_ROOT, NO_BWRAP

pytestmark = pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)

MB = 1_000_000
SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="takes minutes: SLOW_TESTS=1")


@pytest.fixture
async def acme(gateway: Gateway) -> Tenant:
    await gateway.sandbox_proved()
    return await gateway.create("acme", config=ACTS)


@pytest.fixture(autouse=True)
async def unharmed(
    gateway: Gateway, acme: Tenant, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[None]:
    """Afterwards the tenant's agent still works, nothing is left, and the log has no failure."""
    with trio.fail_after(120):
        yield
    shown = await gateway.http.get(f"/v1/tenants/{acme.id}", headers=gateway.headers(ADMIN_KEY))
    if not shown.json()["disabled"]:
        assert "still fine" in await told(gateway, acme, call("exec", command="echo still fine"))
    with trio.fail_after(60):
        await wait_quiet()
    assert [record.getMessage() for record in caplog.records if is_failure(record)] == []


def workspace(gateway: Gateway, tenant: Tenant) -> Path:
    return gateway.state_dir / "tenants" / tenant.id / "workspace"


# What a model may call


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("echo a\0b", "NUL"),
        ("echo \udcff", "JSON"),
        ("echo \ud800\udfff \ud800", "JSON"),
        ("", "empty"),
        (" \n", "empty"),
        ("<<x 5000000>>", "command"),
    ],
)
async def test_a_command_that_cannot_be_run_is_refused_with_the_reason(
    gateway: Gateway, acme: Tenant, command: str, reason: str
) -> None:
    before = resident()

    text = await told(gateway, acme, call("exec", command=command))

    assert reason in text
    assert len(text) < 2_000
    assert resident() - before < 150 * MB


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": "true", "workdir": "a\0b"},
        {"command": "true", "workdir": "../../.."},
        {"command": "true", "workdir": "<<x 5000000>>"},
        {"command": "true", "env": {"A=B": "x"}},
        {"command": "true", "env": {"A": "a\0b"}},
        {"command": "true", "env": {"A": "\udc80"}},
        {"command": "true", "env": {"A": "<<x 5000000>>"}},
        {"command": 7},
        {"command": ["true"]},
        {"command": "true", "timeout": -1},
        {"command": "true", "timeout": 1e400},
        {},
    ],
)
async def test_other_arguments_are_looked_at_as_well(
    gateway: Gateway, acme: Tenant, arguments: dict[str, object]
) -> None:
    answer = await ask(gateway, acme, call("exec", **arguments))

    assert answer.status_code == 200, answer.text
    assert "inside the gateway" not in answer.text
    assert len(answer.text) < 5_000


@pytest.mark.parametrize(
    "path", ["a\0b", "\udcff", "<<a 300>>", "<<a/ 5000>>", "..", "/etc/passwd"]
)
async def test_a_path_that_cannot_be_is_refused_by_every_tool(
    gateway: Gateway, acme: Tenant, path: str
) -> None:
    text = await told(
        gateway,
        acme,
        call("read", path=path),
        call("write", path=path, content="x"),
        call("edit", path=path, oldText="a", newText="b"),
        call("ls", path=path),
        call("find", pattern="*", path=path),
        call("grep", pattern="root", path=path),
    )

    assert "root:" not in text
    assert "inside the gateway" not in text


async def test_unknown_tools_and_bad_arguments_are_told_to_the_model(
    gateway: Gateway, acme: Tenant
) -> None:
    script = (
        call("exce", command="id"),
        "call exec {this is no JSON}",
        'call exec {"command": }',
        'call exec {"command": {"command": "id"}}',
    )

    text = await told(gateway, acme, *script)

    assert "there is no tool 'exce'; did you mean exec?" in text
    assert "not a JSON object" in text


async def test_arguments_of_ten_megabytes_end_the_turn_with_the_reason(
    gateway: Gateway, acme: Tenant
) -> None:
    before = resident()

    answer = await ask(gateway, acme, call("exec", command="<<x 10000000>>"))

    assert answer.status_code == 502
    assert "too much" in answer.json()["error"]["message"]
    assert resident() - before < 150 * MB


async def test_the_same_call_again_and_again_ends_the_turn(gateway: Gateway, acme: Tenant) -> None:
    answer = await ask(gateway, acme, "\n\n".join([call("exec", command="echo round")] * 60))

    assert answer.text.count("round\\n") <= 15
    assert "Do something else" in answer.text


async def test_a_model_that_never_stops_calling_is_stopped(gateway: Gateway, acme: Tenant) -> None:
    script = "\n\n".join(call("exec", command=f"echo {number}") for number in range(120))

    with trio.fail_after(100):
        answer = await ask(gateway, acme, script)

    assert answer.status_code in {200, 403}, answer.text


# What lies in a workspace


async def test_a_workspace_of_traps_holds_nobody_up(gateway: Gateway, acme: Tenant) -> None:
    long = "n" * 255
    traps = (
        "mkfifo fifo AGENTS.md; ln -s /etc/passwd SOUL.md; ln -s nowhere dangling; ln -s loop loop;"
        "ln -s ../../../../../../../../etc up; ln -s /proc/self/root/etc/passwd passwd;"
        f"ln -s . self; touch {long}; echo in > {long}x 2>/dev/null; mkdir -p deep; cd deep;"
        f"for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do mkdir {long};"
        f"cd {long}; done; cd /workspace; touch $'\\377\\376' $'new\\nline' '-rf' '*';"
        "mkdir closed; chmod 0 closed; mknod null c 1 3; echo made=$?; mkfifo TOOLS.md;"
        "ln /etc/hostname hard 2>/dev/null; echo end"
    )
    text = await told(gateway, acme, call("exec", command=traps))
    assert "made=1" in text
    assert text.count("end") >= 1
    names = ["fifo", "SOUL.md", "dangling", "loop", "up/passwd", "passwd", "self/self/fifo"]
    if IS_ROOT:
        os.mknod(workspace(gateway, acme) / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        names.append("zero")

    with trio.fail_after(60):
        text = await told(
            gateway,
            acme,
            *(call("read", path=name) for name in names),
            *(call("write", path=name, content="x") for name in names),
            *(call("edit", path=name, oldText="r", newText="s") for name in names),
            call("ls"),
            call("ls", path="self/self"),
            call("find", pattern="**/*"),
            call("grep", pattern="root:|daemon"),
        )
        headers = gateway.headers(acme.token)
        base = f"/v1/tenants/{acme.id}/agents/main/files"
        listed = await gateway.http.get(base, headers=headers)
        statuses = {
            (
                await gateway.http.get(f"{base}/content", params={"path": n}, headers=headers)
            ).status_code
            for n in names
        }

    assert "root:x" not in text
    assert "inside the gateway" not in text
    assert listed.status_code == 200
    assert 200 not in statuses
    assert max(statuses) < 500


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=SLOW)])
async def test_very_many_files_are_listed_in_part_and_in_time(
    gateway: Gateway, acme: Tenant, count: int
) -> None:
    made = await told(
        gateway,
        acme,
        call(
            "exec",
            command=f"mkdir many; cd many; seq {count} | xargs touch; echo made",
            yieldMs=120_000,
        ),
    )
    assert "made" in made
    before = resident()
    began = time.monotonic()
    with trio.fail_after(60):
        text = await told(
            gateway,
            acme,
            call("ls", path="many"),
            call("find", pattern="**/99*"),
            call("grep", pattern="nothing"),
            call("read", path="many/77"),
        )
        listed = await gateway.http.get(
            f"/v1/tenants/{acme.id}/agents/main/files",
            params={"path": "many"},
            headers=gateway.headers(acme.token),
        )

    assert "inside the gateway" not in text
    assert len(text) < 300_000
    assert listed.status_code < 500
    assert resident() - before < 200 * MB
    assert time.monotonic() - began < 50
    await told(gateway, acme, call("exec", command="rm -rf many", yieldMs=120_000))


async def test_files_that_change_while_they_are_read(gateway: Gateway, acme: Tenant) -> None:
    churn = (
        "while :; do for n in 1 2 3; do seq 5000 > f; : > f; ln -sf /etc/passwd t; mv t f;"
        "rm f; mkfifo f; rm f; mkdir f; rmdir f; done; done"
    )
    reads = [call("read", path="f", offset=1 + number % 7) for number in range(40)]
    edits = [call("edit", path="f", oldText="1", newText=str(number)) for number in range(20)]
    with trio.fail_after(60):
        text = await told(
            gateway, acme, call("exec", command=churn, background=True), *reads, *edits, call("ls")
        )

    assert "root:x" not in text
    assert "inside the gateway" not in text


# What a tool brings


async def test_a_gigabyte_of_output_is_cut(gateway: Gateway, acme: Tenant) -> None:
    before = resident()

    flood = call("exec", command="yes | head -c 1000000000", timeout=4)
    text = await told(gateway, acme, flood)

    assert len(text) < 300_000
    assert "time limit" in text
    assert resident() - before < 60 * MB


async def test_a_file_of_ten_gigabytes_is_read_in_part(gateway: Gateway, acme: Tenant) -> None:
    make = "seq 20000 > big; truncate -s 10G big; truncate -s 10G hole; ls -s big hole"
    before = resident()
    with trio.fail_after(90):
        text = await told(
            gateway,
            acme,
            call("exec", command=make),
            call("read", path="big"),
            call("read", path="big", offset=30_000),
            call("read", path="hole"),
            call("edit", path="big", oldText="1", newText="2"),
        )
        picture = await gateway.http.get(
            f"/v1/tenants/{acme.id}/agents/main/files", headers=gateway.headers(acme.token)
        )

    assert "1\n2\n3" in text
    assert "inside the gateway" not in text
    assert len(text) < 300_000
    assert picture.status_code == 200
    assert resident() - before < 150 * MB


async def test_output_that_is_no_text_is_shown_as_far_as_it_can_be(
    gateway: Gateway, acme: Tenant
) -> None:
    script = "head -c 300000 /dev/urandom; printf '\\377\\0\\033]0;title\\007'; echo; echo last"

    assert "last" in await told(gateway, acme, call("exec", command=script))


# Bombs


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name.replace(" ", "-"))
async def test_a_bomb_ends_with_a_reason_and_hurts_nobody(
    gateway: Gateway, acme: Tenant, bomb: Bomb
) -> None:
    limited = await gateway.http.put(
        f"/v1/tenants/{acme.id}/quotas",
        json={"sandbox_disk_mb": 200},
        headers=gateway.headers(ADMIN_KEY),
    )
    assert limited.status_code == 200, limited.text
    other = await gateway.create("other", config=ACTS)
    ended: list[str] = []
    async with trio.open_nursery() as nursery:

        async def explode() -> None:
            ended.append(await told(gateway, acme, call("exec", command=bomb.command, timeout=4)))
            nursery.cancel_scope.cancel()

        nursery.start_soon(explode)
        while True:
            with trio.fail_after(60):
                assert "fine" in await told(gateway, other, call("exec", command="echo fine"))
            await trio.sleep(0.1)

    # So many open files may also hide what was deleted and still takes room.
    ends = ("no room left",) if bomb.fills_disk else ("time limit", "no room left")
    assert any(end in ended[0] for end in ends)
    if bomb.fills_disk:
        refused = await told(gateway, acme, call("exec", command="echo no"))
        assert "no room left" in refused
        assert "delete files" in refused
        await delete_files(gateway, acme)


async def delete_files(gateway: Gateway, tenant: Tenant) -> None:
    headers, base = gateway.headers(tenant.token), f"/v1/tenants/{tenant.id}/agents/main/files"
    listed = (await gateway.http.get(base, headers=headers)).json()["entries"]
    for entry in listed:
        path = {"path": entry["name"]}
        gone = await gateway.http.delete(base, params=path, headers=headers)
        assert gone.status_code == 204, gone.text
    with trio.fail_after(60):
        while "fine" not in await told(gateway, tenant, call("exec", command="echo fine")):  # noqa: ASYNC110 - the watch looks by itself
            await trio.sleep(0.2)


# The end of a tenant


async def test_disabling_a_tenant_ends_all_that_it_runs_at_once(
    gateway: Gateway, acme: Tenant
) -> None:
    mark = f"sleep 48{os.getpid()}"
    stubborn = f"trap '' HUP INT TERM; setsid {mark} & {mark}"
    await told(gateway, acme, call("exec", command=stubborn, background=True))
    async with trio.open_nursery() as nursery, connected(gateway.port, acme.token) as client:
        await client.call("terminal.spawn", command=stubborn)
        waiting = call("exec", command=stubborn, yieldMs=120_000)
        nursery.start_soon(partial(ask, gateway, acme, waiting))
        with trio.fail_after(60):
            while processes(mark) < 6:  # noqa: ASYNC110 - they are not ours to wait for
                await trio.sleep(0.02)
        with trio.fail_after(60):
            answer = await gateway.http.patch(
                f"/v1/tenants/{acme.id}",
                json={"disabled": True},
                headers=gateway.headers(ADMIN_KEY),
            )
        assert answer.status_code == 200
        assert processes(mark) == 0
        assert (await client.closed())[0] == 1008
