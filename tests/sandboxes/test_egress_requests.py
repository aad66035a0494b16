"""Requests that are seen on their way out: methods, credentials, and what is not passed on."""

import ssl
from pathlib import Path

import pytest
import trio

from appliance.model.egress import Injection
from appliance.sandboxes.egress_settings import Verdict
from tests.sandboxes.egress import (
    CANARY,
    HOST,
    Internet,
    Website,
    body,
    everything,
    head,
    injecting,
    rule,
    sandbox,
    say_nothing,
)

OTHER = "other.example.org"
GET = f"GET /v1/models?x=1 HTTP/1.1\r\nHost: {HOST}:%d\r\n".encode()
CLOSE = b"Connection: close\r\n"


@pytest.fixture
def internet() -> Internet:
    return Internet()


def lines(asked: bytes) -> list[str]:
    return sorted(asked.decode().lower().split("\r\n"))


async def test_a_credential_is_added_inside_a_tunnel_and_not_seen_there(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        certificate = stream.getpeercert(binary_form=True)
        await stream.send_all(GET % port + CLOSE + b"\r\n")
        answer = await everything(stream)
        await stream.aclose()

    assert website.heads[0].startswith(b"GET /v1/models?x=1 HTTP/1.1\r\n")
    assert f"authorization: bearer {CANARY}" in lines(website.heads[0])
    assert CANARY.encode() not in answer + certificate
    assert CANARY not in repr(inside)
    assert stream.selected_alpn_protocol() in (None, "http/1.1")


@pytest.mark.parametrize("name", ["Authorization", "AUTHORIZATION", "authorization"])
async def test_a_header_of_that_name_from_inside_is_replaced(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, name: str
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    own = f"{name}: Bearer mine\r\n{name}: Basic two\r\n".encode()
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        await stream.send_all(GET % port + own + CLOSE + b"\r\n")
        await everything(stream)
        await stream.aclose()

    sent = [line for line in lines(website.heads[0]) if line.startswith("authorization")]
    assert sent == [f"authorization: bearer {CANARY}"]


async def test_another_header_may_carry_the_credential(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    keyed = rule(HOST, port, injection=Injection("openai", "x-api-key", ""))
    async with sandbox(tmp_path, internet, keyed) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        await stream.send_all(GET % port + b"X_API_Key: mine\r\n" + CLOSE + b"\r\n")
        await everything(stream)
        await stream.aclose()

    assert f"x-api-key: {CANARY}" in lines(website.heads[0])
    assert "mine" not in website.heads[0].decode()


async def test_a_request_in_clear_text_is_sent_on_over_tls_with_the_credential(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        answer = await inside.get(f"{HOST}:{port}", "/v1")

    assert answer.endswith(b"\r\n\r\nok")
    assert website.heads[0].startswith(b"GET /v1 HTTP/1.1\r\n")
    assert f"authorization: bearer {CANARY}" in lines(website.heads[0])


async def test_port_80_of_such_a_host_means_443(
    tmp_path: Path, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    internet_resolve = internet.resolve

    async def resolve(host: str, port: int):  # type: ignore[no-untyped-def] # noqa: ANN202 - as resolve's
        asked.append(port)
        return await internet_resolve(host, port)

    monkeypatch.setattr(internet, "resolve", resolve)
    async with sandbox(tmp_path, internet, injecting(HOST, 80, 443)) as inside:
        await inside.get(HOST)
        await inside.get(f"{HOST}:80")

    assert asked == [443, 443]


async def test_a_credential_is_never_sent_in_clear_text(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    await internet.serve(nursery, website.serve, tls=False)
    async with sandbox(tmp_path, internet, injecting(HOST, 80)) as inside:
        answer = await inside.get(HOST)

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"clear text" in answer
    assert website.heads == []


async def test_a_host_without_a_credential_gets_none(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website, other = Website(), Website()
    port = await internet.serve(nursery, website.serve)
    other_port = await internet.serve(nursery, other.serve, OTHER, tls=False)
    rules = [injecting(HOST, port), rule(OTHER, other_port)]
    async with sandbox(tmp_path, internet, *rules) as inside:
        await inside.get(f"{OTHER}:{other_port}")

    assert CANARY not in other.heads[0].decode()


async def test_a_redirect_is_an_answer_like_any_other(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    elsewhere = Website()
    other_port = await internet.serve(nursery, elsewhere.serve, OTHER)
    location = f"https://{OTHER}:{other_port}/take"
    website = Website(
        f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    port = await internet.serve(nursery, website.serve)
    rules = [injecting(HOST, port), rule(OTHER, other_port)]
    async with sandbox(tmp_path, internet, *rules) as inside:
        answer = await inside.get(f"{HOST}:{port}")

    assert location.encode() in answer
    assert elsewhere.heads == []


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{'you sent ' + CANARY:<40}",
        f"HTTP/1.1 200 OK\r\nX-Echo: Bearer {CANARY}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: https://evil.example/?{CANARY}\r\n\r\n",
        f"HTTP/1.1 200 {CANARY}\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + "".join(f"1\r\n{each}\r\n" for each in CANARY)
        + "0\r\n\r\n",
        f"HTTP/1.1 103 Early Hints\r\nLink: {CANARY}\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_an_answer_that_repeats_the_credential_is_held_back(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, answer: str
) -> None:
    website = Website(answer.encode())
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        received = await inside.get(f"{HOST}:{port}")

    for size in range(4, len(CANARY)):
        assert CANARY[:size].encode() not in received.replace(b"\r\n1\r\n", b"")
    assert "accept-encoding: identity" in lines(website.heads[0])
    assert inside.records[0].verdict is Verdict.REFUSED


@pytest.mark.parametrize("method", ["POST", "DELETE", "get", "TRACE", "CONNECT"])
async def test_a_method_that_is_not_allowed_does_not_get_out(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, method: str
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, rule(HOST, port, methods=["GET", "HEAD"])) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        request = f"{method} / HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Length: 3\r\n\r\nabc"
        await stream.send_all(request.encode())
        answer = await everything(stream)
        await stream.aclose()

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert website.heads == []


async def test_each_method_goes_by_the_first_rule_that_allows_it(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    rules = [
        rule(HOST, port, methods=["GET"]),
        rule(HOST, port, methods=["POST"], injection=Injection("openai")),
    ]
    async with sandbox(tmp_path, internet, *rules) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        await stream.send_all(GET % port + b"\r\n")
        await head(stream)
        await body(stream, 2)
        post = f"POST / HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Length: 3\r\n\r\nabc"
        await stream.send_all(post.encode())
        await head(stream)
        await body(stream, 2)
        await stream.aclose()

    assert [CANARY in each.decode() for each in website.heads] == [False, True]


async def test_requests_follow_each_other_on_one_connection(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        post = f"POST /a HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Length: 3\r\n\r\nabc".encode()
        await stream.send_all(post + (GET % port + b"\r\n") + (GET % port + CLOSE + b"\r\n"))
        answer = await everything(stream)
        await stream.aclose()

    assert answer.count(b"2\r\nok\r\n0\r\n\r\n") == 3
    assert len(website.heads) == 3
    assert len(internet.asked) == 1


async def test_a_server_that_hung_up_in_between_is_called_again(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()

    async def once(stream: trio.abc.Stream) -> None:
        website.heads.append(await head(stream))
        await stream.send_all(website.answer)

    port = await internet.serve(nursery, once)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        for _ in range(3):
            await stream.send_all(GET % port + b"\r\n")
            assert (await head(stream)).startswith(b"HTTP/1.1 200 OK\r\n")
            await body(stream, 2)
            await trio.sleep(0.05)  # its goodbye is on the way
        await stream.aclose()

    assert len(website.heads) == 3


async def test_a_large_body_passes_in_both_directions_at_once(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    size = 3_000_000

    async def echo(stream: trio.abc.Stream) -> None:
        await head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            await stream.send_all(await body(stream, 100_000))

    port = await internet.serve(nursery, echo)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        sent = bytes(range(250)) * (size // 250)

        async def send() -> None:
            start = f"PUT / HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Length: {size}\r\n\r\n"
            await stream.send_all(start.encode())
            await stream.send_all(sent)

        with trio.fail_after(60):
            nursery.start_soon(send)
            await head(stream)
            assert await body(stream, size) == sent
        await stream.aclose()


async def test_a_server_that_answers_before_the_body_is_heard(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    async def too_large(stream: trio.abc.Stream) -> None:
        await head(stream)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    port = await internet.serve(nursery, too_large)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        answer = await inside.ask(
            f"PUT http://{HOST}:{port}/ HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
            "Content-Length: 900000\r\n\r\nabc".encode()
        )

    assert answer.startswith(b"HTTP/1.1 413 Too Large\r\n")


async def test_websockets_are_piped_once_the_server_agrees(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    heads: list[bytes] = []

    async def upgrade(stream: trio.abc.Stream) -> None:
        heads.append(await head(stream))
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello"
        )
        await stream.send_all(await body(stream, 7))

    port = await internet.serve(nursery, upgrade)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        ask = (
            b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
        )
        await stream.send_all(GET % port + ask)
        assert b"Sec-WebSocket-Accept: x\r\n" in await head(stream)
        assert await body(stream, 5) == b"hello"
        await stream.send_all(b"\x81\x06raw..")
        assert await body(stream, 7) == b"\x81\x06raw.."
        await stream.aclose()

    assert "connection: upgrade" in lines(heads[0])
    assert f"authorization: bearer {CANARY}" in lines(heads[0])


async def test_no_other_protocol_is_switched_to(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        ask = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
        await stream.send_all(GET % port + ask)
        assert (await head(stream)).startswith(b"HTTP/1.1 200 OK\r\n")
        await stream.aclose()

    assert "h2c" not in website.heads[0].decode()


async def test_a_server_that_switches_unasked_is_not_followed(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        answer = await inside.get(f"{HOST}:{port}")

    assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"421"),
        (b"GET https://evil.example/ HTTP/1.1\r\nHost: api.example.org\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\nHost: api.example.org\n\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n", b"400"),
    ],
)
async def test_a_request_that_can_be_read_in_two_ways_does_not_get_out(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, request_: bytes, status: bytes
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        stream = await inside.secure(f"{HOST}:{port}")
        await stream.send_all(request_)
        answer = await everything(stream)
        await stream.aclose()

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert website.heads == []


async def test_what_connection_names_cannot_hide_the_length(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        await inside.ask(
            f"POST http://{HOST}:{port}/ HTTP/1.1\r\nConnection: content-length, x-mine\r\n"
            f"Host: {HOST}:{port}\r\nX-Mine: 1\r\nContent-Length: 3\r\n\r\nabc".encode()
        )

    assert "content-length: 3" in lines(website.heads[0])
    assert "x-mine" not in website.heads[0].decode().lower()


async def test_a_client_that_does_not_trust_us_is_told_nothing_and_sends_nothing(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await inside.secure(f"{HOST}:{port}", trust=internet.authority.pem)

    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert website.heads == []


async def test_a_server_with_a_certificate_nobody_vouches_for_gets_no_credential(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    impostor = Internet()
    port = await impostor.serve(nursery, website.serve)
    internet.addresses = impostor.addresses
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        answer = await inside.get(f"{HOST}:{port}")

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"certificate is not valid" in answer
    assert website.heads == []


@pytest.mark.parametrize("secret", [None, "two\r\nlines: 1", "", "schlüssel"])
async def test_a_credential_that_is_not_there_or_cannot_travel_is_said_to_be_so(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, secret: str | None
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    stored = {"openai": secret} if secret is not None else {}
    keyed = rule(HOST, port, injection=Injection("openai", prefix=""))
    async with sandbox(tmp_path, internet, keyed, credentials=stored.get) as inside:
        answer = await inside.get(f"{HOST}:{port}")

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"openai" in answer
    assert website.heads == []


async def test_an_answer_is_cut_where_the_bytes_of_the_sandbox_end(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + bytes(4_000_000))
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port), max_bytes=500_000) as inside:
        answer = await inside.get(f"{HOST}:{port}")

    assert 300_000 < len(answer) < 500_000
    assert inside.records[0].verdict is Verdict.LIMITED


async def test_a_server_that_never_answers_is_left_in_time(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    port = await internet.serve(nursery, say_nothing)
    keyed = injecting(HOST, port)
    async with sandbox(tmp_path, internet, keyed, idle_timeout=0.3) as inside:
        with trio.fail_after(60):
            answer = await inside.get(f"{HOST}:{port}")

    assert answer.startswith(b"HTTP/1.1 504 ")
    assert inside.records[0].verdict is Verdict.LIMITED


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
    ],
)
async def test_a_server_that_speaks_nonsense_is_not_listened_to(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, answer: bytes
) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await head(stream)
        await stream.send_all(answer)

    port = await internet.serve(nursery, serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        received = await inside.get(f"{HOST}:{port}")

    assert received.startswith(b"HTTP/1.1 502 ")


async def test_plain_http_goes_to_a_host_that_is_allowed_at_its_port(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve, tls=False)
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        answer = await inside.ask(
            f"GET http://{HOST}:{port}/a?b HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
            "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n"
            "Accept-Encoding: gzip\r\n\r\n".encode()
        )

    assert answer.endswith(b"ok")
    assert b"Connection: close" in answer
    assert lines(website.heads[0]) == [
        "", "", "accept-encoding: gzip", "connection: close", "get /a?b http/1.1",
        f"host: {HOST}:{port}",
    ]  # fmt: skip
