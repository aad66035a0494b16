"""A gateway that is killed takes its sandboxes along, and the next one tidies up after it."""

import os
import signal
from pathlib import Path

import pytest

from appliance.sandboxes.cgroup_files import owner_mark
from tests.gateway.test_terminals import processes
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP
from tests.system.processes import ADMIN_KEY, Gateway, Launcher, wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)]

MARK = f"sleep 49{os.getpid()}"  # what nobody else's process does
STUBBORN = f"trap '' HUP INT TERM; (setsid {MARK} &) ; setsid {MARK} & {MARK}"
OVERLAY: dict[str, object] = {"defaults": {"tools": {"http_deny": []}}}


def groups(gateway: Gateway) -> list[Path]:
    """Those of sandboxes of this state directory, in whichever hierarchy."""
    name = f"openclawmu-{owner_mark(gateway.state)}"
    roots = Path("/sys/fs/cgroup")
    found = {*roots.glob(name), *roots.glob(f"*/{name}")}
    below: list[Path] = []
    for root in found:
        # os.walk passes over what goes away meanwhile.
        below += [Path(place) for place, _, _ in os.walk(root) if Path(place).parent.parent == root]
    return below


def start_commands(gateway: Gateway, token: str, count: int) -> None:
    with gateway.client(token) as tenant:
        changed = tenant.patch("/v1/tenants/acme/config", json=OVERLAY)
        assert changed.status_code == 200, changed.text
        for _ in range(count):
            arguments = {"command": STUBBORN, "background": True}
            answer = tenant.post("/tools/invoke", json={"tool": "exec", "args": arguments})
            assert answer.status_code == 200, answer.text


def test_nothing_survives_a_killed_gateway_and_the_next_one_sweeps(launcher: Launcher) -> None:
    gateway = launcher.serve()
    token = gateway.create_tenant()
    start_commands(gateway, token, 3)
    wait_until(lambda: processes(MARK) == 9, "all commands to run")
    had_groups = bool(groups(gateway))

    gateway.process.signal(signal.SIGKILL)
    gateway.process.wait()

    wait_until(lambda: processes(MARK) == 0, "the sandboxes to die")
    again = launcher.serve()
    if had_groups:
        wait_until(lambda: not groups(again), "the next gateway to sweep")
    with again.client(token) as tenant:
        arguments = {"command": "echo back"}
        answer = tenant.post("/tools/invoke", json={"tool": "exec", "args": arguments})
    assert "back" in answer.text
    with again.client(ADMIN_KEY) as admin:
        assert admin.get("/v1/status").json()["sandbox"]["problem"] == ""
    assert again.process.stop() == 0
    assert groups(again) == []
