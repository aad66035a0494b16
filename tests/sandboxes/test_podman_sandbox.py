"""A container's client: its terminal and its signals."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.base import Access, TerminalSize
from appliance.sandboxes.groups import NoGroups
from appliance.sandboxes.podman import Podman
from appliance.sandboxes.podman_sandbox import PodmanSandbox
from tests.sandboxes.contract import read_until
from tests.sandboxes.fake_engine import FakeEngine, fake_engine
from tests.sandboxes.workshop import Workshop, workspace

SIZE = TerminalSize(columns=100, rows=30)


@pytest.fixture
def fake(tmp_path: Path) -> FakeEngine:
    return fake_engine(tmp_path / "engine")


@pytest.fixture
def shop(fake: FakeEngine, tmp_path: Path) -> Iterator[Workshop]:
    podman = Podman(
        engine=fake.engine,
        image="base",
        uid=60_900,
        groups=NoGroups(),
        state_dir=tmp_path,
        directory=tmp_path / "containers",
    )
    with workspace(tmp_path) as (path, descriptor):
        yield Workshop(podman, path, descriptor)


async def test_the_client_is_told_of_a_new_size(shop: Workshop, fake: FakeEngine) -> None:
    fake.set(
        "command", "trap 'stty size </dev/stdout' WINCH; echo up; while :; do sleep 0.02; done"
    )
    async with shop.backend.open(shop.shell("true", access=Access.NONE, terminal=SIZE)) as sandbox:
        assert isinstance(sandbox, PodmanSandbox)
        assert sandbox.errors is None
        await read_until(sandbox, b"up")
        sandbox.resize(TerminalSize(columns=132, rows=50))
        await read_until(sandbox, b"50 132")


async def test_a_signal_the_host_cannot_send_is_the_clients_to_hand_on(
    shop: Workshop, fake: FakeEngine
) -> None:
    fake.set("command", "trap 'exit 7' USR1; echo up; while :; do sleep 0.02; done")
    fake.set("state", "exited false 7\n")
    async with shop.backend.open(shop.shell("true", access=Access.NONE)) as sandbox:
        await read_until(sandbox, b"up")
        sandbox.interrupt(signal.SIGUSR1)
        with trio.fail_after(60):
            assert (await sandbox.wait()).exit_code == 7


async def test_nobody_knows_a_process_id_that_cannot_be_seen(
    shop: Workshop, fake: FakeEngine
) -> None:
    async with shop.backend.open(shop.shell("true", access=Access.NONE)) as sandbox:
        assert sandbox.inner_pid is None


async def test_output_nobody_reads_does_not_hold_up_the_end(
    shop: Workshop, fake: FakeEngine
) -> None:
    fake.set("command", "echo up; while :; do head -c 65536 /dev/zero || exit; done")
    with trio.fail_after(60):
        async with shop.backend.open(shop.shell("true", access=Access.NONE)) as sandbox:
            await read_until(sandbox, b"up")
