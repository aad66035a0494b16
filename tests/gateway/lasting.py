"""A gateway and its stub provider in a process of their own, for all tests that need no fresh one.

Run as ``python -m tests.gateway.lasting FOLDER``. It says its URL and ends with its input.
"""

import sys
from functools import partial
from pathlib import Path

import trio

from appliance.cli.gateway import Started, run_gateway
from tests.gateway.conftest import setup_in
from tests.stub_provider.server import StubProvider


async def serve(folder: Path) -> None:
    async def say(started: Started) -> None:
        print(started.url, flush=True)

    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, StubProvider().serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serving)
        port = listeners[0].socket.getsockname()[1]
        setup = setup_in(folder, stub_port=port)
        nursery.start_soon(partial(run_gateway, setup, when_started=say))
        await trio.to_thread.run_sync(sys.stdin.buffer.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]))
