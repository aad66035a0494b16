"""httpx over our connections: its interface for everybody, without its pool's cost."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import httpx

from appliance import dialling
from appliance.dialling import Dial, DialFailed
from appliance.protocols.answers import MalformedAnswer
from appliance.providers.connections import (
    ConnectionLost,
    ConnectionPool,
    PoolBusy,
    Response,
    TooSlow,
)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MOST_ORIGINS = 256
_PATIENCE = 60.0  # seconds, for a client that set no timeout


class PoolTransport(httpx.AsyncBaseTransport):
    """``httpx.AsyncClient(transport=PoolTransport(), trust_env=False)``.

    HTTP/1.1 only, no proxies. ``public_only`` refuses addresses that are not
    public (see :mod:`~appliance.dialling`). ``dial`` replaces how
    connections are made: a Unix socket, a test.
    """

    def __init__(
        self,
        *,
        limit: int = 64,
        connect_timeout: float = 10.0,
        public_only: bool = False,
        dial: Callable[[str, int], Dial] | None = None,
    ) -> None:
        self._limit = limit
        self._connect_timeout = connect_timeout
        self._public_only = public_only
        self._dial = dial
        self._pools: dict[tuple[str, str, int], ConnectionPool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        patience = request.extensions.get("timeout", {}).get("read") or _PATIENCE
        await request.aread()
        with _as_httpx(request):
            response = await self._pool(request.url).exchange(
                _serialise(request), patience=patience, has_body=request.method != "HEAD"
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, request, patience),
        )

    async def aclose(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _pool(self, url: httpx.URL) -> ConnectionPool:
        if url.scheme not in _DEFAULT_PORTS:
            raise httpx.UnsupportedProtocol(f"{url.scheme}: is not http or https")
        origin = (url.scheme, url.host, url.port or _DEFAULT_PORTS[url.scheme])
        if origin not in self._pools:
            while len(self._pools) >= _MOST_ORIGINS:
                self._pools.pop(next(iter(self._pools))).close()
            scheme, host, port = origin
            dial = (
                self._dial(host, port)
                if self._dial is not None
                else dialling.tcp(host, port, tls=scheme == "https", public_only=self._public_only)
            )
            self._pools[origin] = ConnectionPool(
                dial, limit=self._limit, connect_timeout=self._connect_timeout
            )
        return self._pools[origin]


def _serialise(request: httpx.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % pair for pair in request.headers.raw]
    head = b"\r\n".join(lines)
    # httpx checks neither; a line break in a value would be a header of its own.
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise httpx.LocalProtocolError("a header holds a line break", request=request)
    return head + b"\r\n\r\n" + request.content


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: Response, request: httpx.Request, patience: float) -> None:
        self._response = response
        self._request = request
        self._patience = patience

    # An iterator of its own rather than a generator: httpx leaves those unfinished.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _as_httpx(self._request):
            data = await self._response.read_some(patience=self._patience)
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        self._response.release()


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """Translate our failures into those that httpx's users expect."""
    try:
        yield
    except DialFailed as exc:
        raise httpx.ConnectError(str(exc), request=request) from exc
    except PoolBusy as exc:
        raise httpx.PoolTimeout("all connections are in use", request=request) from exc
    except TooSlow as exc:
        raise httpx.ReadTimeout("the server is silent", request=request) from exc
    except ConnectionLost as exc:
        raise httpx.ReadError("the connection was lost", request=request) from exc
    except MalformedAnswer as exc:
        raise httpx.RemoteProtocolError(str(exc), request=request) from exc
