"""What systemd is told, and that nothing happens without it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.cli.systemd import ServiceNotifier


class Listener:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(0)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(100).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def systemd(path: str) -> Iterator[Listener]:
    listener = Listener(path)
    yield listener
    listener.close()


def test_systemd_hears_of_each_step(systemd: Listener, path: str) -> None:
    notifier = ServiceNotifier({"NOTIFY_SOCKET": path})

    notifier.ready()
    notifier.reloading()
    notifier.stopping()

    assert systemd.heard() == ["READY=1", "RELOADING=1", "STOPPING=1"]


def test_an_address_in_the_abstract_namespace_begins_with_an_at_sign(tmp_path: Path) -> None:
    name = f"openclaw-{tmp_path.name}-{id(tmp_path)}"
    listener = Listener(f"\0{name}")

    ServiceNotifier({"NOTIFY_SOCKET": f"@{name}"}).ready()

    assert listener.heard() == ["READY=1"]
    listener.close()


def test_an_at_sign_within_a_path_is_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway@eu"
    listener = Listener(str(path))

    ServiceNotifier({"NOTIFY_SOCKET": str(path)}).ready()

    assert listener.heard() == ["READY=1"]
    listener.close()


def test_without_systemd_nothing_is_sent() -> None:
    ServiceNotifier({}).ready()


def test_a_socket_that_is_gone_disturbs_nobody(systemd: Listener, path: str) -> None:
    systemd.close()

    ServiceNotifier({"NOTIFY_SOCKET": path}).ready()
    ServiceNotifier({"NOTIFY_SOCKET": path + "-never-was"}).ready()


def test_a_systemd_that_does_not_read_holds_nobody_up(systemd: Listener, path: str) -> None:
    notifier = ServiceNotifier({"NOTIFY_SOCKET": path})

    for _ in range(10_000):
        notifier.ready()

    assert 0 < len(systemd.heard()) < 10_000


async def test_the_watchdog_hears_twice_a_period(
    systemd: Listener, path: str, autojump_clock: MockClock
) -> None:
    notifier = ServiceNotifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"})

    with trio.move_on_after(59):
        await notifier.watchdog()

    assert systemd.heard() == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize("period", [None, "", "0", "-1", "soon", "1.5"])
async def test_without_a_period_there_is_no_watchdog(
    systemd: Listener, path: str, period: str | None
) -> None:
    environ = {"NOTIFY_SOCKET": path}
    if period is not None:
        environ["WATCHDOG_USEC"] = period

    with trio.fail_after(1):
        await ServiceNotifier(environ).watchdog()

    assert systemd.heard() == []
