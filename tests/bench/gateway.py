"""The gateway under test: a state directory made by hand and the process that serves it."""

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw
import trio

from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope, TenantToken, TokenRecord
from appliance.storage.state import TENANTS
from appliance.storage.tenant_records import FILE, render_record
from tests.bench.answers import MODEL
from tests.bench.processes import (
    Cores,
    MeasurementFailed,
    Server,
    clean_environment,
    free_port,
    running,
)
from tests.bench.upstream import JSON_PATH, STREAM_PATH
from tests.bench.wire import AnswerReader, BadAnswer

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
_READY_PATIENCE = 60.0  # seconds
_STOP_PATIENCE = 25.0  # seconds; a drain may take 20
_POLL = 0.005  # seconds between two looks at /readyz: the error of the start-up time
_PLENTY = 10**12
_LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

# Every limit is far away and still checked on every call: none of them is null.
_QUOTAS: dict[str, int | str] = {
    "tokens_per_day": _PLENTY,
    "tokens_per_month": _PLENTY,
    "cost_per_day": "1000000.00",
    "cost_per_month": "1000000.00",
    "tokens_per_minute": _PLENTY,
    "requests_per_minute": 10**7,
    "requests_per_hour": 10**8,
    "concurrent_requests": 1000,
}
_SETTLED = "SELECT count(*) FROM entries WHERE outcome = 'ok'"
_PRICE = {"input": "1.00", "output": "2.00"}


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    token: str


@dataclass(frozen=True, slots=True)
class State:
    """A state directory; ``limited`` may ask once a minute (None where nobody asks)."""

    path: Path
    config: Path
    tenants: tuple[Tenant, ...]
    limited: Tenant | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    server: Server
    port: int
    state: State
    ready_seconds: float  # from starting the process to the first 200 of /readyz

    def url(self, path: str = CHAT) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Ports of what the gateway's providers point at. Nobody needs to listen for a start-up."""

    fixed: int = 9
    lockstep: int = 9


def write_state(path: Path, *, tenants: int, upstreams: Upstreams, limited: bool = False) -> State:
    """Lay out a state directory by hand: ``tenants`` tenants, each with a token.

    Files are written without fsync: the product's own way would take minutes
    for ten thousand, and nothing here has to survive a power cut.
    """
    path.mkdir(mode=0o700)
    config = path / "config.yaml"
    config.write_text(config_text(upstreams))
    config.chmod(0o600)
    (path / TENANTS).mkdir(mode=0o700)
    made = tuple(_write_tenant(path, f"bench-{number:05d}", {}) for number in range(tenants))
    poor = _write_tenant(path, "limited", {"requests_per_minute": 1}) if limited else None
    return State(path, config, made, poor)


def config_text(upstreams: Upstreams) -> str:
    """A gateway config in which every price and every limit is set. JSON is YAML."""
    fixed = f"http://127.0.0.1:{upstreams.fixed}"
    bases = {
        "json": fixed + JSON_PATH,
        "sse": fixed + STREAM_PATH,
        "lockstep": f"http://127.0.0.1:{upstreams.lockstep}/v1",
    }
    # The same answers in Anthropic's dialect, for what is translated.
    messages = {f"{name}-messages": bases[name] for name in bases}
    dialects = dict.fromkeys(bases, "openai") | dict.fromkeys(messages, "anthropic")
    bases |= messages
    config = {
        "providers": {
            name: {"dialect": dialects[name], "base_url": base, "api_key": "env:BENCH_KEY"}
            | {"models": [MODEL]}
            for name, base in bases.items()
        },
        "models": {
            "default": f"json/{MODEL}",
            "rate_card": {f"{name}/{MODEL}": _PRICE for name in bases},
        },
        "quotas": _QUOTAS,
    }
    return json.dumps(config)


def _write_tenant(state: Path, name: str, quotas: Mapping[str, int]) -> Tenant:
    token = TenantToken.generate(name)
    first = TokenRecord("first", "bench", token.digest(), frozenset({Scope.FULL}), _LONG_AGO)
    record = TenantRecord(name, f"Tenant {name}", _LONG_AGO, quotas=quotas, tokens=(first,))
    home = state / TENANTS / name
    home.mkdir(mode=0o700)
    file = home / FILE
    file.write_bytes(render_record(record))
    file.chmod(0o600)
    return Tenant(name, token.text)


