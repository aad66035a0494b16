"""What a hostile tenant, a hostile provider and a client that leaves can do to the model APIs."""

import json
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter, process_time
from typing import Any

import pytest
import trio

from appliance.model.errors import ApplianceError
from appliance.protocols.answers import AnswerFailed, AnswerReader, AnswerWriter
from appliance.protocols.anthropic_answers import StreamReader as MessagesReader
from appliance.protocols.anthropic_writer import MessagesWriter
from appliance.protocols.openai_answers import StreamReader as ChatReader
from appliance.protocols.openai_chat import ChatWriter
from appliance.protocols.responses.answers import StreamReader as ResponsesReader
from appliance.protocols.responses.items import input_items
from appliance.protocols.responses.messages import read_messages
from appliance.protocols.responses.request import ResponsesRequest
from appliance.protocols.responses.writer import ResponseWriter
from tests.gateway.conftest import Gateway, Tenant, said
from tests.gateway.inbound import INBOUND, Ask, Inbound
from tests.gateway.raw_websocket import TEXT, frame
from tests.gateway.responding import Client
from tests.stub_provider.answers import good
from tests.stub_provider.asked import Asked, Dialect
from tests.stub_provider.faults import FAULTS
from tests.stub_provider.server import StubProvider

Path = tuple[str | int, ...]

ATTEMPTS = 3
LAG = 0.4  # seconds that nothing else may stand still; on a busy machine much is not ours
QUOTA = 10_000_000  # tokens a day
CHAT, MESSAGES, RESPONSES = (INBOUND[name].path for name in INBOUND)
HI: Mapping[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


class Counted(StubProvider):
    """Knows how many are connected now."""

    open = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.open += 1
        try:
            await super().serve(stream)
        finally:
            self.open -= 1


@pytest.fixture
def provider() -> Counted:
    return Counted()


@pytest.fixture
async def stub_port(provider: Counted, nursery: trio.Nursery) -> AsyncIterator[int]:
    serve = partial(trio.serve_tcp, provider.serve, 0, host="127.0.0.1")
    listeners: list[trio.SocketListener] = await nursery.start(serve)
    yield listeners[0].socket.getsockname()[1]
    nursery.cancel_scope.cancel()


@pytest.fixture
async def mallory(gateway: Gateway) -> Tenant:
    return await gateway.create("mallory", quotas={"tokens_per_day": QUOTA})


# -- Bodies that are dear to read ------------------------------------------------------------------

NO_PICTURE = "data:a/" + "b" * 19_000_000
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "x"}
THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}


def _chat(*content: Mapping[str, Any], model: str = "claude/mock") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": list(content)}]}


def _items(number: int, item: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": "stub/mock", "input": [item] * number, "store": False}


DEAR: Mapping[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "chat: a URL of data that never comes": (
        CHAT,
        lambda: _chat({"type": "image_url", "image_url": {"url": NO_PICTURE}}),
    ),
    "responses: a URL of data that never comes": (
        RESPONSES,
        lambda: _items(
            1,
            {"role": "user", "content": [{"type": "input_image", "image_url": NO_PICTURE}]},
        ),
    ),
    "responses: thoughts without end": (RESPONSES, lambda: _items(9_999, THOUGHT)),
    "responses: many items": (RESPONSES, lambda: _items(80_000, {"role": "user", "content": "x"})),
    "counting many items": (
        f"{RESPONSES}/input_tokens",
        lambda: {"model": "stub/mock", "input": [{"role": "user", "content": "x"}] * 9_999},
    ),
    "compacting many items": (
        f"{RESPONSES}/compact",
        lambda: {"model": "stub/mock", "input": [{"role": "user", "content": "x"}] * 9_999},
    ),
    "messages: many": (
        MESSAGES,
        lambda: {
            "model": "stub/mock",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "x"}] * 20_000,
        },
    ),
}


