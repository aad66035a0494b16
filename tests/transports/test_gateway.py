from typing import Any

import pytest

from appliance.transports.callers import ACCEPTED_AT, ROUTE_TENANT
from appliance.transports.gateway import Gateway, Upgradable


class Recorder:
    def __init__(self) -> None:
        self.scope: dict[str, Any] = {}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope = scope


def scope(path: str) -> dict[str, Any]:
    return {"type": "http", "path": path, "raw_path": path.encode(), "state": {}}


class Bench:
    def __init__(self) -> None:
        self.chat, self.models, self.framework = Recorder(), Recorder(), Recorder()
        self.websocket = Recorder()
        raw = {"/v1/chat/completions": self.chat, "/v1/models": self.models}
        self.gateway = Gateway({**raw, "/v1/models/": self.models}, self.framework, self.websocket)

    async def ask(self, path: str) -> None:
        await self.gateway(scope(path), None, None)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_spending_route_does_not_pass_the_framework(bench: Bench) -> None:
    await bench.ask("/v1/chat/completions")

    assert bench.chat.scope["path"] == "/v1/chat/completions"
    assert not bench.framework.scope


async def test_everything_else_goes_to_the_framework(bench: Bench) -> None:
    await bench.ask("/v1/tenants")

    assert bench.framework.scope["path"] == "/v1/tenants"


async def test_a_route_may_hold_everything_below_it(bench: Bench) -> None:
    await bench.ask("/v1/models/stub/mock")

    assert bench.models.scope["path"] == "/v1/models/stub/mock"


async def test_the_tenant_prefix_is_taken_off_and_remembered(bench: Bench) -> None:
    await bench.ask("/t/acme/v1/chat/completions")

    assert bench.chat.scope["path"] == "/v1/chat/completions"
    assert bench.chat.scope["raw_path"] == b"/v1/chat/completions"
    assert bench.chat.scope[ROUTE_TENANT] == "acme"


@pytest.mark.parametrize(
    "path", ["/t/ACME/v1/models", "/t/../v1/models", "/t/acme", "/t//v1/models", "/t/é/v1/models"]
)
async def test_what_is_no_tenant_id_is_no_prefix(bench: Bench, path: str) -> None:
    await bench.gateway({"type": "http", "path": path, "raw_path": b"", "state": {}}, None, None)

    assert bench.framework.scope["path"] == path
    assert ROUTE_TENANT not in bench.framework.scope


async def test_the_prefix_is_taken_off_once(bench: Bench) -> None:
    await bench.ask("/t/a/t/b/v1/models")

    assert bench.framework.scope["path"] == "/t/b/v1/models"
    assert bench.framework.scope[ROUTE_TENANT] == "a"


async def test_every_request_carries_the_moment_it_was_accepted(bench: Bench) -> None:
    await bench.ask("/v1/chat/completions")

    assert bench.chat.scope[ACCEPTED_AT] > 0


async def test_every_websocket_goes_to_its_own_door(bench: Bench) -> None:
    await bench.gateway({**scope("/t/acme/ws"), "type": "websocket"}, None, None)

    assert bench.websocket.scope["path"] == "/ws"
    assert bench.websocket.scope[ROUTE_TENANT] == "acme"
    assert not bench.framework.scope


class Sockets(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.told = 0

    def shut_down(self) -> None:
        self.told += 1


async def test_a_path_may_have_websockets_of_its_own() -> None:
    http, sockets, framework, others = Recorder(), Sockets(), Recorder(), Recorder()
    door = Upgradable(http=http, websocket=sockets)
    gateway = Gateway({"/v1/responses": door}, framework, others)

    await gateway(scope("/v1/responses"), None, None)
    await gateway({**scope("/t/acme/v1/responses"), "type": "websocket"}, None, None)
    await gateway({**scope("/ws"), "type": "websocket"}, None, None)

    assert http.scope["type"] == "http"
    assert sockets.scope["path"] == "/v1/responses"
    assert others.scope["path"] == "/ws"
    assert not framework.scope
    gateway.shut_down()
    assert sockets.told == 1
