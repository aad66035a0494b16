"""The WebSocket load: frames, the handshake, a device's proof, crowds. A bare echo, no gateway."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hypercorn.trio
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.connect import read_connect
from appliance.protocols.device_identity import verify
from tests.bench import __main__ as command
from tests.bench.baseline import BareApp, settings
from tests.bench.crowd import Crowd, come_and_go
from tests.bench.greeting import Device, FrameReader, Greeting, frame, request
from tests.bench.latency import in_thread
from tests.bench.processes import MeasurementFailed, clean_environment, free_port, running
from tests.bench.websocket import Party

SWITCHED = b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\n\r\n"
HELLO = b'{"type":"res","id":"connect","ok":true,"payload":{"type":"hello-ok"}}'


def said(text: bytes) -> bytes:
    """A server's frame."""
    length = len(text)
    if length < 126:
        return bytes((0x81, length)) + text
    return bytes((0x81, 126)) + length.to_bytes(2) + text


def unmasked(data: bytes) -> bytes:
    """The text of a client's frame, read the slow way."""
    start = {126: 4, 127: 10}.get(data[1] & 127, 2)
    mask, text = data[start : start + 4], data[start + 4 :]
    length = data[1] & 127 if start == 2 else int.from_bytes(data[2:start])
    assert data[0] == 0x81
    assert data[1] & 128
    assert length == len(text)
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(text))


# Frames


@given(st.binary(max_size=300))
def test_a_clients_frame_is_masked_and_says_how_long_it_is(text: bytes) -> None:
    assert unmasked(frame(text)) == text


@pytest.mark.parametrize("length", [125, 126, 65_535, 65_536])
def test_a_frame_has_one_of_three_lengths(length: int) -> None:
    assert unmasked(frame(b"x" * length)) == b"x" * length


def test_a_request_has_its_method_and_params() -> None:
    assert json.loads(unmasked(request("health"))) == {"type": "req", "id": "1", "method": "health"}
    asked = json.loads(unmasked(request("chat.send", id="7", message="Hi")))
    assert (asked["id"], asked["params"]) == ("7", {"message": "Hi"})


@pytest.mark.parametrize("cut", range(len(said(b"one") + said(b"x" * 200) + said(b""))))
def test_messages_may_be_cut_anywhere(cut: int) -> None:
    whole = said(b"one") + said(b"x" * 200) + said(b"")
    reader = FrameReader()

    assert reader.feed(whole[:cut]) + reader.feed(whole[cut:]) == [b"one", b"x" * 200, b""]


def test_a_message_longer_than_two_bytes_can_say_is_read() -> None:
    text = b"y" * 70_000

    assert FrameReader().feed(b"\x81\x7f" + len(text).to_bytes(8) + text) == [text]


def test_a_goodbye_fails_the_measurement() -> None:
    with pytest.raises(MeasurementFailed, match="slow consumer"):
        FrameReader().feed(b"\x88\x0f\x03\xf0slow consumer")


# The handshake


def challenge(nonce: str) -> bytes:
    return said(
        b'{"type":"event","event":"connect.challenge","payload":{"nonce":"%b"}}' % nonce.encode()
    )


def test_a_client_answers_the_challenge_with_its_token() -> None:
    greeting = Greeting("tenant-token")

    assert greeting.begin().startswith(b"GET / HTTP/1.1\r\n")
    assert greeting.feed(SWITCHED[:20]) == b""
    answer = json.loads(unmasked(greeting.feed(SWITCHED[20:] + challenge("n"))))
    assert answer["method"] == "connect"
    assert read_connect(answer["params"], strict_client=True).tokens == ("tenant-token",)
    assert not greeting.done
    greeting.feed(said(HELLO))
    assert greeting.done


def test_without_a_token_a_client_is_in_after_the_upgrade() -> None:
    greeting = Greeting()

    assert greeting.feed(SWITCHED) == b""
    assert greeting.done


def test_a_device_proves_itself_as_the_product_demands() -> None:
    greeting = Greeting("tenant-token", Device())

    answer = json.loads(unmasked(greeting.feed(SWITCHED + challenge("nonce"))))

    asked = read_connect(answer["params"], strict_client=True)
    assert asked.device is not None
    verify(
        asked.device,
        client_id=asked.client.id,
        client_mode=asked.client.mode,
        role=asked.role,
        scopes=asked.scopes,
        token="tenant-token",
        platform=asked.client.platform,
        device_family=asked.client.device_family,
        nonce="nonce",
        now_ms=answer["params"]["device"]["signedAt"],
    )


@pytest.mark.parametrize(
    "heard",
    [
        b"HTTP/1.1 503 Full\r\n\r\n",
        SWITCHED + said(b'{"type":"res","id":"connect","ok":false,"error":{}}'),
    ],
)
def test_a_refused_client_fails_the_measurement(heard: bytes) -> None:
    with pytest.raises(MeasurementFailed):
        Greeting("tenant-token").feed(heard)


# Crowds


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """The port of the bare application, served by Hypercorn as it is installed."""
    port = free_port()
    app: Any = BareApp(feed=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(hypercorn.trio.serve, app, settings(port))
        yield port
        nursery.cancel_scope.cancel()


async def test_a_crowd_asks_and_is_answered() -> None:
    def ask(port: int) -> tuple[int, int]:
        with Crowd() as crowd:
            crowd.enter(port, None, 3)
            crowd.enter(port, None, 2)
            answers, seconds = crowd.ask(request("health"), seconds=0.05)
            assert 0.05 <= seconds < 5
            crowd.listen(0.05)
            return len(crowd), answers

    with trio.fail_after(60):
        async with echo() as port:
            clients, answers = await in_thread(partial(ask, port))

    assert clients == 5
    assert answers >= 5


async def test_clients_come_and_go() -> None:
    with trio.fail_after(60):
        async with echo() as port:
            done, seconds = await in_thread(
                lambda: come_and_go(port, None, [None, None], seconds=0.05)
            )

    assert done >= 2
    assert 0.05 <= seconds < 5


class LeanSocket:
    def __init__(self) -> None:
        self.said: list[bytes] = []

    def bind(self, receive: object) -> None:
        assert receive is not None

    def send(self, text: bytes) -> None:
        self.said.append(text)


@pytest.mark.parametrize("lean", [LeanSocket(), None])
async def test_the_bare_app_says_back_what_it_hears(lean: LeanSocket | None) -> None:
    heard: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect"},
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return heard.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    state = {"openclaw.socket": lean} if lean else {}
    await BareApp(feed=1)({"type": "websocket", "path": "/", "state": state}, receive, send)

    assert sent[0]["type"] == "websocket.accept"
    texts = lean.said if lean else [message["text"].encode() for message in sent[1:]]
    assert texts == [b"hello"]


# Figures


async def test_a_party_keeps_its_rate_and_what_it_cost(tmp_path: Path) -> None:
    async with running(
        ["sleep", "60"], log=tmp_path / "log", core=None, environment=clean_environment(tmp_path)
    ) as server:
        party = Party(server, lambda seconds: (10, seconds))
        for seconds in (1.0, 2.0, 5.0):
            party.round(seconds)
        assert server.pss_bytes() > 0

    assert party.rate == 5.0
    assert party.cpu_us >= 0


def test_the_websocket_figures_can_be_chosen() -> None:
    options = command.parse_options(["--only", "health,handshake,idle,fanout,turn"])

    assert set(options.only) <= set(command.ALONE)
