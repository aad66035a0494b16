"""Request bodies on the raw ASGI routes: bounded in size and in time."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import trio

from appliance.model.errors import Unavailable
from appliance.transports.problems import body_too_large, slow_body

T = TypeVar("T")
Receive = Callable[[], Awaitable[dict[str, Any]]]

# A sender of too much is listened to for a while, because a connection closed
# under its hands hides the answer that says why.
_DRAIN_BYTES = 64 * 1024 * 1024
_DRAIN_SECONDS = 5.0


class ClientGone(Unavailable):
    """The client left before its request was complete; nobody reads the answer."""

    code = "client-gone"
    title = "The client left"


async def read_body(
    receive: Receive, headers: Iterable[tuple[bytes, bytes]], *, limit: int, patience: float
) -> bytes:
    """Return the whole body, at most ``limit`` bytes, received within ``patience`` seconds.

    Raises :exc:`TooLarge`, ``SlowBody`` or :exc:`ClientGone`.
    """
    for name, value in headers:
        if name == b"content-length" and len(value) <= 20 and int(value) > limit:
            await drain(receive)
            raise body_too_large(limit)
    with trio.CancelScope(deadline=trio.current_time() + patience):
        return await _read(receive, limit)
    raise slow_body()


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone("the client left before its request was complete")
        body = message.get("body", b"")
        if body:
            size += len(body)
            if size > limit:
                await drain(receive)
                raise body_too_large(limit)
            parts.append(body)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def drain(receive: Receive) -> None:
    """Listen for a while to what a refused sender still has to say."""
    size = 0
    with trio.move_on_after(_DRAIN_SECONDS):
        while size < _DRAIN_BYTES:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return
            size += len(message.get("body", b""))


# Checking a large body holds the loop for milliseconds, a thread only for the
# length of its GIL slices.
_LARGE = 128 * 1024


async def off_the_loop(body: bytes, parse: Callable[[], T]) -> T:
    """What ``parse`` makes of ``body``: at once for a small one, in a thread for a large one."""
    return parse() if len(body) < _LARGE else await trio.to_thread.run_sync(parse)