@pytest.mark.parametrize(("path", "body"), DEAR.values(), ids=DEAR)
async def test_nobody_waits_for_a_body_that_is_dear_to_read(
    gateway: Gateway,
    mallory: Tenant,
    nursery: trio.Nursery,
    path: str,
    body: Callable[[], dict[str, Any]],
) -> None:
    content = json.dumps(body()).encode()
    longest = [LAG]

    async def look() -> None:
        while True:
            began = perf_counter()
            await trio.sleep(0.002)
            longest[-1] = max(longest[-1], perf_counter() - began)

    # Somebody else's work may hold it up once, the body does so each time.
    while min(longest) >= LAG and len(longest) <= ATTEMPTS:
        longest.append(0.0)
        with trio.fail_after(60):
            async with trio.open_nursery() as looking:
                looking.start_soon(look)
                answer = await gateway.http.post(
                    path, content=content, headers=gateway.headers(mallory.token)
                )
                looking.cancel_scope.cancel()
        assert answer.status_code in {200, 400}, answer.text

    assert min(longest) < LAG


@pytest.mark.parametrize("item", [CALL, RESULT, THOUGHT], ids=lambda item: str(item["type"]))
def test_a_long_turn_is_read_in_linear_time(item: Mapping[str, Any]) -> None:
    items = input_items([CALL, *[item] * 20_000], "input")
    began = process_time()

    assert read_messages(items)

    assert process_time() - began < 5


async def test_a_form_is_not_taken_apart_for_seconds(gateway: Gateway, mallory: Tenant) -> None:
    answer = await gateway.http.post(
        RESPONSES,
        content=b"model=stub/mock&input=" + b"%61" * 400_000,
        headers=gateway.headers(
            mallory.token, **{"content-type": "application/x-www-form-urlencoded"}
        ),
    )

    assert answer.status_code == 413


async def test_a_reference_is_no_way_to_a_body_of_gigabytes(
    gateway: Gateway, mallory: Tenant
) -> None:
    client = Client(gateway, mallory)
    await client.create([{"type": "message", "id": "msg_big", "role": "user", "content": "x" * 99}])
    reference = {"type": "item_reference", "id": "msg_big"}

    error = await client.refused([reference] * 1000)

    assert error["param"] == "input"
    assert (await client.create([reference]))["status"] == "completed"


