"""Web servers that say what a test wants, and a resolver that leads names to them."""

import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from appliance.dialling import DialFailed, IpAddress, is_public, is_public_or_private
from appliance.sandboxes.egress_certificates import Authority
from appliance.services.web_pages import WebFetcher

Serve = Callable[[trio.abc.Stream, str], Awaitable[None]]


def answer(
    body: bytes | str = b"",
    *,
    status: int = 200,
    kind: str = "text/html; charset=utf-8",
    **headers: str,
) -> Serve:
    """Serves one whole answer."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}"]
    lines += [f"Content-Type: {kind}"] if kind else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw(("\r\n".join(lines) + "\r\n\r\n").encode() + data)


def raw(data: bytes) -> Serve:
    async def serve(stream: trio.abc.Stream, _: str) -> None:
        await stream.send_all(data)

    return serve


@dataclass
class Websites:
    """``pages`` by path; ``names`` are what hosts resolve to, one answer after the other."""

    port: int
    pages: dict[str, Serve]
    names: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)
    trusted: frozenset[str] = frozenset({"127.0.0.1"})  # taken for public ones
    authority: Authority | None = None  # who vouches for them; None: they speak no TLS

    @property
    def url(self) -> str:
        return f"http{'s' if self.authority else ''}://site.example:{self.port}"

    def fetcher(self) -> WebFetcher:
        trust = None
        if self.authority is not None:
            trust = ssl.create_default_context(cadata=self.authority.pem)
        return WebFetcher(
            is_public=lambda address: str(address) in self.trusted or is_public(address),
            is_private=is_public_or_private,
            resolve=self.resolve,
            ports={self.port},
            context=trust,
        )

    async def resolve(self, host: str, port: int) -> Sequence[IpAddress]:
        await trio.lowlevel.checkpoint()
        self.looked_up.append(host)
        known: Mapping[str, list[Sequence[str]]] = {"site.example": [["127.0.0.1"]], **self.names}
        if host in known:
            answers = known[host]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            return [ipaddress.ip_address(each) for each in found]
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            raise DialFailed("its name cannot be resolved") from None


async def open_websites(
    nursery: trio.Nursery, pages: dict[str, Serve], *, authority: Authority | None = None
) -> Websites:
    """Serve ``pages`` on a port of this machine as long as the nursery is open."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    websites = Websites(listener.socket.getsockname()[1], pages, authority=authority)
    nursery.start_soon(partial(trio.serve_listeners, _talking(websites), [listener]))
    return websites


def _talking(websites: Websites) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def talk(plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain
        if websites.authority is not None:
            context = websites.authority.context("site.example")
            stream = trio.SSLStream(plain, context, server_side=True, https_compatible=True)
        try:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line.partition(b":")[2])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ),
                0,
            )
            while len(body) < length:
                body += await stream.receive_some(65536)
            request = (head + b"\r\n\r\n" + body).decode()
            websites.requests.append(request)
            path = request.split(" ")[1].partition("?")[0]
            serve = websites.pages.get(path, answer("there is no such page", status=404))
            await serve(stream, request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever asked has heard enough
        finally:
            await trio.aclose_forcefully(plain)

    return talk
