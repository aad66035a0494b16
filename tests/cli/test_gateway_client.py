import pytest
import trio

from appliance.cli.exits import CommandFailed, Exit
from appliance.cli.gateway_client import ConnectionLost, open_gateway
from tests.cli.fake_gateway import TOKEN, FakeGateway


async def test_answers_find_their_questions(gateway: FakeGateway) -> None:
    gateway.methods["echo"] = lambda peer, params: params
    found: dict[int, object] = {}
    async with open_gateway(gateway.url, TOKEN) as connection:

        async def ask(number: int) -> None:
            found[number] = await connection.call("echo", {"number": number})

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)

    assert found == {number: {"number": number} for number in range(20)}
    assert connection.hello["type"] == "hello-ok"


async def test_events_come_to_those_who_listen(gateway: FakeGateway) -> None:
    gateway.methods["ring"] = lambda peer, params: peer.event_later("bell", {"times": params["n"]})
    async with open_gateway(gateway.url, TOKEN) as connection:
        await connection.call("ring", {"n": 1})
        with connection.listening() as events:
            await connection.call("ring", {"n": 2})
            heard = []
            async for name, payload in events:
                if name == "bell":
                    heard.append(payload)
                    if payload["times"] == 2:
                        break

    assert heard[-1] == {"times": 2}


async def test_a_failure_in_the_block_comes_out_as_it_is(gateway: FakeGateway) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_gateway(gateway.url, TOKEN):
            raise KeyError("mine")


async def test_a_broken_connection_ends_calls_and_events(gateway: FakeGateway) -> None:
    gateway.hang_up_after = "leave"
    async with open_gateway(gateway.url, TOKEN) as connection:
        with connection.listening() as events:
            with pytest.raises(ConnectionLost, match="service restart"):
                await connection.call("leave")
            assert [event async for event in events] == []
        with pytest.raises(ConnectionLost, match="service restart"):
            await connection.call("health")
        with connection.listening() as events:
            assert [event async for event in events] == []


async def test_a_gateway_that_says_nothing_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("appliance.cli.gateway_client._CONNECT", 0.05)
    async with trio.open_nursery() as nursery:

        async def silent(stream: trio.SocketStream) -> None:
            async with stream:
                await trio.sleep_forever()

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, silent, [listener])
        with pytest.raises(CommandFailed, match="no handshake") as failed:
            async with open_gateway(f"http://127.0.0.1:{port}", TOKEN):
                pytest.fail("there is no gateway")
        assert failed.value.exit_code == Exit.UNREACHABLE
        nursery.cancel_scope.cancel()


async def test_tls_is_not_spoken_where_there_is_none(gateway: FakeGateway) -> None:
    with pytest.raises(CommandFailed) as failed:
        async with open_gateway(gateway.url.replace("http", "https"), TOKEN):
            pytest.fail("that is no TLS")
    assert failed.value.exit_code == Exit.UNREACHABLE
