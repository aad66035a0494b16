"""The gateway as a process: how it starts, what survives it, how it leaves."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import httpx
import openai
import pytest
import trio
import yaml

from tests.gateway.websocket import connected
from tests.system.processes import (
    ADMIN_KEY,
    Gateway,
    Launcher,
    answer_of,
    free_port,
    wait_until,
)

pytestmark = pytest.mark.system


@pytest.fixture
def gateway(launcher: Launcher) -> Gateway:
    return launcher.serve()


def frames(response: httpx.Response) -> Iterator[str]:
    """The data of each server-sent event."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


@contextmanager
def streaming(client: httpx.Client, model: str) -> Iterator[httpx.Response]:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        yield response


def streamed_text(chunks: list[str]) -> str:
    assert chunks[-1] == "[DONE]"
    choices = [choice for chunk in chunks[:-1] for choice in json.loads(chunk)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def requests_used(gateway: Gateway, tenant: str = "acme") -> int:
    return sum(int(row["requests"]) for row in usage(gateway, tenant))


def usage(gateway: Gateway, tenant: str = "acme") -> list[dict[str, Any]]:
    with gateway.client(ADMIN_KEY) as admin:
        answer = admin.get(f"/v1/tenants/{tenant}/usage")
    assert answer.status_code == 200, answer.text
    rows = answer.json()["rows"]
    assert isinstance(rows, list)
    return rows


def transcript(gateway: Gateway, tenant: str = "acme") -> list[str]:
    """Every message's content on disk. Only for a gateway that has left."""
    path = gateway.state / "tenants" / tenant / "sessions" / "sessions.sqlite"
    connection = apsw.Connection(str(path))
    try:
        rows = connection.execute("SELECT message FROM messages ORDER BY seq").fetchall()
    finally:
        connection.close()
    return [str(row[0]) for row in rows]


# Starting


def test_a_new_gateway_serves_a_tenant_and_leaves_when_asked(gateway: Gateway) -> None:
    assert gateway.get("/healthz").json() == {"status": "ok"}
    token = gateway.create_tenant()

    whole = answer_of(gateway.chat(token, "hello"))
    with gateway.client(token) as tenant, streaming(tenant, "stub/mock") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        chunks = list(frames(response))

    assert whole
    assert streamed_text(chunks)
    assert gateway.process.stop() == 0


def test_a_new_state_directory_gets_a_config_and_an_admin_key_shown_once(
    launcher: Launcher,
) -> None:
    launcher.config.unlink()
    launcher.state.rmdir()

    first = launcher.serve(admin_key="")
    shown = [word for word in first.process.said.split() if word.startswith("admin:")]
    assert len(shown) == 1
    with first.client(shown[0]) as admin:
        assert admin.get("/v1/tenants").status_code == 200
    assert first.process.stop() == 0

    assert shown[0] not in launcher.config.read_text()
    assert launcher.state.stat().st_mode & 0o777 == 0o700
    second = launcher.serve(admin_key="")
    assert "admin:" not in second.process.said
    with second.client(shown[0]) as admin:
        assert admin.get("/v1/tenants").status_code == 200


def test_the_admin_key_of_the_environment_works_and_is_kept_as_a_hash_only(
    gateway: Gateway,
) -> None:
    with gateway.client(ADMIN_KEY) as admin, gateway.client("admin:wrong") as stranger:
        assert admin.get("/v1/tenants").status_code == 200
        assert stranger.get("/v1/tenants").status_code == 401
    assert gateway.process.stop() == 0

    secret = ADMIN_KEY.removeprefix("admin:").encode()
    kept = [path for path in gateway.state.rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if secret in path.read_bytes()] == []


def test_a_second_gateway_on_the_same_state_directory_is_refused(
    launcher: Launcher, gateway: Gateway
) -> None:
    second = launcher.serve(ready=False).process

    assert second.wait() == 1
    assert str(gateway.process.pid) in second.said
    assert "Traceback" not in second.said
    assert gateway.get("/readyz").status_code == 200


def test_an_address_that_others_can_reach_is_refused_without_tls_or_a_proxy(
    launcher: Launcher,
) -> None:
    refused = launcher.run(
        *("serve", "--bind", f"0.0.0.0:{free_port()}", "--state-dir", str(launcher.state))
    )

    assert refused.exit_code == 1
    assert "behind_proxy" in refused.said
    assert "tls" in refused.said.lower()
    assert "Traceback" not in refused.said


def test_a_config_that_is_not_valid_is_refused_at_start_naming_the_nearest_key(
    launcher: Launcher,
) -> None:
    launcher.configure("serverr: {}\n")

    refused = launcher.run("serve", "--state-dir", str(launcher.state))

    assert refused.exit_code in {1, 2}
    assert "serverr" in refused.said
    assert "server" in refused.said.replace("serverr", "")
    assert "Traceback" not in refused.said


# Surviving


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(launcher: Launcher) -> None:
    first = launcher.serve()
    token = first.create_tenant()
    session = {"x-openclaw-session-key": "agent:main:survivor"}
    answer = answer_of(first.chat(token, "remember the heron", headers=session))
    first.process.kill()

    second = launcher.serve()

    with second.client(ADMIN_KEY) as admin:
        assert admin.get("/v1/tenants/acme").status_code == 200
    assert requests_used(second) == 1
    assert answer_of(second.chat(token, "and the otter", headers=session))
    assert requests_used(second) == 2
    assert second.process.stop() == 0
    kept = transcript(second)
    assert len(kept) == 4
    assert "remember the heron" in kept[0]
    assert answer in kept[1]
    assert "and the otter" in kept[2]


def test_a_message_that_waits_for_an_answer_survives_when_the_process_is_killed(
    launcher: Launcher,
) -> None:
    first = launcher.serve()
    token = first.create_tenant()

    async def say_two() -> None:
        async with connected(first.port, token) as client:
            await client.call("sessions.create", key="main", model="stub/fault-slow")
            for run, text in (("r1", "remember the heron"), ("r2", "and the otter")):
                taken = await client.call(
                    "chat.send", sessionKey="main", message=text, idempotencyKey=run
                )
                assert taken["status"] == "started"
            first.process.kill()

    trio.run(say_two)
    second = launcher.serve()

    async def read() -> tuple[list[str], str]:
        async with connected(second.port, token) as client:
            page = await client.call("chat.history", sessionKey="main")
            waited = await client.call("agent.wait", runId="r2")
            said = [message["content"] for message in page["messages"]]
            return [json.dumps(content) for content in said], waited["stopReason"]

    said, stop_reason = trio.run(read)
    assert len(said) == 2
    assert "heron" in said[0]
    assert "otter" in said[1]
    assert stop_reason == "restart"


def test_a_call_cut_off_by_a_crash_is_settled_at_the_next_start(launcher: Launcher) -> None:
    first = launcher.serve()
    token = first.create_tenant()
    with first.client(token) as tenant, streaming(tenant, "stub/fault-slow") as response:
        received = frames(response)
        next(received)
        first.process.kill()
        with pytest.raises(httpx.TransportError):
            list(received)

    second = launcher.serve()

    assert answer_of(second.chat(token, "hello again"))
    assert requests_used(second) == 2
    assert second.process.stop() == 0


def test_a_broken_tenant_keeps_nobody_else_out(launcher: Launcher) -> None:
    first = launcher.serve()
    first.create_tenant("broken")
    token = first.create_tenant("whole")
    assert first.process.stop() == 0
    record = launcher.state / "tenants" / "broken" / "tenant.json"
    record.write_text('{"id": "broken", ')

    second = launcher.serve()

    assert answer_of(second.chat(token, "hello"))
    assert second.process.stop() == 0
    assert record.read_text() == '{"id": "broken", '
    assert "broken" in second.process.said


# Reloading


def test_an_invalid_config_is_not_taken_and_readiness_says_so(
    launcher: Launcher, gateway: Gateway
) -> None:
    token = gateway.create_tenant()
    good = launcher.config.read_text()

    def told() -> str:
        return gateway.get("/readyz").text

    launcher.configure(good + "modles: {}\n")
    gateway.process.signal(signal.SIGHUP)

    wait_until(lambda: "config: warning" in told(), "readiness to say so")
    assert "modles" not in told(), "what is in the file is for the operator's log, not for anyone"
    wait_until(lambda: "modles" in gateway.process.said, "the log to say so")
    assert answer_of(gateway.chat(token, "hello"))

    launcher.configure(good)
    gateway.process.signal(signal.SIGHUP)
    wait_until(lambda: "config: warning" not in told(), "the good config to be taken")
    assert answer_of(gateway.chat(token, "hello"))


def test_a_changed_config_is_taken_while_running(launcher: Launcher, gateway: Gateway) -> None:
    token = gateway.create_tenant()
    assert gateway.chat(token, "hello", model="quick").status_code == 404

    config = yaml.safe_load(launcher.config.read_text())
    config["models"]["aliases"] = {"quick": "stub/mock"}
    launcher.configure(yaml.safe_dump(config))
    gateway.process.signal(signal.SIGHUP)

    wait_until(
        lambda: gateway.chat(token, "hello", model="quick").status_code == 200,
        "the new alias to be known",
    )


# Leaving


def test_an_answer_under_way_is_finished_before_the_gateway_leaves(gateway: Gateway) -> None:
    token = gateway.create_tenant()
    chunks: list[str] = []
    begun = threading.Event()

    def listen() -> None:
        with gateway.client(token) as tenant, streaming(tenant, "stub/fault-slow") as response:
            for chunk in frames(response):
                chunks.append(chunk)
                begun.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert begun.wait(60)
    seen_before = len(chunks)
    code = gateway.process.stop()
    listener.join(60)

    assert not listener.is_alive()
    assert code == 0
    assert len(chunks) > seen_before
    assert streamed_text(chunks)


def test_interrupting_it_at_a_terminal_is_leaving_too(gateway: Gateway) -> None:
    gateway.process.signal(signal.SIGINT)

    assert gateway.process.wait() == 0
    assert "Traceback" not in gateway.process.said


# Secrets


def test_no_secret_reaches_the_log(launcher: Launcher, gateway: Gateway) -> None:
    token = gateway.create_tenant()
    assert answer_of(gateway.chat(token, "a sentence nobody should log"))
    with gateway.client("tenant:acme:made-up-secret-of-a-stranger") as stranger:
        assert stranger.get("/v1/models").status_code == 401
    assert gateway.process.stop() == 0

    said = gateway.process.said
    assert token not in said
    assert token.rsplit(":", 1)[1] not in said
    assert ADMIN_KEY not in said
    assert launcher.environ["STUB_KEY"] not in said
    assert "made-up-secret" not in said
    assert "a sentence nobody should log" not in said


# Clients


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=gateway.create_tenant(), max_retries=0
    ) as client:
        yield client


def test_the_openai_sdk_gets_an_answer(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model="openclaw", messages=[{"role": "user", "content": "hello"}]
    )

    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


def test_the_openai_sdk_gets_a_stream_with_its_usage(sdk: openai.OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(
            model="stub/mock",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


def test_the_openai_sdk_lists_agents_and_models(sdk: openai.OpenAI) -> None:
    names = {model.id for model in sdk.models.list()}

    assert "openclaw" in names
    assert any(name.startswith("stub/") for name in names)


def test_the_openai_sdk_understands_the_refusals(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(
            model="nowhere/nothing", messages=[{"role": "user", "content": "hello"}]
        )
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="tenant:constructor:x").models.list()
