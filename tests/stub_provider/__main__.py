"""``python -m tests.stub_provider [--host 127.0.0.1] [--port 9101]``."""

import argparse
from functools import partial

import trio

from tests.stub_provider.server import StubProvider

PORT = 9101


async def serve(host: str, port: int) -> None:
    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, StubProvider().serve, port, host=host)
        listeners = await nursery.start(serving)
        bound = listeners[0].socket.getsockname()[1]
        print(f"stub provider: http://{host}:{bound}/v1", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A model provider that answers by rote.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT)
    options = parser.parse_args()
    try:
        trio.run(serve, options.host, options.port)
    except* KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
