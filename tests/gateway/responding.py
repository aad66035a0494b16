"""What tests of ``/v1/responses`` share: asking, and reading streams."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import trio

from tests.gateway.conftest import Gateway, Tenant

PATH = "/v1/responses"
Event = dict[str, Any]


class Client:
    """One tenant's client of the responses' routes."""

    def __init__(self, gateway: Gateway, tenant: Tenant) -> None:
        self.gateway = gateway
        self.tenant = tenant

    async def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str
    ) -> httpx.Response:
        return await self.gateway.http.request(
            method, path, json=body, headers=self.gateway.headers(self.tenant.token, **headers)
        )

    async def create(self, said: object = "hi", **more: Any) -> dict[str, Any]:
        answer = await self.send("POST", PATH, {"model": "stub/mock", "input": said, **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def refused(
        self, said: object = "hi", *, status: int = 400, **more: Any
    ) -> dict[str, Any]:
        answer = await self.send("POST", PATH, {"model": "stub/mock", "input": said, **more})
        assert answer.status_code == status, answer.text
        error: dict[str, Any] = answer.json()["error"]
        return error

    async def streamed(self, said: object = "hi", **more: Any) -> list[Event]:
        body = {"model": "stub/mock", "input": said, "stream": True, **more}
        answer = await self.send("POST", PATH, body)
        assert answer.status_code == 200, answer.text
        return read_events(answer.text)

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.send("GET", path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def ended(self, response_id: str) -> dict[str, Any]:
        """The response once it is over."""
        with trio.fail_after(60):
            while True:
                found: dict[str, Any] = await self.get(f"{PATH}/{response_id}")
                if found["status"] not in {"queued", "in_progress"}:
                    return found
                await trio.sleep(0.02)


def read_events(text: str) -> list[Event]:
    """The events of a whole stream, which is checked to be one."""
    blocks = text.split("\n\n")
    assert blocks[-1] == ""
    assert blocks[-2] == "data: [DONE]"
    found = []
    for block in blocks[:-2]:
        if block.startswith(":"):
            continue
        kind, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        found.append(event)
    return found


async def first_events(
    gateway: Gateway, tenant: Tenant, body: Mapping[str, Any], *, number: int
) -> list[Event]:
    """Ask for a stream, read its first events and leave."""
    text = json.dumps(body).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {tenant.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    found: list[Event] = []
    received = b""
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
            await stream.send_all(head.encode() + text)
            while len(found) < number:
                received += await stream.receive_some()
                lines = re.findall(rb"^data: (\{.*\})$", received, re.MULTILINE)
                found = [json.loads(line) for line in lines]
    return found[:number]


def numbers(events: Sequence[Event]) -> list[int]:
    return [event["sequence_number"] for event in events]


def text_of(response: Mapping[str, Any]) -> str:
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )
