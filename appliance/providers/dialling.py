"""Opens connections: TCP, TLS and Unix sockets; for tenants, to public addresses only.

A tenant's own base URL must not reach what only the gateway can: the machine
itself, the network it stands in, a cloud's metadata service. A name is
resolved once, every address it has is checked, and a checked address is what
is connected to, so a name that changes its mind in between gains nothing.
"""

import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache

import trio

Dial = Callable[[], Awaitable[trio.abc.Stream]]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_MOST_ADDRESSES = 4  # tried one after the other


class DialFailed(Exception):
    """No connection; the text is safe to show and names no address."""


class AddressRefused(DialFailed):
    """The name leads, or may lead, to what is not public."""


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """One for all connections: reading the system's certificates takes 24 ms."""
    return ssl.create_default_context()


def tcp(host: str, port: int, *, tls: bool, public_only: bool = False) -> Dial:
    async def dial() -> trio.abc.Stream:
        stream = await (_open_public(host, port) if public_only else _open(host, port))
        return await _secure(stream, host) if tls else stream

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


async def _open_public(host: str, port: int) -> trio.SocketStream:
    addresses = await _resolve(host, port)
    if not addresses or not all(map(is_public, addresses)):
        raise AddressRefused("its address is not a public one")
    for address in addresses[:_MOST_ADDRESSES]:
        try:
            # A number, so nothing is resolved again.
            return await trio.open_tcp_stream(str(address), port)
        except OSError:
            continue
    raise DialFailed("it cannot be reached")


async def _resolve(host: str, port: int) -> list[IpAddress]:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise DialFailed("its name cannot be resolved") from exc
    texts = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found)
    return [ipaddress.ip_address(text) for text in texts]


def is_public(address: IpAddress) -> bool:
    """Whether ``address`` is one that anybody on the internet could reach as well.

    An IPv6 address with an IPv4 one inside is judged by that one too: a
    gateway of the network may translate it. (NAT64's 64:ff9b::/96 is reserved,
    so it is refused whatever it holds.)
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if not all(is_public(each) for each in inner if each is not None):
            return False
        if address.ipv4_mapped is not None:
            return True
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
    )


async def _secure(stream: trio.SocketStream, host: str) -> trio.abc.Stream:
    secured = trio.SSLStream(stream, tls_context(), server_hostname=host, https_compatible=True)
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
