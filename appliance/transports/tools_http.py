"""``POST /tools/invoke``: one tool, by the tenant's policy, without an agent.

In OpenClaw's form: 200 ``{ok: true, result}``, else ``{ok: false, error:
{type, message}}``. What is not allowed is answered like what does not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.session_keys import SessionKey
from appliance.model.tokens import Scope
from appliance.protocols.json_body import parse_object
from appliance.services.tools.invocations import Invocation, Invoked, ToolInvocations
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.raw.answers import Answer
from appliance.transports.raw.exchange import Exchange
from appliance.transports.raw.failures import Failure

PATH = "/tools/invoke"
LARGEST_BODY = 2 * 1024 * 1024
_CHANNEL_HEADER = b"x-openclaw-message-channel"


class InvokeBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``tool`` or ``name``; ``action`` goes into the arguments of tools that have one."""

    tool: str | None = None
    name: str | None = None
    action: str | None = None
    args: dict[str, Any] | None = None
    session_key: str | None = None
    agent_id: str | None = None
    idempotency_key: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ToolsHandler:
    tools: ToolInvocations

    async def __call__(self, exchange: Exchange) -> None:
        exchange.require_method("POST")
        caller = exchange.admit(Scope.CHAT)
        body = await exchange.read(limit=LARGEST_BODY)
        runtime = await exchange.wake()
        invocation = _invocation(runtime, body, dict(exchange.scope["headers"]))
        invoked = await exchange.perform(partial(self.tools.invoke, runtime, caller, invocation))
        await _send(exchange.answer, invoked)


def _invocation(runtime: TenantRuntime, body: bytes, headers: Mapping[bytes, bytes]) -> Invocation:
    parse_object(body, limit_bytes=LARGEST_BODY)  # refuses what is no object, or is one twice
    try:
        asked = msgspec.json.decode(body, type=InvokeBody)
    except msgspec.ValidationError as problem:
        raise InvalidRequest(str(problem)) from None
    name = asked.tool or asked.name
    if not name:
        raise InvalidRequest.at("tool", "is missing", "name a tool; tools.catalog lists them")
    arguments = dict(asked.args or {})
    if asked.action is not None:
        arguments.setdefault("action", asked.action)
    if asked.agent_id is None:
        key = SessionKey.parse(asked.session_key or "main", tenant=runtime.id)
    else:
        key = SessionKey.parse(
            asked.session_key or "main", tenant=runtime.id, agent=asked.agent_id.lower()
        )
    return Invocation(
        key=key,
        name=name,
        arguments=arguments,
        idempotency_key=asked.idempotency_key,
        over_http=True,
        channel=headers.get(_CHANNEL_HEADER, b"http").decode("latin-1")[:64],
    )


async def _send(answer: Answer, invoked: Invoked) -> None:
    if not invoked.ok:
        error = {"type": "tool_error", "message": invoked.text}
        body = msgspec.json.encode({"ok": False, "error": error})
        await answer.fail(Failure(400, body, ()))
        return
    content = [{"type": "text", "text": invoked.text}, *invoked.parts]
    result = {"content": content, "details": invoked.details}
    await answer.whole(msgspec.json.encode({"ok": True, "result": result}))


def tools_failure(error: BaseException, request_id: str) -> Failure:
    """OpenClaw's form of it."""
    failure = failure_of(error, request_id)
    members = msgspec.json.decode(failure.body)["error"]
    shown = {"type": members.get("code") or members.get("type"), "message": members["message"]}
    return Failure(
        failure.status, msgspec.json.encode({"ok": False, "error": shown}), failure.headers
    )
