"""Where a connection may lead."""

import ipaddress
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from appliance import dialling
from appliance.dialling import AddressRefused, DialFailed, is_public, is_public_or_private


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::101:101",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.9",
        "192.0.0.192",
        "192.88.99.1",
        "203.0.113.9",
        "2001:0:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2002:a9fe:a9fe::1",
        "64:ff9b:1::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:169.254.169.254",
        "::ffff:168.63.129.16",
        "fec0::1",
        "3fff::1",
    ],
)
def test_an_address_only_we_can_reach_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "127.0.0.1",
        "::1",
        "192.168.1.1",
        "fd12::1",
        "100.64.0.1",
        "1.1.1.1",
        "::ffff:10.1.2.3",
    ],
)
def test_where_private_addresses_are_allowed_those_of_the_network_are(address: str) -> None:
    assert is_public_or_private(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "::",
        "224.0.0.1",
        "ff02::1",
        "240.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::ffff:169.254.169.254",
    ],
)
def test_a_metadata_service_is_never_allowed(address: str) -> None:
    assert not is_public_or_private(ipaddress.ip_address(address))


class Names(trio.abc.HostnameResolver):
    """A name service that says what a test wants, each time something else."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def] # noqa: A002, ANN001, ANN201 - trio's signature
        self.asked += 1
        answer = self.answers.pop(0)
        return [
            (trio.socket.AF_INET6 if ":" in ip else trio.socket.AF_INET, type, 6, "", (ip, port))
            for ip in answer
        ]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201 - trio's signature
        raise NotImplementedError


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["169.254.169.254"], ["1.1.1.1", "10.0.0.1"], ["::1"], []]
)
async def test_a_tenants_address_is_refused_if_any_of_it_is_private(addresses: list[str]) -> None:
    trio.socket.set_custom_hostname_resolver(Names(addresses))

    with pytest.raises(AddressRefused, match="not a public one"):
        await dialling.tcp("evil.example", 80, tls=False, public_only=True)()


async def test_what_was_checked_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(["93.184.216.34"], ["127.0.0.1"])
    trio.socket.set_custom_hostname_resolver(names)
    connected: list[tuple[str, int]] = []

    async def connect(host: str, port: int) -> trio.SocketStream:
        connected.append((host, port))
        raise OSError("no network in tests")

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    with pytest.raises(DialFailed, match="cannot be reached"):
        await dialling.tcp("turncoat.example", 443, tls=True, public_only=True)()

    assert connected == [("93.184.216.34", 443)]
    assert names.asked == 1


@pytest.mark.parametrize("public_only", [True, False])
async def test_a_name_nobody_knows_is_a_failure_without_details(*, public_only: bool) -> None:
    class Nobody(Names):
        async def getaddrinfo(self, *args, **kwargs):  # type: ignore[no-untyped-def] # noqa: ANN002, ANN003, ANN202 - trio's signature
            raise OSError("Name or service not known")

    trio.socket.set_custom_hostname_resolver(Nobody())
    with pytest.raises(DialFailed) as caught:
        await dialling.tcp("nowhere.example", 80, tls=False, public_only=public_only)()

    assert "nowhere" not in str(caught.value)


async def test_lookups_that_hang_take_no_thread_of_anybody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answered.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolve = dialling.resolver(trio.CapacityLimiter(2))
    others = trio.to_thread.current_default_thread_limiter()
    try:
        for _ in range(2):
            with trio.move_on_after(0.05) as scope:
                await resolve("hangs.example", 443)
            assert scope.cancelled_caught
        assert others.borrowed_tokens == 0
        with trio.move_on_after(0.05) as scope:  # both are taken
            await resolve("next.example", 443)
        assert scope.cancelled_caught
    finally:
        answered.set()
    assert await resolve("answers.example", 443) == [ipaddress.ip_address("1.1.1.1")]


async def test_a_name_nobody_knows_is_the_same_failure_in_threads_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DialFailed, match="cannot be resolved"):
        await dialling.resolver(trio.CapacityLimiter(1))("nowhere.example", 443)


async def test_a_port_where_nobody_listens_is_a_failure() -> None:
    with trio.socket.socket() as reserved:
        await reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]

        with pytest.raises(DialFailed, match="cannot be reached"):
            await dialling.tcp("127.0.0.1", port, tls=False)()


async def test_a_unix_socket_nobody_listens_on_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(DialFailed, match="does not listen"):
        await dialling.unix(str(tmp_path / "none.sock"))()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return folder


async def _talk_tls(certificate: Path, nursery: trio.Nursery) -> bytes:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):  # where the client trusts nobody
            await stream.send_all(b"hello")

    listeners = await nursery.start(trio.serve_ssl_over_tcp, serve, 0, context)
    port = listeners[0].transport_listener.socket.getsockname()[1]
    async with await dialling.tcp("localhost", port, tls=True)() as stream:
        return bytes(await stream.receive_some(100))


async def test_tls_is_spoken_to_a_server_whose_certificate_is_trusted(
    certificate: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    monkeypatch.setattr(dialling, "tls_context", lambda: trust)

    assert await _talk_tls(certificate, nursery) == b"hello"


async def test_a_certificate_nobody_vouches_for_is_refused(
    certificate: Path, nursery: trio.Nursery
) -> None:
    with pytest.raises(DialFailed, match="certificate is not valid"):
        await _talk_tls(certificate, nursery)
