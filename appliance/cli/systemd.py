"""Tells systemd how the service is doing (sd_notify(3)); elsewhere this does nothing."""

import socket
from collections.abc import Mapping
from contextlib import suppress

import trio


class ServiceNotifier:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog = _seconds(environ.get("WATCHDOG_USEC", ""))

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send("RELOADING=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    async def watchdog(self) -> None:
        """Report twice per watchdog period that the event loop runs, until cancelled."""
        if self._watchdog is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self._watchdog / 2)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # "@" stands for the abstract namespace's leading NUL byte.
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(0)
            out.sendto(state.encode(), address)


def _seconds(microseconds: str) -> float | None:
    # 0 is no period at all; taken for one, it would keep the loop busy.
    return (int(microseconds) / 1_000_000 or None) if microseconds.isdecimal() else None
