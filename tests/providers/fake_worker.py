"""A model worker without a model: the stub behind a Unix socket.

Run as ``python -m tests.providers.fake_worker BEHAVIOUR …`` with the arguments
of the real one. What it was told is written beside ``REPORT``, if that is set
in its folder's name.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import trio

from tests.stub_provider.server import StubProvider


async def serve(behaviour: str, socket: str) -> None:
    match behaviour:
        case "refuse":
            print("FAILED the weights at /secret/path are broken", flush=True)
            return
        case "die":
            return
        case "never-ready":
            await trio.sleep_forever()
        case "once":
            mark = Path(os.environ["TMPDIR"]) / "started"
            if mark.exists():
                return
            mark.touch()
    stub = StubProvider()
    listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listening.bind(socket)
    listening.listen(16)
    report = Path(os.environ["TMPDIR"]) / "report.json"
    report.write_text(json.dumps({"argv": sys.argv, "environ": dict(os.environ)}))
    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_listeners, stub.serve, [trio.SocketListener(listening)])
        nursery.start_soon(serving)
        print("READY", flush=True)
        await trio.to_thread.run_sync(sys.stdin.buffer.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], sys.argv[sys.argv.index("--socket") + 1])
