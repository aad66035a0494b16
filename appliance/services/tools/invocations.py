"""Tools as a client calls them itself: listed, and run one at a time, by the same policy."""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest, NotFound
from appliance.model.session_keys import SessionKey
from appliance.model.tokens import Scope
from appliance.model.tool_policy import PROFILES, matches
from appliance.services.subagents import is_tainted
from appliance.services.tools.base import Tool, ToolCall, ToolResult, ToolTenant
from appliance.services.tools.repeats import Repeats
from appliance.services.tools.runner import Gate, RequestedCall, StepState, ToolRunner
from appliance.services.tools.toolbox import Occasion, Offer, Toolbox, occasion_of, schema_of
from appliance.services.turns.requests import ToolActivity

_SPACE = "tools"  # of requests that may be sent again


class ToolUnknown(NotFound):
    """There is no such tool, or none that may be used here: nobody learns which."""

    code = "tool-unknown"
    title = "There is no such tool"


@dataclass(frozen=True, slots=True)
class ListedTool:
    tool: Tool[Any]
    profiles: tuple[str, ...]  # those that have it

    @property
    def schema(self) -> Mapping[str, Any]:
        return schema_of(self.tool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """``key`` is the session it acts in; what is kept of it is only the audit of its tool."""

    key: SessionKey
    name: str
    arguments: Mapping[str, Any]
    idempotency_key: str | None = None
    over_http: bool = False
    channel: str = "http"


class Invoked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What became of it; also kept for whoever sends it again."""

    ok: bool
    text: str = ""
    parts: tuple[dict[str, Any], ...] = ()
    details: dict[str, Any] = {}


class ToolInvocations:
    def __init__(
        self, toolbox: Toolbox, *, gate: Gate | None, clock: Callable[[], datetime]
    ) -> None:
        self._toolbox = toolbox
        self._gate = gate
        self._clock = clock

    def catalogue(self) -> Sequence[ListedTool]:
        """Every tool that is the same for all, whoever may use it."""
        return [_listed(tool) for tool in self._toolbox.builtin]

    async def effective(self, tenant: ToolTenant, key: SessionKey) -> Sequence[ListedTool]:
        """What the agent may use in a session. Raises :exc:`ModelUnknown`."""
        store = await tenant.sessions()
        offer = await self._toolbox.offer(
            tenant, occasion_of(key, store.find(key), channel="webchat")
        )
        return [_listed(tool) for tool in offer.tools.values()]

    async def invoke(self, tenant: ToolTenant, caller: Caller, invocation: Invocation) -> Invoked:
        """Run one tool.

        Raises :exc:`ToolUnknown` for one that policy denies or that there is
        not, and :exc:`InvalidRequest` for an idempotency key that was used for
        something else or whose first sending never ended. Sent again with the
        same key it is answered as before.
        """
        store = await tenant.sessions()
        session = store.find(invocation.key)
        occasion = occasion_of(invocation.key, session, channel=invocation.channel)
        # Files tell agents what to do and commands are a terminal: a token that is
        # for chatting gets at neither without a model in between.
        only_chats = not caller.may(Scope.MANAGE)
        occasion = replace(occasion, over_http=invocation.over_http, only_chats=only_chats)
        offer = await self._offer(tenant, occasion)
        if invocation.name not in offer.tools:
            raise ToolUnknown(
                f"there is no tool {invocation.name[:80]!r} here; see tools.effective"
            )
        again = invocation.idempotency_key
        arguments = msgspec.json.encode(invocation.arguments, order="sorted")
        call_id = f"call_{secrets.token_hex(12)}"
        if again is not None:
            said = f"{invocation.key.text}\0{invocation.name}\0".encode() + arguments
            print_ = hashlib.sha256(said).digest()
            seen = store.requests.begin(
                _SPACE, again, fingerprint=print_, run_id=call_id, now=self._clock()
            )
            if seen is not None:
                return _replayed(seen.fingerprint == print_, seen.outcome)
        template = ToolCall(
            tenant=tenant,
            caller=caller,
            key=invocation.key,
            store=store,
            call_id=call_id,
            name=invocation.name,
            depth=occasion.depth,
            channel=invocation.channel,
        )
        settings = tenant.config.defaults.tools
        state = StepState(
            Repeats(warn_at=10**9, end_at=10**9),
            tainted=session is not None and is_tainted(session),
        )
        runner = ToolRunner(offer, template, state, settings, gate=self._gate, tell=_ignored)
        asked = RequestedCall(call_id, invocation.name, arguments.decode())
        finished = False
        try:
            (result,) = await runner.run([asked])
            finished = True
        finally:
            if again is not None and not finished:
                store.requests.forget(_SPACE, again)
        invoked = _invoked(result)
        if again is not None:
            store.requests.finish(_SPACE, again, msgspec.json.encode(invoked), now=self._clock())
        return invoked

    async def _offer(self, tenant: ToolTenant, occasion: Occasion) -> Offer:
        return await self._toolbox.offer(tenant, occasion)


def _listed(tool: Tool[Any]) -> ListedTool:
    having = [name for name, held in PROFILES.items() if matches(held, tool.name, tool.group)]
    return ListedTool(tool, tuple(having))


def _invoked(result: ToolResult) -> Invoked:
    return Invoked(
        ok=not result.is_error,
        text=result.text,
        parts=tuple(dict(part) for part in result.parts),
        details=dict(result.details),
    )


def _replayed(is_same: bool, outcome: bytes | None) -> Invoked:  # noqa: FBT001 - of one caller
    if not is_same:
        raise InvalidRequest.at("idempotencyKey", "was used for another call", "send a new one")
    if outcome is None:
        raise InvalidRequest.at(
            "idempotencyKey", "its first call has not ended", "wait, or send a new one"
        )
    return msgspec.json.decode(outcome, type=Invoked)


def _ignored(activity: ToolActivity) -> None:
    del activity
