"""A connection whose reader is slow, and one that nobody sees out."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from appliance.config.loading import parse_config
from appliance.protocols.responses.request import ResponsesRequest
from appliance.protocols.responses.writer import ResponseWriter
from appliance.services.responses.runs import Asked, ResponseRun
from appliance.transports.openai_api.responses_socket import Goodbye, _Named, _Session
from tests.fakes.tenants import CALLER


@dataclass
class FakeSocket:
    """Takes what it is sent and lets go of it at ``rate`` bytes a second."""

    rate: float
    sent: list[bytes] = field(default_factory=list)
    begun: float = field(default_factory=trio.current_time)

    def send(self, text: bytes) -> None:
        self.sent.append(text)

    @property
    def buffered(self) -> int:
        gone = (trio.current_time() - self.begun) * self.rate
        return max(0, sum(map(len, self.sent)) - int(gone))


@dataclass
class FakeDoor:
    config: Any = field(
        default_factory=lambda: parse_config("server: {body_timeout: 30}", name="config")
    )


def session(socket: FakeSocket) -> _Session:
    return _Session(
        None,  # type: ignore[arg-type]  # nothing is asked
        FakeDoor(),  # type: ignore[arg-type]  # only its config is read
        socket,  # type: ignore[arg-type]  # only sent to
        CALLER,
        _Named(None, None),
    )


def run_with(*events: bytes) -> ResponseRun:
    request = ResponsesRequest.of({"model": b'"stub/mock"', "input": b'"hi"'})
    writer = ResponseWriter(request, id="resp_1", created_at=1, clock=lambda: 1)
    return ResponseRun("resp_1", Asked(request=request), writer, list(enumerate(events)))


async def test_who_reads_is_waited_for(autojump_clock: MockClock) -> None:
    socket = FakeSocket(rate=1_000_000)

    await session(socket).send(run_with(b"x" * 4_000_000))

    assert len(socket.sent) == 1
    assert 2.9 < trio.current_time() - socket.begun < 3.1


async def test_who_does_not_read_is_sent_away(autojump_clock: MockClock) -> None:
    socket = FakeSocket(rate=0)

    with pytest.raises(Goodbye):
        await session(socket).send(run_with(b"x" * 4_000_000))

    assert 30 <= trio.current_time() - socket.begun < 31
