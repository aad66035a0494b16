"""httpx over our connections."""

import httpx
import pytest
import trio
from trio.testing import MockClock

from appliance.dialling import Dial
from appliance.providers.httpx_transport import PoolTransport
from tests.providers.conftest import Bench, Wiring

BODY = {"model": "mock", "messages": [{"role": "user", "content": "hello"}]}


def client(bench: Bench, *, limit: int = 64) -> httpx.AsyncClient:
    def dial(host: str, port: int) -> Dial:
        assert (host, port) == ("stub.example", 80)
        return bench.dial

    transport = PoolTransport(dial=dial, limit=limit)
    return httpx.AsyncClient(
        transport=transport, base_url="http://stub.example/v1", timeout=5, trust_env=False
    )


async def test_requests_go_over_one_connection(bench: Bench) -> None:
    async with client(bench) as http:
        for _ in range(3):
            answer = await http.post("/chat/completions", json=BODY)
            assert answer.json()["choices"]
        models = await http.get("/models", params={"limit": "5"})

    assert models.json()["data"][0]["id"] == "mock"
    assert bench.stub.connections == 1
    assert bench.stub.requests[-1].path == "/v1/models?limit=5"


async def test_a_stream_comes_in_pieces_and_may_be_left(bench: Bench) -> None:
    async with client(bench, limit=1) as http:
        body = {**BODY, "stream": True}
        async with http.stream("POST", "/chat/completions", json=body) as answer:
            lines = [line async for line in answer.aiter_lines()]
        assert lines[-2] == "data: [DONE]"

        hanging = {**body, "model": "fault-hang"}
        async with http.stream("POST", "/chat/completions", json=hanging) as answer:
            assert answer.status_code == 200
        assert (await http.get("/models")).status_code == 200

    assert bench.stub.connections == 2


async def test_an_answer_to_head_has_no_body(bench: Bench, nursery: trio.Nursery) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(10_000)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")

    bench.dial = Wiring(nursery, serve).dial
    async with client(bench) as http:
        assert (await http.head("/")).headers["content-length"] == "500"


async def test_redirects_are_not_followed(bench: Bench) -> None:
    async with client(bench) as http:
        answer = await http.post("/chat/completions", json={**BODY, "model": "fault-redirect"})

    assert answer.status_code == 307
    assert len(bench.stub.requests) == 1


@pytest.mark.parametrize(
    ("model", "expected"),
    [("fault-hang", httpx.ReadTimeout), ("fault-cut", httpx.RemoteProtocolError)],
)
async def test_trouble_has_httpxs_names(
    bench: Bench, model: str, expected: type[Exception], autojump_clock: MockClock
) -> None:
    async with client(bench, limit=1) as http:
        for stream in (True, False):
            with pytest.raises(expected):
                await http.post(
                    "/chat/completions", json={**BODY, "model": model, "stream": stream}
                )
        assert (await http.get("/models")).status_code == 200


async def test_a_server_that_cannot_be_reached_is_a_connect_error() -> None:
    transport = PoolTransport()
    async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
        with trio.socket.socket() as reserved:
            await reserved.bind(("127.0.0.1", 0))
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://127.0.0.1:{reserved.getsockname()[1]}/")


async def test_a_private_address_is_refused_where_only_public_ones_may_be() -> None:
    transport = PoolTransport(public_only=True)
    async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
        with pytest.raises(httpx.ConnectError, match="not a public one"):
            await http.get("http://127.0.0.1:1/")


async def test_no_connection_free_is_a_pool_timeout(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with client(bench, limit=1) as http:
        body = {**BODY, "model": "fault-hang", "stream": True}
        async with http.stream("POST", "/chat/completions", json=body):
            with pytest.raises(httpx.PoolTimeout):
                await http.get("/models")


async def test_only_http_is_spoken() -> None:
    async with httpx.AsyncClient(transport=PoolTransport(), trust_env=False) as http:
        with pytest.raises(httpx.UnsupportedProtocol):
            await http.get("ftp://example.org/")


async def test_a_line_break_never_becomes_a_header(bench: Bench) -> None:
    async with client(bench) as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.get("/models", headers={"X-A": "b\r\nX-Evil: 1"})

    assert not bench.stub.requests
