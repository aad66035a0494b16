"""``POST /tools/invoke``: one tool, by the tenant's policy, without an agent.

In OpenClaw's form: 200 ``{ok: true, result}``, else ``{ok: false, error:
{type, message}}``. What is not allowed is answered like what does not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest, MethodNotAllowed
from appliance.model.session_keys import SessionKey
from appliance.model.tokens import Scope
from appliance.protocols.json_body import parse_object
from appliance.services.tools.invocations import Invocation, Invoked, ToolInvocations
from appliance.tenants.jobs import ClientLeft
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.bodies import ClientGone, read_body
from appliance.transports.callers import ACCEPTED_AT, read_headers
from appliance.transports.openai_api.answers import Answer
from appliance.transports.openai_api.chat import Door, Tenants
from appliance.transports.openai_api.failures import Failure

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
class ToolsRoute:
    door: Door
    tenants: Tenants
    tools: ToolInvocations

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        presented = read_headers(scope["headers"])
        server = self.door.config.server
        answer = Answer(
            send,
            receive,
            request_id=presented.request_id,
            received_at=scope[ACCEPTED_AT],
            streams=False,
            keep_alive=server.sse_keepalive,
            send_timeout=server.body_timeout,
            limits=tuple,
        )
        caller: Caller | None = None
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{PATH} answers POST", allow="POST")
            caller = self.door.admit(scope, presented)
            caller.require(Scope.CHAT)
            tenant = caller.require_tenant()
            body = await read_body(
                receive, scope["headers"], limit=LARGEST_BODY, patience=server.body_timeout
            )
            runtime = await self.tenants.runtime(tenant)
            invocation = _invocation(runtime, body, dict(scope["headers"]))
            work = partial(self.tools.invoke, runtime, caller, invocation)
            invoked = await runtime.perform(work, caller=caller, left=answer.wait_left)
            await _send(answer, invoked)
        except (ClientGone, ClientLeft):
            pass  # nobody reads the answer; the tool has ended
        except Exception as error:  # noqa: BLE001 - the edge: refuse logs what nobody foresaw
            refused = self.door.refuse(error, request_id=presented.request_id)
            await answer.fail(_in_its_form(refused))
        finally:
            self.door.note(scope, caller, answer)


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


def _in_its_form(failure: Failure) -> Failure:
    error = msgspec.json.decode(failure.body)["error"]
    members = {"type": error.get("code") or error.get("type"), "message": error.get("message")}
    body = msgspec.json.encode({"ok": False, "error": members})
    return Failure(failure.status, body, failure.headers)