async def test_who_sends_and_never_reads_is_not_listened_to(
    gateway: Gateway, mallory: Tenant
) -> None:
    head = (
        f"GET {RESPONSES} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {mallory.token}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with trio.socket.socket() as plain:
        plain.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        await plain.connect(("127.0.0.1", gateway.port))
        stream = trio.SocketStream(plain)
        await stream.send_all(head.encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
        flood = frame(TEXT, b"x") * 500
        with trio.fail_after(60), suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(flood)


# -- What is not in its place ----------------------------------------------------------------------

ANYTHING: Sequence[Any] = (None, [], {}, "x", -1, 2**63, 1.5, [{}], {"type": []}, "file:///etc/x")


def places(value: object, above: Path = ()) -> Iterator[Path]:
    yield above
    if isinstance(value, dict):
        for name, each in value.items():
            yield from places(each, (*above, name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from places(each, (*above, number))


def put(value: Any, place: Path, new: object) -> Any:
    if not place:
        return new
    first, *rest = place
    copy = value.copy()
    copy[first] = put(value[first], tuple(rest), new)
    return copy


FULL = Ask(
    ("What is this?",),
    system="Be brief.",
    limit=20,
    tools=True,
    calls=[("call_1", "get_weather", '{"location":"x"}')],
    results={"call_1": "fog"},
    picture=True,
    schema=True,
)
PROVIDERS = ("stub", "claude", "replies", "llama")


@pytest.mark.parametrize("inbound", INBOUND.values(), ids=INBOUND)
async def test_anything_anywhere_in_a_request_is_answered_or_refused(
    gateway: Gateway, mallory: Tenant, inbound: Inbound
) -> None:
    body = inbound.body(FULL)
    chance = random.Random(5)  # noqa: S311 - nothing secret: the same cases each time
    cases = [(place, new) for place in places(body) if place for new in ANYTHING]

    for place, new in chance.sample(cases, 250):
        bad = put(body, place, new)
        bad["model"] = chance.choice([f"{name}/mock" for name in PROVIDERS] + ["openclaw"])
        bad["stream"] = chance.random() < 0.5
        answer = await gateway.http.post(
            inbound.path, json=bad, headers=gateway.headers(mallory.token)
        )
        assert answer.status_code in {200, 400}, (place, new, answer.text)
        assert "internal_error" not in answer.text, (place, new, answer.text)


NO_BODY = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a key twice": b'{"model":"stub/mock","model":"claude/mock"}',
    "not UTF-8": b'{"model":"\xff"}',
    "no number": b'{"temperature":NaN}',
    "an endless number": b'{"temperature":1e400}',
    "a huge number": b'{"max_tokens":' + b"9" * 5000 + b"}",
    "half a pair": b'{"model":"\\ud800"}',
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "never closed": b"[" * 100_000,
    "a NUL for a model": b'{"model":"\\u0000"}',
}
POSTED = (
    CHAT,
    MESSAGES,
    f"{MESSAGES}/count_tokens",
    RESPONSES,
    f"{RESPONSES}/compact",
    f"{RESPONSES}/input_tokens",
    "/v1/conversations",
    "/v1/embeddings",
)


@pytest.mark.parametrize("content", NO_BODY.values(), ids=NO_BODY)
async def test_what_is_no_request_is_refused_everywhere(
    gateway: Gateway, mallory: Tenant, content: bytes
) -> None:
    for path in POSTED:
        answer = await gateway.http.post(
            path, content=content, headers=gateway.headers(mallory.token)
        )
        assert answer.status_code == 400, (path, answer.text)


HEADERS: Sequence[tuple[str, bytes]] = (
    ("anthropic-beta", b"a\tb"),
    ("anthropic-beta", b"x" * 5000),
    ("anthropic-beta", b"b\xe9ta"),
    ("anthropic-beta", ",".join(f"b{n}" for n in range(60)).encode()),
    ("anthropic-version", b"\xe9"),
    ("x-openclaw-tags", b"a=b\xe9"),
    ("x-openclaw-session-key", b"\xff"),
    ("x-openclaw-session-key", b"agent:../../other:main"),
    ("x-openclaw-agent-id", b"../other"),
    ("x-openclaw-cache", b"\xe9"),
    ("x-request-id", b"a\tb" * 200),
    ("content-type", b"\xe9"),
)


@pytest.mark.parametrize(("name", "value"), HEADERS)
async def test_headers_of_a_stranger_break_nothing(
    gateway: Gateway, mallory: Tenant, provider: Counted, name: str, value: bytes
) -> None:
    for path, model in ((CHAT, "openclaw"), (MESSAGES, "claude/mock"), (RESPONSES, "openclaw")):
        said = {"input": "hi"} if path == RESPONSES else {**HI, "max_tokens": 9}
        answer = await gateway.http.post(
            path,
            content=json.dumps({"model": model, **said}),
            headers=[
                (b"authorization", f"Bearer {mallory.token}".encode()),
                (name.encode(), value),
            ],
        )
        assert answer.status_code < 500, answer.text
    for request in provider.requests:
        assert value.decode("latin-1") not in request.headers.values()


# -- Providers that lie ----------------------------------------------------------------------------

READERS: Mapping[Dialect, Callable[[], AnswerReader]] = {
    "openai": ChatReader,
    "anthropic": MessagesReader,
    "responses": ResponsesReader,
}
SHOWN = {
    "model": "a/b",
    "input": "x",
    "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
}


def _writers() -> Iterator[AnswerWriter]:
    request = ResponsesRequest.parse(json.dumps(SHOWN).encode(), limit_bytes=1000)
    yield ChatWriter(id="c", created=1, include_usage=True)
    yield MessagesWriter(id="m", prompt_tokens=3)
    yield ResponseWriter(request, id="r", created_at=1, clock=lambda: 1.0)


def _write(reader: AnswerReader, pieces: Sequence[bytes], writer: AnswerWriter) -> None:
    writer.start("mock")
    for piece in pieces:
        writer.deltas(reader.deltas(piece))
        if reader.failure is not None:
            return
    if reader.finished:
        writer.end(reader.usage)
        writer.tail()


@pytest.mark.parametrize("fault", ["", "tool-call"])
@pytest.mark.parametrize("dialect", READERS)
def test_anything_anywhere_in_an_answer_is_read_or_refused(dialect: Dialect, fault: str) -> None:
    asked = Asked(dialect, "mock", stream=True, prompt_tokens=3, words=1, is_cut_off=False)
    answer = FAULTS[fault](asked) if fault else good(asked)
    events = [e + b"\n\n" for e in b"".join(answer.pieces).split(b"\n\n") if e]
    for number, event in enumerate(events):
        before, found, data = event.partition(b"data: {")
        if not found:
            continue
        value = json.loads(b"{" + data)
        for place in places(value):
            for new in ANYTHING:
                bad = before + b"data: " + json.dumps(put(value, place, new)).encode() + b"\n\n"
                pieces = [*events[:number], bad, *events[number + 1 :]]
                for writer in _writers():
                    # What is foreseen is told as the provider's failure.
                    with suppress(AnswerFailed, ApplianceError):
                        _write(READERS[dialect](), pieces, writer)


# -- Clients that leave ----------------------------------------------------------------------------


async def _left(
    gateway: Gateway, tenant: Tenant, path: str, body: Mapping[str, Any], *, until: bytes
) -> None:
    """Ask, read until ``until`` has come, and leave."""
    text = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {tenant.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream:
        await stream.send_all(head.encode() + text)
        while until and until not in received:
            received += await stream.receive_some()
        if not until:
            await trio.sleep(0.1)


async def _is_settled(gateway: Gateway, tenant: Tenant, provider: Counted) -> None:
    """Wait until no call is under way, and see that nothing is held back for one."""
    with trio.fail_after(60):
        while provider.open:  # noqa: ASYNC110 - the stub tells nobody
            await trio.sleep(0.02)
    answer = await gateway.chat(tenant, {"model": "stub/mock", **HI})
    assert answer.status_code == 200, answer.text
    usage = await gateway.usage(tenant)
    used = usage["input_tokens"] + usage["output_tokens"]
    later = await gateway.http.post(CHAT, content=b"{", headers=gateway.headers(tenant.token))
    assert int(later.headers["x-openclaw-budget-remaining-tokens"]) == QUOTA - used


@pytest.mark.parametrize("speaks", INBOUND)
@pytest.mark.parametrize("to", PROVIDERS)
async def test_who_leaves_ends_the_call_and_holds_nothing_back(
    gateway: Gateway, mallory: Tenant, provider: Counted, speaks: str, to: str
) -> None:
    inbound = INBOUND[speaks]
    body = {**inbound.body(Ask(("hi",), limit=50)), "model": f"{to}/fault-hang"}

    await _left(gateway, mallory, inbound.path, {**body, "stream": True}, until=b"w000")
    await _left(gateway, mallory, inbound.path, {**body, "stream": True}, until=b"")
    await _left(gateway, mallory, inbound.path, body, until=b"")

    await _is_settled(gateway, mallory, provider)


@pytest.mark.parametrize("way", ["cancel", "delete"])
async def test_a_run_in_the_background_that_is_ended_holds_nothing_back(
    gateway: Gateway, mallory: Tenant, provider: Counted, way: str
) -> None:
    client = Client(gateway, mallory)
    begun = await client.create("hi", model="stub/fault-hang", background=True)

    path = f"{RESPONSES}/{begun['id']}"
    ending = ("POST", f"{path}/cancel") if way == "cancel" else ("DELETE", path)
    assert (await client.send(*ending)).status_code == 200

    await _is_settled(gateway, mallory, provider)


# -- Others' things --------------------------------------------------------------------------------


async def test_what_is_anothers_is_as_what_is_nobodys(
    gateway: Gateway, acme: Tenant, mallory: Tenant
) -> None:
    theirs = Client(gateway, acme)
    item = {"type": "message", "id": "msg_theirs", "role": "user", "content": "secret"}
    response = (await theirs.create([item]))["id"]
    made = await theirs.send("POST", "/v1/conversations", {"items": [item]})
    conversation = made.json()["id"]
    mine = Client(gateway, mallory)

    async def asked(response: str, conversation: str, item: str) -> list[tuple[int, str]]:
        ask = {"model": "stub/mock", "input": "x"}
        reference = [{"type": "item_reference", "id": item}]
        of, at = f"{RESPONSES}/{response}", f"/v1/conversations/{conversation}"
        tried: Sequence[tuple[str, str, dict[str, Any] | None]] = (
            ("GET", of, None),
            ("GET", f"{of}?stream=true", None),
            ("GET", f"{of}/input_items", None),
            ("POST", f"{of}/cancel", None),
            ("DELETE", of, None),
            ("GET", at, None),
            ("POST", at, {"metadata": {}}),
            ("GET", f"{at}/items", None),
            ("POST", f"{at}/items", {"items": [{"role": "user", "content": "x"}]}),
            ("GET", f"{at}/items/{item}", None),
            ("DELETE", f"{at}/items/{item}", None),
            ("DELETE", at, None),
            ("POST", RESPONSES, {**ask, "previous_response_id": response}),
            ("POST", RESPONSES, {**ask, "conversation": conversation}),
            ("POST", RESPONSES, {**ask, "input": reference}),
            ("POST", f"{RESPONSES}/input_tokens", {**ask, "previous_response_id": response}),
            ("POST", f"{RESPONSES}/compact", {**ask, "previous_response_id": response}),
        )
        answers = [await mine.send(*each) for each in tried]
        return [
            (a.status_code, a.text.replace(response, "R").replace(conversation, "C"))
            for a in answers
        ]

    of_theirs = await asked(response, conversation, "msg_theirs")
    of_nobody = await asked("resp_" + "0" * 32, "conv_" + "0" * 32, "msg_nobody")

    assert {status for status, _ in of_theirs} <= {400, 404}
    assert [(s, t.replace("msg_theirs", "I")) for s, t in of_theirs] == [
        (s, t.replace("msg_nobody", "I")) for s, t in of_nobody
    ]
    assert (await theirs.get(f"{RESPONSES}/{response}"))["id"] == response
    assert (await theirs.get(f"/v1/conversations/{conversation}/items"))["data"]


WRITES: Sequence[tuple[str, str, Mapping[str, Any]]] = (
    ("POST", CHAT, {"model": "stub/mock", **HI}),
    ("POST", MESSAGES, {"model": "claude/mock", "max_tokens": 9, **HI}),
    ("POST", RESPONSES, {"model": "stub/mock", "input": "x"}),
    ("POST", f"{RESPONSES}/compact", {"model": "stub/mock", "input": "x"}),
    ("POST", f"{RESPONSES}/resp_x/cancel", {}),
    ("DELETE", f"{RESPONSES}/resp_x", {}),
    ("POST", "/v1/conversations", {}),
    ("POST", "/v1/conversations/conv_x", {"metadata": {}}),
    ("DELETE", "/v1/conversations/conv_x", {}),
    ("POST", "/v1/conversations/conv_x/items", {"items": []}),
    ("DELETE", "/v1/conversations/conv_x/items/msg_x", {}),
    ("POST", "/v1/embeddings", {"model": "stub/mock", "input": "x"}),
)


async def _token(gateway: Gateway, tenant: Tenant, **what: Any) -> Tenant:
    answer = await gateway.http.post(
        f"/v1/tenants/{tenant.id}/tokens", json=what, headers=gateway.headers(tenant.token)
    )
    assert answer.status_code == 201, answer.text
    return Tenant(tenant.id, answer.json()["token"])


async def test_who_may_read_writes_nothing(gateway: Gateway, mallory: Tenant) -> None:
    reader = Client(gateway, await _token(gateway, mallory, scopes=["read"]))

    for method, path, body in WRITES:
        answer = await reader.send(method, path, body or None)
        assert answer.status_code == 403, (path, answer.text)
    assert (await gateway.usage(mallory))["requests"] == 0


NOT_FOR_IT: Sequence[tuple[str, Mapping[str, Any]]] = (
    (CHAT, {"model": "claude/mock", **HI}),
    (CHAT, {"model": "smart", **HI}),
    (CHAT, {"model": "stub/mock-300", **HI}),
    (CHAT, {"model": "stub/mock/../mock-300", **HI}),
    (CHAT, {"model": "Stub/mock", **HI}),
    (MESSAGES, {"model": "claude/mock", "max_tokens": 9, **HI}),
    (f"{MESSAGES}/count_tokens", {"model": "claude/mock", **HI}),
    (RESPONSES, {"model": "claude/mock", "input": "x"}),
    (RESPONSES, {"model": "claude/mock", "input": "x", "stream": True}),
    (f"{RESPONSES}/compact", {"model": "claude/mock", "input": "x"}),
    ("/v1/embeddings", {"model": "replies/mock", "input": "x"}),
)


@pytest.mark.parametrize(("path", "body"), NOT_FOR_IT)
async def test_a_token_for_a_model_reaches_no_other(
    gateway: Gateway, mallory: Tenant, provider: Counted, path: str, body: Mapping[str, Any]
) -> None:
    narrow = await _token(gateway, mallory, scopes=["chat"], models=["stub/mock"])

    answer = await Client(gateway, narrow).send("POST", path, body)

    assert answer.status_code in {400, 403, 404}, answer.text
    assert not [request for request in provider.requests if request.method == "POST"]


async def test_a_token_for_a_model_runs_no_other_in_the_background(
    gateway: Gateway, mallory: Tenant, provider: Counted
) -> None:
    narrow = Client(gateway, await _token(gateway, mallory, scopes=["chat"], models=["stub/mock"]))
    asked = {"model": "claude/mock", "input": "x", "background": True}

    answer = await narrow.send("POST", RESPONSES, asked)

    if answer.status_code == 200:
        assert (await narrow.ended(answer.json()["id"]))["status"] == "failed"
    assert not [request for request in provider.requests if request.method == "POST"]


@pytest.mark.parametrize("to", ["claude", "stub", "replies"])
async def test_a_document_is_looked_through_as_every_text(
    gateway: Gateway, mallory: Tenant, provider: Counted, to: str
) -> None:
    rule = {"name": "no mail", "on": "request", "pii": ["email"], "action": "block"}
    await gateway.configure(mallory, {"defaults": {"guardrails": [rule]}})
    source = {"type": "text", "media_type": "text/plain", "data": "Write to ada@example.com."}
    said = {"role": "user", "content": [{"type": "document", "source": source}]}

    answer = await Client(gateway, mallory).send(
        "POST", MESSAGES, {"model": f"{to}/mock", "max_tokens": 9, "messages": [said]}
    )

    assert answer.status_code in {400, 403}, answer.text
    assert not [request for request in provider.requests if request.method == "POST"]


async def test_every_api_says_whether_to_try_again(gateway: Gateway, mallory: Tenant) -> None:
    for speaks, inbound in INBOUND.items():
        body = {"model": "stub/fault-529", **inbound.body(Ask(("hi",)))}
        answer = await Client(gateway, mallory).send("POST", inbound.path, body)
        assert answer.headers["x-should-retry"] == "true", speaks
        assert answer.headers["x-openclaw-attempts"] == "1", speaks


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lie", ["zero-usage", "huge-usage", "lying-usage", "no-usage"])
async def test_an_answer_whose_usage_cannot_be_true_is_estimated_and_flagged(
    gateway: Gateway, acme: Tenant, lie: str, *, stream: bool
) -> None:
    answer = await gateway.chat(acme, said("x" * 400, model=f"stub/fault-{lie}", stream=stream))
    used = await gateway.usage(acme)

    assert answer.status_code == 200
    assert used["estimated_requests"] == 1
    assert used["input_tokens"] >= 100
    assert 0 < used["output_tokens"] < 1000
