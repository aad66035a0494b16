"""The door of a sandbox: tunnels, and what is refused."""

import ipaddress
import os
import socket
import stat
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from appliance.model.egress import EgressRules
from appliance.sandboxes.base import SandboxFailed
from appliance.sandboxes.egress import EgressProxy
from appliance.sandboxes.egress_settings import EgressSettings, Verdict
from tests.sandboxes.egress import (
    AUTHORITY,
    HOST,
    LOOPBACK,
    Internet,
    Sandbox,
    Website,
    client_hello,
    everything,
    head,
    rule,
    sandbox,
    say_nothing,
)

ASK = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()


@pytest.fixture
def internet() -> Internet:
    return Internet()


async def test_a_tunnel_leads_to_the_host_it_names(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}", trust=internet.authority.pem)
        await stream.send_all(ASK)
        answer = await everything(stream)
        await stream.aclose()
        await _noted(inside)

    assert answer.endswith(b"\r\n\r\nok")
    assert website.heads == [ASK]
    (record,) = inside.records
    assert (record.host, record.port, record.verdict) == (HOST, port, Verdict.PASSED)
    assert record.sent_bytes > len(ASK)
    assert record.received_bytes > len(answer)


@pytest.mark.parametrize(
    "target",
    [
        "pkgs.example:80",
        "cdn.example:443",
        "evilcdn.example:443",
        "pkgs.example.evil.com:443",
        "127.0.0.1:443",
        "[::1]:443",
        "2130706433:443",
        "0x7f000001:443",
        "127.1:443",
        "0177.0.0.1:443",
        "pkgs.example@127.0.0.1:443",
        "pkgs.example%00.x:443",
        "pkgs.example:443#",
        "pkgs.example",
        ":443",
        "localhost:443",
        "*:443",
        "pkgs.example:99999999",
        "pkgs..example:443",
        "-pkgs.example:443",
        "files.cdn.example.0x1:443",
    ],
)
async def test_what_is_not_allowed_is_refused(
    tmp_path: Path, internet: Internet, target: str
) -> None:
    internet.addresses = {"pkgs.example": [[LOOPBACK]]}
    rules = [rule("pkgs.example"), rule("*.cdn.example")]
    async with sandbox(tmp_path, internet, *rules) as inside:
        answer = await inside.ask(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
        await _noted(inside)

    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert [record.verdict for record in inside.records] == [Verdict.REFUSED]
    assert internet.asked == []


async def test_a_refusal_says_what_would_have_to_be_allowed(
    tmp_path: Path, internet: Internet
) -> None:
    async with sandbox(tmp_path, internet) as inside:
        answer = await inside.ask(b"CONNECT pkgs.example:443 HTTP/1.1\r\n\r\n")

    assert answer.endswith(b"pkgs.example at port 443 is not among the hosts in egress.allow\n")


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["169.254.169.254"], []]
)
async def test_a_name_with_any_address_that_is_not_public_is_refused(
    tmp_path: Path, internet: Internet, addresses: list[str]
) -> None:
    internet.addresses[HOST] = [[ipaddress.ip_address(each) for each in addresses]]
    async with sandbox(tmp_path, internet, rule()) as inside:
        answer = await inside.ask(f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 403 ")
    for each in addresses:
        assert each.encode() not in answer


async def test_a_name_that_changes_its_mind_is_looked_up_once(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    internet.addresses[HOST] = [[LOOPBACK], [ipaddress.ip_address("10.0.0.1")]]
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        async with await inside.tunnel(f"{HOST}:{port}"):
            pass
        answer = await inside.ask(f"CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n".encode())

    assert internet.asked == [HOST, HOST]  # once for each connection
    assert answer.startswith(b"HTTP/1.1 403 ")


async def test_a_server_that_cannot_be_reached_is_said_to_be_so(
    tmp_path: Path, internet: Internet
) -> None:
    async with sandbox(tmp_path, internet, rule()) as inside:
        answer = await inside.ask(f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n".encode())
        await _noted(inside)

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert inside.records[0].verdict is Verdict.FAILED


async def test_tls_with_another_host_than_the_tunnels_does_not_get_out(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    reached: list[bytes] = []

    async def listen(stream: trio.abc.Stream) -> None:
        reached.append(bytes(await stream.receive_some(100)))

    port = await internet.serve(nursery, listen, tls=False)
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        with pytest.raises(trio.BrokenResourceError):
            await inside.secure(f"{HOST}:{port}", name="front.example.org")
        await _noted(inside)

    assert reached in ([], [b""])
    assert inside.records[0].verdict is Verdict.REFUSED


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x00\x00"]
)
async def test_a_tunnel_is_for_tls_only(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, sent: bytes
) -> None:
    reached: list[bytes] = []

    async def listen(stream: trio.abc.Stream) -> None:
        reached.append(bytes(await stream.receive_some(100)))

    port = await internet.serve(nursery, listen, tls=False)
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        stream = await inside.tunnel(f"{HOST}:{port}")
        await stream.send_all(sent)
        with trio.fail_after(5):
            assert await everything(stream) == b""
        await stream.aclose()
        await _noted(inside)

    assert reached in ([], [b""])
    assert "TLS" in inside.records[0].reason


async def test_a_tunnel_ends_where_the_bytes_of_the_sandbox_do(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    async def flood(stream: trio.abc.Stream) -> None:
        while True:
            await stream.send_all(bytes(65536))

    port = await internet.serve(nursery, flood)
    async with sandbox(tmp_path, internet, rule(HOST, port), max_bytes=1_000_000) as inside:
        stream = await inside.secure(f"{HOST}:{port}", trust=internet.authority.pem)
        with trio.fail_after(10):
            received = len(await everything(stream))
        await trio.aclose_forcefully(stream)
        await _noted(inside)
        again = await inside.ask(f"CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n".encode())

    assert 800_000 < received < 1_000_000
    assert inside.records[0].verdict is Verdict.LIMITED
    assert b"are used up" in again


async def test_a_rules_bytes_are_its_own(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    port = await internet.serve(nursery, Website().serve, HOST, "other.example.org")
    rules = [rule(HOST, port, max_bytes=10), rule("other.example.org", port)]
    async with sandbox(tmp_path, internet, *rules) as inside:
        with pytest.raises(trio.BrokenResourceError):
            await inside.secure(f"{HOST}:{port}", trust=internet.authority.pem)
        async with await inside.tunnel(f"other.example.org:{port}"):
            pass

    assert inside.records[0].reason.endswith("are used up")


async def test_a_connection_beyond_the_limit_is_turned_away(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    async with sandbox(tmp_path, internet, max_connections=32) as inside:
        held = [await inside.connect() for _ in range(32)]
        for stream in held:
            await stream.send_all(b"C")
        await trio.testing.wait_all_tasks_blocked()
        answer = await inside.ask(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        await held.pop().aclose()
        await _noted(inside, 2)
        answer = await inside.ask(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")
        for stream in held:
            await stream.aclose()


async def test_a_head_that_drips_is_not_waited_for(
    tmp_path: Path, internet: Internet, autojump_clock: MockClock
) -> None:
    async with sandbox(tmp_path, internet) as inside:
        stream = await inside.connect()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - it breaks when it is too late
            while True:
                await stream.send_all(b"G")
                await trio.sleep(1)
        assert trio.current_time() < 15
        await stream.aclose()


async def test_a_server_that_says_nothing_is_left_in_time(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    port = await internet.serve(nursery, say_nothing, tls=False)
    hello = client_hello()
    async with sandbox(tmp_path, internet, rule(HOST, port), idle_timeout=30.0) as inside:
        stream = await inside.tunnel(f"{HOST}:{port}")
        await stream.send_all(hello)
        with trio.fail_after(40):
            assert await everything(stream) == b""
        await stream.aclose()
        await _noted(inside)

    assert inside.records[0].verdict is Verdict.LIMITED
    assert inside.records[0].seconds == pytest.approx(30, abs=2)


async def test_bytes_in_one_direction_keep_both_open(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def drip(stream: trio.abc.Stream) -> None:
        for _ in range(10):
            await trio.sleep(20)
            await stream.send_all(b".")

    port = await internet.serve(nursery, drip, tls=False)
    hello = client_hello()
    async with sandbox(tmp_path, internet, rule(HOST, port), idle_timeout=30.0) as inside:
        stream = await inside.tunnel(f"{HOST}:{port}")
        await stream.send_all(hello)
        assert await everything(stream) == b"." * 10
        await stream.aclose()


async def test_a_half_closed_tunnel_still_brings_the_answer(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    async def answer_at_the_end(stream: trio.abc.Stream) -> None:
        received = await everything(stream)
        await stream.send_all(b"%d" % len(received))

    port = await internet.serve(nursery, answer_at_the_end, tls=False)
    hello = client_hello()
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        stream = await inside.tunnel(f"{HOST}:{port}")
        await stream.send_all(hello + b"more")
        await stream.send_eof()
        with trio.fail_after(5):
            assert await everything(stream) == b"%d" % (len(hello) + 4)
        await stream.aclose()


async def test_a_client_that_leaves_ends_its_download(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    async def flood(stream: trio.abc.Stream) -> None:
        while True:
            await stream.send_all(bytes(65536))

    port = await internet.serve(nursery, flood)
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}", trust=internet.authority.pem)
        await stream.receive_some(1000)
        await trio.aclose_forcefully(stream)
        await _noted(inside)

    assert inside.records[0].verdict is Verdict.PASSED


async def test_leaving_the_door_ends_its_connections_and_removes_the_socket(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    port = await internet.serve(nursery, say_nothing, tls=False)
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        assert stat.S_ISSOCK(os.stat(inside.door.path).st_mode)  # noqa: PTH116 - of a test
        stream = await inside.tunnel(f"{HOST}:{port}")

    assert list((tmp_path / "doors").iterdir()) == []
    with trio.fail_after(5):
        assert await everything(stream) == b""
    await stream.aclose()
    assert inside.records[0].reason == "the sandbox ended"


async def test_what_fails_inside_the_door_comes_out_as_it_is(
    tmp_path: Path, internet: Internet
) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with sandbox(tmp_path, internet):
            raise KeyError("mine")


async def test_a_long_path_is_no_obstacle(internet: Internet, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    async with sandbox(deep, internet) as inside:
        assert b"403" in await inside.ask(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")


async def test_any_user_inside_may_use_the_door_and_nobody_outside(
    tmp_path: Path, internet: Internet
) -> None:
    async with sandbox(tmp_path, internet) as inside:
        path = Path(inside.door.path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666  # noqa: ASYNC240 - of a test
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_directory_open_to_others_is_refused(tmp_path: Path, internet: Internet) -> None:
    (tmp_path / "doors").mkdir()
    (tmp_path / "doors").chmod(0o755)

    with pytest.raises(SandboxFailed, match="chmod 700"):
        async with sandbox(tmp_path, internet):
            pass


async def test_descriptors_that_are_passed_along_are_dropped(
    tmp_path: Path, internet: Internet
) -> None:
    async with sandbox(tmp_path, internet) as inside:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of a test
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(f"/proc/self/fd/{inside.door.socket}")
            socket.send_fds(plain, [b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"], [0, 1, 2])
            await _noted(inside)
        assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208 - of a test


def test_sockets_of_a_gateway_that_was_killed_are_removed(tmp_path: Path) -> None:
    (tmp_path / "left.sock").touch()
    proxy = EgressProxy(directory=tmp_path, authority=AUTHORITY)

    proxy.sweep()

    assert os.listdir(tmp_path) == []  # noqa: PTH208 - of a test
    EgressProxy(directory=tmp_path / "never", authority=AUTHORITY).sweep()


async def test_notes_are_summed_up_when_they_become_too_many(
    tmp_path: Path, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.sandboxes.egress._MOST_NOTES", 3)
    async with sandbox(tmp_path, internet) as inside:
        for _ in range(5):
            await inside.ask(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")

    assert [record.reason for record in inside.records[3:]] == ["2 more connections"]


async def test_private_addresses_are_reached_where_the_operator_allows_them(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    port = await internet.serve(nursery, Website().serve)
    proxy = EgressProxy(
        directory=tmp_path / "doors",
        authority=AUTHORITY,
        resolve=internet.resolve,
        context=internet.context,
    )
    for allow_private, expected in ((False, b"403"), (True, b"200")):
        settings = EgressSettings(
            rules=EgressRules((rule(HOST, port),)), allow_private=allow_private
        )
        async with proxy.open(settings, lambda _: None) as door:
            stream = await Sandbox(door, []).connect()
            await stream.send_all(f"CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n".encode())
            assert expected in await head(stream)
            await stream.aclose()


async def _noted(inside: Sandbox, count: int = 1) -> None:
    with trio.fail_after(5):
        while len(inside.records) < count:
            await trio.testing.wait_all_tasks_blocked(0.01)
