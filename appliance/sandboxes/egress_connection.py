"""Serves one connection out of a sandbox: a request for a tunnel, or to be sent on."""

from functools import partial

import trio

from appliance.model.egress import are_inspected
from appliance.protocols.client_hello import ClientHelloReader, NotTls
from appliance.protocols.http_connect import CLEAR_TEXT_PORT, Forward, Tunnel, proxy_request
from appliance.protocols.http_head import HeadReader, RequestHead, RequestRefused
from appliance.sandboxes.egress_passage import (
    READ_BYTES,
    EgressEnded,
    Passage,
    pump,
    together,
)
from appliance.sandboxes.egress_requests import Requests
from appliance.sandboxes.egress_route import Route
from appliance.sandboxes.egress_settings import Verdict

_HEAD_PATIENCE = 10.0  # seconds, however slowly it drips
_TLS_PORT = 443
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def serve(passage: Passage, route: Route) -> None:
    """Serve it to its end. Raises what is in ``Endings``; the caller answers and closes."""
    try:
        head, rest = await _first_head(passage.client)
        request = proxy_request(head)
    except RequestRefused as exc:
        raise EgressEnded(Verdict.REFUSED, exc.reason, status=exc.status) from exc
    passage.host, passage.port = request.host, request.port
    match request:
        case Tunnel(host, port):
            rules = route.require(host, port)
            if are_inspected(rules):
                await _inspect(passage, route, request, rest)
            else:
                passage.under(rules[0])
                await _tunnel(passage, route, request, rest)
        case Forward():
            await _forward(passage, route, request, head, rest)


async def _first_head(client: trio.abc.Stream) -> tuple[RequestHead, bytes]:
    reader = HeadReader()
    try:
        with trio.fail_after(_HEAD_PATIENCE):
            while data := await client.receive_some(READ_BYTES):
                if (head := reader.receive(bytes(data))) is not None:
                    return head, reader.rest
    except trio.TooSlowError:
        raise EgressEnded(Verdict.FAILED, "the request came too slowly", status=408) from None
    raise EgressEnded(Verdict.FAILED, "the client left before it asked for anything")


async def _tunnel(passage: Passage, route: Route, tunnel: Tunnel, rest: bytes) -> None:
    """Copy bytes both ways, once the client has begun TLS with the host it named."""
    client = passage.client
    async with await route.dial(tunnel.host, tunnel.port, tls=False) as upstream:
        passage.can_answer = False
        await client.send_all(_ESTABLISHED)
        hello = await _hello(client, rest, tunnel.host)
        passage.count_sent(len(hello))
        await upstream.send_all(hello)
        await together(
            partial(pump, client, upstream, passage.count_sent),
            partial(pump, upstream, client, passage.count_received),
        )


async def _hello(client: trio.abc.Stream, data: bytes, host: str) -> bytes:
    """All that came up to the end of a ClientHello for ``host``."""
    reader, received = ClientHelloReader(), [data]
    try:
        with trio.fail_after(_HEAD_PATIENCE):
            while (name := reader.receive(data)) is None:
                data = bytes(await client.receive_some(READ_BYTES))
                if not data:
                    raise EgressEnded(Verdict.FAILED, "the client left before it began TLS")
                received.append(data)
    except NotTls as exc:
        raise EgressEnded(Verdict.REFUSED, f"a tunnel is for TLS: {exc}") from exc
    except trio.TooSlowError:
        raise EgressEnded(Verdict.FAILED, "TLS was begun too slowly") from None
    if name.removesuffix(".") != host:
        raise EgressEnded(Verdict.REFUSED, "TLS was begun with another host than the tunnel's")
    return b"".join(received)


async def _inspect(passage: Passage, route: Route, tunnel: Tunnel, rest: bytes) -> None:
    """Be the server of a tunnel, so that its requests can be judged and added to."""
    passage.can_answer = False
    await passage.client.send_all(_ESTABLISHED)
    transport = _Resumed(passage.client, rest) if rest else passage.client
    secured = trio.SSLStream(
        transport, route.authority.context(tunnel.host), server_side=True, https_compatible=True
    )
    try:
        with trio.fail_after(_HEAD_PATIENCE):
            await secured.do_handshake()
    except (trio.BrokenResourceError, trio.TooSlowError) as exc:
        reason = "TLS could not be begun: does the client trust the file in SSL_CERT_FILE?"
        raise EgressEnded(Verdict.FAILED, reason) from exc
    passage.client = secured
    async with Requests(passage, route, tunnel.host, tunnel.port, tls=True) as requests:
        await requests.serve_all()


async def _forward(
    passage: Passage, route: Route, forward: Forward, head: RequestHead, rest: bytes
) -> None:
    """Send one request on: over TLS where a credential goes with it, else as it was asked for."""
    host, port, tls = forward.host, forward.port, False
    if port == CLEAR_TEXT_PORT and are_inspected(route.settings.rules.matching(host, _TLS_PORT)):
        # http://host/ is how a program that cannot be taught our certificates asks.
        port, tls = _TLS_PORT, True
        passage.port = port
    elif any(rule.injection for rule in route.require(host, port)):
        if port == CLEAR_TEXT_PORT:
            reason = f"a credential is never sent in clear text; allow {host} at port {_TLS_PORT}"
            raise EgressEnded(Verdict.REFUSED, reason)
        tls = True
    async with Requests(passage, route, host, port, tls=tls) as requests:
        await requests.serve_one(head, forward.path, rest)


class _Resumed(trio.abc.Stream):
    """A stream of which something has been read already."""

    def __init__(self, stream: trio.abc.Stream, data: bytes) -> None:
        self._stream = stream
        self._data = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._data:
            return bytes(await self._stream.receive_some(max_bytes))
        await trio.lowlevel.checkpoint()
        size = len(self._data) if max_bytes is None else max_bytes
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()
