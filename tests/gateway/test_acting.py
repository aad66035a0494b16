"""An agent that acts, through the whole gateway: real sandbox, real workspace, a scripted model."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.gateway.conftest import Gateway, Tenant, said
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP

pytestmark = pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)

ACTS = {"models": {"default": "stub/acts"}}
SESSION = "x-openclaw-session-key"
LONG = f"42{os.getpid()}"  # seconds that no process of anybody else sleeps


def calls(*steps: str) -> str:
    return "\n\n".join(steps)


def call(name: str, **arguments: Any) -> str:
    return f"call {name} {json.dumps(arguments)}"


async def ask(gateway: Gateway, tenant: Tenant, script: str, **more: Any) -> httpx.Response:
    request = said(script, model="openclaw", **more)
    return await gateway.chat(tenant, request, **{SESSION: "work"})


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


@pytest.fixture
async def acme(gateway: Gateway) -> Tenant:
    await gateway.sandbox_proved()
    return await gateway.create("acme", config=ACTS)


@pytest.mark.parametrize("model", ["stub/acts", "claude/acts"])
async def test_an_agent_runs_a_command_and_tells_what_it_said(
    gateway: Gateway, acme: Tenant, model: str
) -> None:
    await gateway.configure(acme, {"models": {"default": model}})

    answer = await ask(gateway, acme, call("exec", command="echo $((6*7)); id -u; pwd"))

    assert "42\n1000\n/workspace" in text_of(answer)


async def test_files_are_there_for_tools_and_commands_alike(gateway: Gateway, acme: Tenant) -> None:
    script = calls(
        call("write", path="notes/a.txt", content="one\ntwo\n"),
        call("exec", command="wc -l notes/a.txt; echo three >> notes/a.txt"),
        call("read", path="notes/a.txt"),
        call("grep", pattern="thr.e"),
    )

    text = text_of(await ask(gateway, acme, script))

    assert "2 notes/a.txt" in text
    assert "one\ntwo\nthree" in text
    assert "notes/a.txt:3" in text


async def test_tenants_do_not_see_each_others_files(gateway: Gateway, acme: Tenant) -> None:
    other = await gateway.create("other", config=ACTS)
    await ask(gateway, acme, call("write", path="secret.txt", content="acme's"))

    text = text_of(await ask(gateway, other, call("exec", command="ls -A; cat secret.txt; ls /")))

    assert "acme" not in text
    assert "No such file" in text


async def test_a_tool_is_invoked_over_http(gateway: Gateway, acme: Tenant) -> None:
    headers = gateway.headers(acme.token)
    listed = await gateway.http.post("/tools/invoke", json={"tool": "agents_list"}, headers=headers)
    refused = await gateway.http.post(
        "/tools/invoke", json={"tool": "exec", "args": {"command": "id"}}, headers=headers
    )
    unknown = await gateway.http.post("/tools/invoke", json={"tool": "nope"}, headers=headers)
    empty = await gateway.http.post("/tools/invoke", json={}, headers=headers)

    assert listed.json()["ok"] is True
    assert "pirate" in listed.json()["result"]["content"][0]["text"]
    assert refused.status_code == unknown.status_code == 404
    assert refused.json()["error"]["type"] == unknown.json()["error"]["type"]
    assert empty.status_code == 400
    assert empty.json()["ok"] is False


async def test_a_client_that_leaves_ends_what_its_tools_run(gateway: Gateway, acme: Tenant) -> None:
    script = call("exec", command=f"exec sleep {LONG}", yieldMs=600000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, gateway, acme, script)
        with trio.fail_after(60):
            while sleeping() != 1:  # noqa: ASYNC110 - another process begins it
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()

    with trio.fail_after(60):
        while sleeping():  # noqa: ASYNC110 - so does the kernel
            await trio.sleep(0.05)


def sleeping() -> int:
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += (entry / "cmdline").read_bytes() == f"sleep\0{LONG}\0".encode()
            except OSError:
                continue
    return found


async def test_a_callers_tool_comes_back_and_the_agents_part_is_not_repeated(
    gateway: Gateway, acme: Tenant
) -> None:
    weather = {"type": "function", "function": {"name": "weather"}}
    script = calls(call("exec", command="echo once >> log; cat log"), call("weather", city="Rome"))
    first = said(script, model="openclaw", tools=[weather])

    paused = (await gateway.chat(acme, first)).json()["choices"][0]
    assert paused["finish_reason"] == "tool_calls"
    (asked,) = paused["message"]["tool_calls"]
    assert asked["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
    result = {"role": "tool", "tool_call_id": asked["id"], "content": "sunny"}
    again = {**first, "messages": [*first["messages"], paused["message"], result]}
    text = text_of(await gateway.chat(acme, again))

    assert "sunny" in text
    work = gateway.state_dir / "tenants" / "acme" / "workspace"
    assert (work / "log").read_text() == "once\n"


async def test_a_paused_turn_is_only_for_whom_it_paused(gateway: Gateway, acme: Tenant) -> None:
    answer = await gateway.http.post(
        "/v1/tenants/acme/tokens", json={"scopes": ["chat"]}, headers=gateway.headers(acme.token)
    )
    bob = Tenant("acme", answer.json()["token"])
    weather = {"type": "function", "function": {"name": "weather"}}
    script = calls(call("exec", command="echo $((6*7))-secret"), call("weather", city="Rome"))
    first = said(script, model="openclaw", tools=[weather])
    paused = (await gateway.chat(acme, first)).json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": paused["tool_calls"][0]["id"], "content": "sunny"}
    again = {**first, "messages": [*first["messages"], paused, result]}
    elsewhere = {**again, "messages": [*said("call none {}")["messages"], paused, result]}

    assert "42-secret" not in (await gateway.chat(bob, again)).text
    assert "42-secret" not in (await gateway.chat(acme, elsewhere)).text
    assert "42-secret" in text_of(await gateway.chat(acme, again))
