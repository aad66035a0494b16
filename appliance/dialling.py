"""Opens connections: TCP, TLS and Unix sockets; for tenants, to public addresses only.

A tenant's own base URL must not reach what only the gateway can: the machine
itself, the network it stands in, a cloud's metadata service. A name is
resolved once, every address it has is checked, and a checked address is what
is connected to, so a name that changes its mind in between gains nothing.

This stands beside the layers, because providers, sandboxes and the gateway's
own fetches dial by the same rules.
"""

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import trio

Dial = Callable[[], Awaitable[trio.abc.Stream]]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[IpAddress]]]
IsAllowed = Callable[[IpAddress], bool]

_MOST_ADDRESSES = 4  # tried one after the other
_ADDRESS_PATIENCE = 10.0  # seconds for each, so that one that never answers hides no other

# What Python's own tables call global, or did in some release we run on.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # carriers' NAT; one cloud's metadata service
        "168.63.129.16/32",  # another cloud's metadata service
        "192.0.0.0/24",  # IETF protocol assignments; a third cloud's metadata service
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarks
        "::/96",  # IPv4-compatible
        "64:ff9b::/96",  # NAT64: whatever the network translates it to
        "64:ff9b:1::/48",  # NAT64 of the local network
        "2001::/23",  # Teredo, ORCHID and other protocols
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local, deprecated
    )
)
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)
# Where clouds keep their machines' keys; the link-local ones are in no list above.
_METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254")
)


class DialFailed(Exception):
    """No connection; the text is safe to show and names no address."""


class AddressRefused(DialFailed):
    """The name leads, or may lead, to what may not be reached."""


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """One for all connections: reading the system's certificates takes 24 ms."""
    return ssl.create_default_context()


def tcp(host: str, port: int, *, tls: bool, public_only: bool = False) -> Dial:
    async def dial() -> trio.abc.Stream:
        stream = await (open_checked(host, port) if public_only else _open(host, port))
        return await secure(stream, host) if tls else stream

    return dial


def unix(path: str) -> Dial:
    async def dial() -> trio.abc.Stream:
        try:
            return await trio.open_unix_socket(path)
        except (OSError, RuntimeError) as exc:
            raise DialFailed("it does not listen") from exc

    return dial


async def _open(host: str, port: int) -> trio.SocketStream:
    try:
        return await trio.open_tcp_stream(host, port)
    except OSError as exc:
        raise DialFailed("it cannot be reached") from exc


async def resolve(host: str, port: int) -> Sequence[IpAddress]:
    """All addresses of ``host``; raise :exc:`DialFailed` if nobody knows any."""
    try:
        return _addresses(await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as exc:
        raise DialFailed("its name cannot be resolved") from exc


def resolver(threads: trio.CapacityLimiter) -> Resolve:
    """:func:`resolve` in threads of its own.

    A lookup holds its thread until the name service gives up, even if nobody
    waits any more. Whoever may choose names that are never answered could
    else take all the threads that the gateway has.
    """

    async def resolve(host: str, port: int) -> Sequence[IpAddress]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            return _addresses(
                await trio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=threads)
            )
        except (OSError, UnicodeError) as exc:
            raise DialFailed("its name cannot be resolved") from exc

    return resolve


def _addresses(found: Iterable[tuple[Any, ...]]) -> list[IpAddress]:
    texts = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
    return [ipaddress.ip_address(text) for text in texts]


def is_public(address: IpAddress) -> bool:
    """Whether ``address`` is one that anybody on the internet could reach as well.

    An IPv4 address inside an IPv6 one is judged as itself; other addresses
    that a network may translate (NAT64, 6to4, Teredo) are refused whatever
    they hold.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not any(address in network for network in _NOT_PUBLIC)
    )


def is_public_or_private(address: IpAddress) -> bool:
    """:func:`is_public`, or of this machine or its network, where the operator allows those.

    Metadata services stay out of reach: they hand the machine's own keys to
    whoever can send them a request.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_public_or_private(address.ipv4_mapped)
    is_private = any(address in network for network in _PRIVATE) and address not in _METADATA
    return is_private or is_public(address)


async def open_checked(
    host: str,
    port: int,
    *,
    resolve: Resolve = resolve,
    is_allowed: IsAllowed = is_public,
) -> trio.SocketStream:
    """Connect to ``host`` if every address it has ``is_allowed``.

    Raises :exc:`AddressRefused` if one is not, :exc:`DialFailed` if none answers.
    """
    addresses = await resolve(host, port)
    if not addresses or not all(map(is_allowed, addresses)):
        raise AddressRefused("its address is not a public one")
    for address in addresses[:_MOST_ADDRESSES]:
        try:
            with trio.move_on_after(_ADDRESS_PATIENCE):
                # A number, so nothing is resolved again.
                return await trio.open_tcp_stream(str(address), port)
        except OSError:
            continue
    raise DialFailed("it cannot be reached")


async def secure(
    stream: trio.SocketStream, host: str, context: ssl.SSLContext | None = None
) -> trio.SSLStream[trio.SocketStream]:
    """Speak TLS as a client of ``host``; raise :exc:`DialFailed` where that fails.

    The plain stream is closed then, and if this is cancelled.
    """
    secured = trio.SSLStream(
        stream, context or tls_context(), server_hostname=host, https_compatible=True
    )
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as exc:
        stream.socket.close()
        cause = exc.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DialFailed(f"its certificate is not valid: {cause.verify_message}") from exc
        raise DialFailed("the TLS handshake failed") from exc
    except BaseException:
        stream.socket.close()
        raise
    return secured
