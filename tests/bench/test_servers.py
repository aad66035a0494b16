"""What a run starts and lays out: upstream, bare application, the gateway's state. No load."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from appliance.config.loading import parse_config
from appliance.model.quotas import QUOTA_KEYS
from appliance.model.tokens import TenantToken
from appliance.storage.state import StateDirectory
from appliance.storage.tenant_records import TenantRecords
from tests.bench import upstream
from tests.bench.answers import ANSWER, EVENTS, STREAM, request_bytes
from tests.bench.baseline import BareApp
from tests.bench.gateway import Upstreams, config_text, read_lag, settled_calls, write_state
from tests.bench.processes import MeasurementFailed, clean_environment, running
from tests.bench.wire import AnswerReader

# Servers


@pytest.mark.parametrize(
    ("path", "body"), [("/json/v1/chat/completions", ANSWER), ("/sse/v1/chat/completions", STREAM)]
)
async def test_the_upstream_without_nginx_answers_by_path(path: str, body: bytes) -> None:
    ours, theirs = memory_stream_pair()
    reader, pieces = AnswerReader(), list[bytes]()
    request = request_bytes(path, b'{"x": 1}')

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upstream.converse, theirs)
            await ours.send_all(request[:30])
            await ours.send_all(request[30:])
            while not reader.done:
                pieces += reader.feed(bytes(await ours.receive_some()))
            await ours.send_eof()

    assert b"".join(pieces) == body


def test_without_nginx_the_upstream_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise MeasurementFailed(f"{name} is not installed")

    monkeypatch.setattr(upstream, "find_program", missing)

    kind, started = upstream.prepare(tmp_path, 1234)

    assert kind == "trio"
    assert started == [sys.executable, "-m", "tests.bench.upstream", "1234"]


def test_nginx_runs_unprivileged_on_loopback_below_its_folder(tmp_path: Path) -> None:
    text = upstream.nginx_config(tmp_path, 4321)

    assert "listen 127.0.0.1:4321" in text
    assert "master_process off" in text
    assert text.count(str(tmp_path)) == 7
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("path", "sends", "body"),
    [("/json", 1, ANSWER), ("/joined", 1, STREAM), ("/events", len(EVENTS) + 1, STREAM)],
)
async def test_the_bare_app_answers_constants(path: str, sends: int, body: bytes) -> None:
    said: list[dict[str, Any]] = []
    heard: list[dict[str, Any]] = [{"body": b"{", "more_body": True}, {"body": b"}"}]

    async def receive() -> dict[str, Any]:
        return heard.pop(0)

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await BareApp(feed=1)({"type": "http", "path": path}, receive, send)

    assert said[0]["status"] == 200
    assert len(said) == 1 + sends
    assert b"".join(message["body"] for message in said[1:]) == body


async def first_number(log: Path) -> int:
    for _ in range(1000):
        if text := await trio.Path(log).read_text():
            return int(text)
        await trio.sleep(0.005)
    raise AssertionError("nothing was logged")


async def test_leaving_ends_the_server_and_what_it_started(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; sleep 60 & echo $!; wait"
    log = tmp_path / "log"

    with trio.fail_after(60):
        async with running(
            ["sh", "-c", stubborn],
            log=log,
            core=None,
            environment=clean_environment(tmp_path),
            patience=0.05,
        ) as server:
            child = os.pidfd_open(await first_number(log))
            assert server.rss_bytes() > 0
            assert server.cpu_seconds() >= 0
            server.check_alive()

        assert not await trio.Path(f"/proc/{server.pid}").exists()
        await trio.lowlevel.wait_readable(child)  # readable: it has ended
    os.close(child)


async def test_a_server_that_ends_by_itself_shows_its_last_words(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with running(
            ["sh", "-c", "echo no such thing"],
            log=tmp_path / "log",
            core=None,
            environment=clean_environment(tmp_path),
        ) as server:
            await server.wait_ended()
            with pytest.raises(MeasurementFailed, match="no such thing"):
                server.check_alive()


def test_servers_see_nothing_of_the_callers_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLAW_STATE_DIR", "/elsewhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")

    seen = clean_environment(tmp_path, EXTRA="x")

    assert seen["EXTRA"] == "x"
    assert seen["HOME"] == str(tmp_path)
    assert not {"OPENCLAW_STATE_DIR", "HTTPS_PROXY"} & set(seen)


# The gateway's state


def test_the_product_reads_the_state_that_was_laid_out(tmp_path: Path) -> None:
    made = write_state(tmp_path / "state", tenants=3, upstreams=Upstreams(), limited=True)

    with StateDirectory.open(made.path) as state:
        found = {name: TenantRecords(state).read(name) for name in state.tenants()}

    assert set(found) == {"limited", *(tenant.id for tenant in made.tenants)}
    assert found["limited"].quotas == {"requests_per_minute": 1}
    for tenant in made.tenants:
        token = TenantToken.parse(tenant.token)
        assert token is not None
        assert found[tenant.id].tokens[0].digest == token.digest()
    assert made.path.stat().st_mode & 0o777 == 0o700


def test_the_config_sets_every_limit_on_calls_and_every_price() -> None:
    config = parse_config(config_text(Upstreams(1, 2)), name="config.yaml")

    on_calls = {k for k in QUOTA_KEYS if k.startswith(("tokens_", "cost_", "requests_"))}
    assert on_calls | {"concurrent_requests"} == set(config.quotas)
    assert set(config.models.rate_card) == {f"{name}/mock" for name in config.providers}


@pytest.mark.parametrize(
    ("said", "lag"),
    [
        (b'{"loop_lag_ms": 3.5}', 3.5),
        (b'{"loop_lag_ms": {"p50": 1, "p99": 7}}', 7.0),
        (b'{"status": "ok"}', None),
    ],
)
def test_the_loop_lag_is_read_from_readiness(said: bytes, lag: float | None) -> None:
    assert read_lag(said) == lag


def test_readiness_that_is_no_object_fails_the_measurement() -> None:
    for said in (b"<html>", b"[]"):
        with pytest.raises(MeasurementFailed):
            read_lag(said)


def test_a_ledger_that_cannot_be_read_fails_the_check_of_the_books(tmp_path: Path) -> None:
    made = write_state(tmp_path / "state", tenants=1, upstreams=Upstreams())
    assert settled_calls(made) == 0
    ledger = made.path / "tenants" / "bench-00000" / "ledger"
    ledger.mkdir()
    (ledger / "ledger.sqlite").write_bytes(b"not a database, and long enough to look at" * 100)

    with pytest.raises(MeasurementFailed, match="cannot be read"):
        settled_calls(made)