@asynccontextmanager
async def serving(
    state: State, *, command: Sequence[str], cores: Cores, log: Path
) -> AsyncIterator[Gateway]:
    """``serve`` on ``state`` until the block is left; ready when it is entered.

    Raises :exc:`MeasurementFailed` with the log's end if it does not get ready.
    """
    port = free_port()
    arguments = [
        "serve",
        f"--bind=127.0.0.1:{port}",
        f"--state-dir={state.path}",
        f"--config={state.config}",
    ]
    began = time.perf_counter()
    async with running(
        [*command, *arguments],
        log=log,
        core=cores.server,
        environment=clean_environment(state.path.parent, BENCH_KEY="bench"),
        patience=_STOP_PATIENCE,
    ) as server:
        await _wait_ready(port, server)
        yield Gateway(server, port, state, time.perf_counter() - began)


async def _wait_ready(port: int, server: Server) -> None:
    said = "nothing listens"
    with trio.move_on_after(_READY_PATIENCE):
        while True:
            server.check_alive()
            try:
                status, body = await ask(port, "GET", "/readyz")
            except (OSError, BadAnswer):
                await trio.sleep(_POLL)
                continue
            if status == 200:
                return
            said = body.decode(errors="replace")[:300]
            await trio.sleep(_POLL)
    raise MeasurementFailed(f"the gateway did not get ready: {said}\n{server.last_words()}")


async def ask(
    port: int, method: str, path: str, *, token: str = "", body: bytes = b""
) -> tuple[int, bytes]:
    """One request on a connection of its own; status and body.

    Raises :exc:`OSError` and :exc:`BadAnswer`.
    """
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "connection: close"]
    if token:
        lines.append(f"authorization: Bearer {token}")
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    request = "\r\n".join([*lines, "", ""]).encode() + body
    reader = AnswerReader()
    pieces: list[bytes] = []
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            await stream.send_all(request)
            while not reader.done:
                data = await stream.receive_some()
                if not data:
                    raise BadAnswer("the connection was closed within an answer")
                pieces += reader.feed(data)
        except trio.BrokenResourceError as exc:
            raise BadAnswer("the connection broke") from exc
    return reader.status, b"".join(pieces)


async def loop_lag_ms(gateway: Gateway) -> float | None:
    """What `/readyz` says of the event loop, whether or not it calls that ready."""
    try:
        _, body = await ask(gateway.port, "GET", "/readyz")
    except (OSError, BadAnswer) as exc:
        raise MeasurementFailed(f"/readyz does not answer: {exc}") from exc
    return read_lag(body)


def read_lag(body: bytes) -> float | None:
    """``loop_lag_ms`` of a readiness answer: a number, or an object with ``p99``."""
    try:
        value = json.loads(body).get("loop_lag_ms")
    except (ValueError, AttributeError) as exc:
        raise MeasurementFailed(f"/readyz says something else: {body[:200]!r}") from exc
    if isinstance(value, dict):
        value = value.get("p99")
    return float(value) if isinstance(value, int | float) else None


async def check_limits(gateway: Gateway, body: bytes) -> None:
    """The tenant that may ask once a minute is let through once: limits are in force."""
    tenant = gateway.state.limited
    if tenant is None:
        raise MeasurementFailed("there is no limited tenant to try")
    try:
        statuses = [
            (await ask(gateway.port, "POST", CHAT, token=tenant.token, body=body))[0]
            for _ in range(2)
        ]
    except (OSError, BadAnswer) as exc:
        raise MeasurementFailed(f"the gateway does not answer a chat: {exc}") from exc
    if statuses != [200, 429]:
        raise MeasurementFailed(
            f"a tenant limited to one request a minute was answered {statuses}, not [200, 429]"
        )


def settled_calls(state: State) -> int:
    """How many calls all ledgers below ``state`` hold as answered. The gateway must have ended."""
    total = 0
    for file in sorted(state.path.glob("tenants/*/ledger/ledger.sqlite")):
        try:
            # Writable: a read-only connection cannot recover a log that was left behind.
            with closing(apsw.Connection(str(file))) as ledger:
                rows = ledger.execute(_SETTLED).fetchall()
        except apsw.Error as exc:
            raise MeasurementFailed(f"{file} cannot be read: {exc}") from exc
        total += int(rows[0][0])  # type: ignore[arg-type]  # count(*) is a number
    return total
