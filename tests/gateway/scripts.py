"""What the model that does as it is told is told; see ``tests.stub_provider.acting``."""

import json
from typing import Any

import httpx

from tests.gateway.conftest import Gateway, Tenant, said

ACTS = {"models": {"default": "stub/acts"}}
SESSION = "x-openclaw-session-key"


def steps(*calls: str) -> str:
    """One after the other."""
    return "\n\n".join(calls)


def call(name: str, **arguments: Any) -> str:
    return f"call {name} {json.dumps(arguments)}"


async def ask(gateway: Gateway, tenant: Tenant, script: str, **more: Any) -> httpx.Response:
    request = said(script, model="openclaw", **more)
    return await gateway.chat(tenant, request, **{SESSION: "work"})


async def told(gateway: Gateway, tenant: Tenant, *calls: str) -> str:
    """What the tools answered, all together."""
    answer = await ask(gateway, tenant, steps(*calls))
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text
