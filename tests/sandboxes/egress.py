"""A sandbox's side of the egress proxy, and servers on loopback that stand for the internet."""

import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import trio

from appliance.dialling import DialFailed, IpAddress
from appliance.model.egress import EgressRule, EgressRules, HostPattern, Injection
from appliance.sandboxes.base import EgressDoor
from appliance.sandboxes.egress import EgressProxy
from appliance.sandboxes.egress_certificates import Authority
from appliance.sandboxes.egress_settings import EgressRecord, EgressSettings

HOST = "api.example.org"
CANARY = "sk-canary-7f3a91d0c2"
LOOPBACK = ipaddress.ip_address("127.0.0.1")

Serve = Callable[[trio.abc.Stream], Awaitable[None]]


def rule(
    host: str = HOST,
    *ports: int,
    methods: Sequence[str] | None = None,
    injection: Injection | None = None,
    max_bytes: int | None = None,
) -> EgressRule:
    return EgressRule(
        host=HostPattern(host),
        ports=frozenset(ports or {443}),
        methods=None if methods is None else frozenset(methods),
        injection=injection,
        max_bytes=max_bytes,
    )


def injecting(host: str = HOST, *ports: int) -> EgressRule:
    return rule(host, *ports, injection=Injection("openai"))


@dataclass
class Internet:
    """Names, and the servers behind them. Every server's port stands for the one it was given."""

    authority: Authority = field(default_factory=Authority.generate)  # that servers are signed by
    addresses: dict[str, list[list[IpAddress]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    allowed: set[IpAddress] = field(default_factory=lambda: {LOOPBACK})

    async def resolve(self, host: str, port: int) -> Sequence[IpAddress]:
        self.asked.append(host)
        await trio.lowlevel.checkpoint()
        answers = self.addresses.get(host)
        if not answers:
            raise DialFailed("its name cannot be resolved")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def is_allowed(self, address: IpAddress) -> bool:
        return address in self.allowed

    @property
    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem)
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def serve(
        self, nursery: trio.Nursery, serve: Serve, *hosts: str, tls: bool = True
    ) -> int:
        """Serve at a free port, which is returned; ``hosts`` lead there."""
        for host in hosts or (HOST,):
            self.addresses[host] = [[LOOPBACK]]

        async def handle(stream: trio.SocketStream) -> None:
            talking: trio.abc.Stream = stream
            if tls:
                talking = trio.SSLStream(
                    stream,
                    self.authority.context((hosts or (HOST,))[0]),
                    server_side=True,
                    https_compatible=True,
                )
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await serve(talking)
                with trio.move_on_after(1):
                    await talking.aclose()
            stream.socket.close()

        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        return int(listeners[0].socket.getsockname()[1])


@dataclass
class Sandbox:
    """Who is inside: it knows the door, and trusts what it was told to trust."""

    door: EgressDoor
    records: list[EgressRecord]

    async def connect(self) -> trio.SocketStream:
        return await trio.open_unix_socket(f"/proc/self/fd/{self.door.socket}")

    async def ask(self, data: bytes) -> bytes:
        """All that comes back for ``data``."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            return await everything(stream)

    async def get(self, authority: str, path: str = "/") -> bytes:
        """The answer to a request in clear text, as a program sends it to a proxy."""
        ask = f"GET http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        return await self.ask(ask.encode())

    async def tunnel(self, target: str) -> trio.SocketStream:
        stream = await self.connect()
        await stream.send_all(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = await head(stream)
        if not answer.startswith(b"HTTP/1.1 200 "):
            await stream.aclose()
            raise AssertionError(answer)
        return stream

    async def secure(
        self, target: str, *, trust: str | None = None, name: str | None = None
    ) -> trio.SSLStream[trio.SocketStream]:
        """A TLS connection through a tunnel; ``trust`` is the door's certificates by default."""
        context = ssl.create_default_context(cadata=trust or self.door.certificates)
        secured = trio.SSLStream(
            await self.tunnel(target),
            context,
            server_hostname=name or target.rpartition(":")[0],
            https_compatible=True,
        )
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(secured)
            raise
        return secured


@asynccontextmanager
async def sandbox(
    directory: Path, internet: Internet, *rules: EgressRule, **settings: object
) -> AsyncIterator[Sandbox]:
    proxy = EgressProxy(
        directory=directory / "doors",
        authority=AUTHORITY,
        resolve=internet.resolve,
        is_public=internet.is_allowed,
        context=internet.context,
    )
    records: list[EgressRecord] = []
    chosen = EgressSettings(rules=EgressRules(rules), credentials={"openai": CANARY}.get)
    chosen = replace(chosen, **settings)  # type: ignore[arg-type] # the caller names real fields
    async with proxy.open(chosen, records.append) as door:
        yield Sandbox(door, records)


AUTHORITY = Authority.generate()


def client_hello(host: str = HOST) -> bytes:
    """The first bytes of a TLS client."""
    sent = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


async def say_nothing(_: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def everything(stream: trio.abc.Stream) -> bytes:
    received = bytearray()
    while data := await stream.receive_some(65536):
        received += data
    return bytes(received)


async def head(stream: trio.abc.Stream) -> bytes:
    """Up to the empty line; byte by byte, so that nothing after it is taken."""
    received = bytearray()
    while not received.endswith(b"\r\n\r\n"):
        data = await stream.receive_some(1)
        if not data:
            break
        received += data
    return bytes(received)


async def body(stream: trio.abc.Stream, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        data = await stream.receive_some(length - len(received))
        if not data:
            break
        received += data
    return bytes(received)


@dataclass
class Website:
    """An HTTP server that notes what it is asked and answers what it is told to."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        while asked := await head(stream):
            self.heads.append(asked)
            for line in asked.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    await body(stream, int(line.partition(b":")[2]))
            await stream.send_all(self.answer)
            if b"connection: close" in asked.lower():
                return
