"""Requests out of a sandbox that are seen: each is judged, added to, and sent on to one host.

What leaves is written anew, so nothing that only we would understand gets
through. A credential is set here and nowhere else: for the host of its rule,
over TLS. Redirects are answers like any other; nobody here follows them.
"""

from functools import partial
from types import TracebackType

import h11
import trio

from appliance.model.egress import EgressRule, Injection, allowing
from appliance.protocols.http_connect import check_origin_request
from appliance.protocols.http_head import HeadReader, RequestHead, RequestRefused
from appliance.protocols.secret_watch import SecretWatch
from appliance.sandboxes.egress_exchange import Exchange, Outcome
from appliance.sandboxes.egress_passage import READ_BYTES, EgressEnded, Passage, pump, together
from appliance.sandboxes.egress_route import Route
from appliance.sandboxes.egress_settings import Verdict

_HEAD_PATIENCE = 10.0  # seconds, from its first byte on
# They are about one connection; ours to the server is another.
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization",
        b"proxy-authenticate", b"te", b"trailer", b"upgrade", b"http2-settings", b"host",
    }
)  # fmt: skip
# Whatever Connection names, these say where the request ends.
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class Requests:
    """The requests of one client connection; leaving closes the one to the server."""

    def __init__(self, passage: Passage, route: Route, host: str, port: int, *, tls: bool) -> None:
        self._passage = passage
        self._route = route
        self._host = host
        self._port = port
        self._tls = tls
        self._upstream: trio.abc.Stream | None = None

    async def __aenter__(self) -> "Requests":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._hang_up()

    async def serve_all(self) -> None:
        """Serve requests of origin form until either side has had enough."""
        rest: bytes | None = b""
        while rest is not None:
            self._passage.can_answer = True
            try:
                found = await self._next_head(rest)
                if found is None:
                    return
                head, rest = found
                check_origin_request(head, self._host, self._port)
            except RequestRefused as exc:
                raise EgressEnded(Verdict.REFUSED, exc.reason, status=exc.status) from exc
            rest = await self._serve(head, head.target, rest, close=False)

    async def serve_one(self, head: RequestHead, path: str, rest: bytes) -> None:
        await self._serve(head, path, rest, close=True)

    async def _next_head(self, rest: bytes) -> tuple[RequestHead, bytes] | None:
        """The next head; None if the client has left instead. It may take its time to begin."""
        data = rest or bytes(await self._passage.client.receive_some(READ_BYTES))
        if not data:
            return None
        reader = HeadReader()
        try:
            with trio.fail_after(_HEAD_PATIENCE):
                while (head := reader.receive(data)) is None:
                    data = bytes(await self._passage.client.receive_some(READ_BYTES))
                    if not data:
                        raise EgressEnded(Verdict.FAILED, "the client left in the middle")
        except trio.TooSlowError:
            raise EgressEnded(Verdict.FAILED, "the request came too slowly", status=408) from None
        return head, reader.rest

    async def _serve(
        self, head: RequestHead, path: str, rest: bytes, *, close: bool
    ) -> bytes | None:
        """Serve one request; return what came after it, None if it was the last."""
        rule = allowing(self._route.require(self._host, self._port), head.method)
        if rule is None:
            reason = f"{head.method} is not among the methods allowed for {self._host}"
            raise EgressEnded(Verdict.REFUSED, reason)
        self._passage.under(rule)
        request, watch = self._outgoing(head, path, rule, close=close)
        upstream = await self._connected()
        exchange = Exchange(self._passage, upstream, head, rest, watch, close=close)
        outcome = await exchange.run(request)
        if outcome is Outcome.SWITCHED:
            await self._pipe(upstream, exchange)
        elif not exchange.is_upstream_reusable:
            await self._hang_up()
        return exchange.rest if outcome is Outcome.REUSABLE else None

    def _outgoing(
        self, head: RequestHead, path: str, rule: EgressRule, *, close: bool
    ) -> tuple[h11.Request, SecretWatch]:
        named = head.tokens(b"connection") - _FRAMING
        is_upgrade = b"upgrade" in named and head.tokens(b"upgrade") == {b"websocket"}
        injection = rule.injection
        headers = [
            (b"Host", self._authority()),
            *(
                (name, value)
                for name, value in head.headers
                if name.lower() not in _HOP_BY_HOP | named
                and not (injection and _is_ours(name.decode(), injection))
            ),
        ]
        if is_upgrade:
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        elif close:
            headers.append((b"Connection", b"close"))
        secret = ""
        if injection is not None:
            secret = self._secret(injection)
            headers.append((injection.header.encode(), self._header_value(injection, secret)))
            # So that an answer that repeats the credential is seen to.
            headers.append((b"Accept-Encoding", b"identity"))
        request = h11.Request(method=head.method, target=path, headers=headers)
        return request, SecretWatch(secret.encode())

    def _authority(self) -> bytes:
        default = 443 if self._tls else 80
        suffix = "" if self._port == default else f":{self._port}"
        return f"{self._host}{suffix}".encode()

    def _secret(self, injection: Injection) -> str:
        if not self._tls:
            raise EgressEnded(Verdict.REFUSED, "a credential is never sent in clear text")
        secret = self._route.settings.credentials(injection.credential)
        if secret is None:
            reason = f"no credential named {injection.credential} is stored; {self._host} needs it"
            raise EgressEnded(Verdict.REFUSED, reason)
        return secret

    def _header_value(self, injection: Injection, secret: str) -> bytes:
        try:
            return injection.value(secret).encode()
        except ValueError:
            reason = f"the credential {injection.credential} cannot be sent in a header"
            raise EgressEnded(Verdict.REFUSED, reason) from None

    async def _connected(self) -> trio.abc.Stream:
        """The connection to the server; another if it closed the one that was there."""
        if self._upstream is not None:
            if not _is_stale(self._upstream):
                return self._upstream
            await self._hang_up()
        self._upstream = await self._route.dial(self._host, self._port, tls=self._tls)
        return self._upstream

    async def _hang_up(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await trio.aclose_forcefully(upstream)

    async def _pipe(self, upstream: trio.abc.Stream, exchange: Exchange) -> None:
        """What both speak now (WebSocket) is copied as it comes."""
        passage = self._passage
        await upstream.send_all(exchange.rest)
        await passage.client.send_all(exchange.pass_on(exchange.upstream_rest))
        await together(
            partial(pump, passage.client, upstream, passage.count_sent),
            partial(pump, upstream, passage.client, passage.count_received, exchange.pass_on),
        )


def _is_ours(header: str, injection: Injection) -> bool:
    return injection.replaces(header) or header.lower() == "accept-encoding"


def _is_stale(stream: trio.abc.Stream) -> bool:
    """Whether the server has said something unasked, which is mostly its goodbye."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    return isinstance(transport, trio.SocketStream) and transport.socket.is_readable()
