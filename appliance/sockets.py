"""Short cuts around trio's socket streams for the two busiest places.

A ``SocketStream`` tries the system call, and whether or not it succeeds at
once, passes the scheduler; around that stand a conflict detector and a
context manager that translates errors. On a relayed event or a small answer
all that costs as much as the call itself. These functions do the system call
on the same descriptor and nothing else; they stand beside the layers because
both ends of the gateway use them.

They are for plain sockets. For any other stream (TLS, memory) they fall back to
the stream's own methods.
"""

import os

import trio


def send_nowait(stream: trio.abc.Stream, data: bytes) -> int:
    """Send what the kernel takes at once and return how many bytes that were.

    No checkpoint: whoever sends in a loop passes one now and then. Raises
    :exc:`trio.BrokenResourceError`.
    """
    if type(stream) is not trio.SocketStream:
        return 0
    try:
        return os.write(stream.socket.fileno(), data)
    except BlockingIOError:
        return 0
    except OSError as exc:  # the peer is gone, or the stream was closed (fileno is -1)
        raise trio.BrokenResourceError from exc


async def receive_some(stream: trio.abc.Stream, limit: int) -> bytes:
    """Wait for data and return it, ``b""`` at the end; raise as the stream would."""
    if type(stream) is not trio.SocketStream:
        return bytes(await stream.receive_some(limit))
    fileno = stream.socket.fileno
    while True:
        descriptor = fileno()
        if descriptor < 0:
            # Waiting for a descriptor that is gone is a ``ValueError`` in trio.
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("the stream was closed")
        await trio.lowlevel.wait_readable(descriptor)
        try:
            # Asked again: closed meanwhile, the number may be another file's by now.
            return os.read(fileno(), limit)
        except BlockingIOError:
            continue  # woken for nothing, which the kernel may do
        except OSError as exc:
            raise trio.BrokenResourceError from exc
