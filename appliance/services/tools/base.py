"""What a tool is to the agent loop, and what a call of one is given."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from appliance.model.callers import Caller
from appliance.model.chat_attachments import Part
from appliance.model.session_keys import SessionKey
from appliance.services.chat_tasks import ChattingTenant
from appliance.storage.sessions import SessionStore


class ToolParams(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    """The parameters of a tool, as the model writes them."""


P = TypeVar("P", bound=ToolParams)


class ToolTenant(ChattingTenant, Protocol):
    """A running tenant whose agents use tools."""


class Effect(StrEnum):
    """What a call can do, for policies that look at that."""

    READ = "read"  # looks at what belongs to the tenant
    FETCH = "fetch"  # brings in what strangers wrote
    WRITE = "write"  # changes the workspace or the tenant's own things
    EXECUTE = "exec"  # runs a program
    SEND = "send"  # tells somebody


class Source(StrEnum):
    """Where untrusted text came from."""

    WEB = "web"
    FILE = "file"
    MAIL = "mail"
    MESSAGE = "message"
    COMMAND = "command"
    MCP = "mcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What the model is told. ``details`` are for people and programs that watch."""

    text: str = ""
    parts: Sequence[Part] = ()  # pictures, in the form of ``model.chat_attachments``
    is_error: bool = False
    details: Mapping[str, object] = field(default_factory=dict)
    untrusted: Source | None = None  # strangers may have written it


@dataclass(slots=True, kw_only=True)
class ToolCall:
    """One call and what it runs under. Made by the agent loop, or by ``tools.invoke``."""

    tenant: ToolTenant
    caller: Caller
    key: SessionKey
    store: SessionStore
    call_id: str
    name: str
    run_id: str = ""  # "" for a call that belongs to no run
    depth: int = 0  # of sub-agents; 0 is what a person talks to
    channel: str = ""  # whom the run answers: "webchat", "http", …
    tainted: bool = False  # the run has seen untrusted text
    model_reads_pictures: bool = True
    # Partial output for whoever watches, at most a few thousand characters at a time.
    update: Callable[[str], None] = lambda _: None


class ToolFailed(Exception):
    """The tool could not do it; the model is told why and goes on. The text is safe to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[P]):
    """``call`` raises :exc:`ToolFailed` or an ``ApplianceError`` for what the model is told."""

    name: str  # [a-z0-9_], at most 64; MCP tools are ``<server>__<tool>``
    group: str  # of ``tools.catalog``: fs, runtime, web, sessions, messaging, automation, …
    label: str  # for people: "Run a command"
    description: str  # for the model
    params: type[P]
    call: Callable[[ToolCall, P], Awaitable[ToolResult]]
    effect: Effect = Effect.READ
    # Two calls of one step may run at once; else they run in the order they were made.
    is_parallel: bool = True
    # The parameters' JSON Schema where no struct can say it (MCP); ``params`` is AnyParams then.
    schema: Mapping[str, Any] | None = None


class AnyParams(ToolParams, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Parameters that somebody else checks: read ``arguments`` instead."""

    arguments: dict[str, Any] = {}


class ToolSource(Protocol):
    """Tools that are not the same for all: a tenant's MCP servers, its nodes."""

    async def tools(self, tenant: ToolTenant, agent: str, /) -> Sequence[Tool[Any]]:
        """Those there are now; waits for a slow one only a bounded time. Raises nothing."""
