"""What a turn is asked, what is written down of it, and who is told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.config.schema import AgentConfig
from appliance.model.calls import Delta, Finished, FinishReason
from appliance.model.errors import ModelUnknown
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.usage import TokenUsage
from appliance.protocols.chat_request import ChatRequest
from appliance.services.model_calls import AwakeTenant, OpenCall
from appliance.services.turns.queue import TurnQueue
from appliance.storage.session_rows import Run, RunStatus
from appliance.storage.sessions import SessionStore

Message = dict[str, object]


class TenantWithSessions(AwakeTenant, Protocol):
    @property
    def turns(self) -> TurnQueue: ...
    async def sessions(self) -> SessionStore:
        """The tenant's session store, opened on first use."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    key: SessionKey
    chat: ChatRequest
    messages: Sequence[Message]
    keeps_history: bool  # False: the caller sent the whole conversation, nothing is remembered
    model: str | None = None  # instead of the agent's own
    source: str = "http"
    run_id: str | None = None
    meta: Mapping[str, object] | None = None  # kept with what the user said
    answers: Sequence[str] = ()  # runs whose messages waited in the inbox and are said here
    channel: str = "http"  # whom it answers, for policies
    # The run that the session must end with, or else the messages, all of the conversation,
    # are read instead of it.
    follows: str | None = None
    max_tool_calls: int | None = None  # of the agent's own tools
    field: str = "messages"  # where its caller said all this


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolActivity:
    """Something a tool did, for who watches: ``start``, ``update`` or ``result``."""

    phase: str
    call_id: str
    name: str
    arguments: Mapping[str, object] | None = None
    text: str = ""  # of the update, or of the result
    details: Mapping[str, object] = field(default_factory=dict)
    is_error: bool = False


class TurnSink(Protocol):
    async def begin(self, call: OpenCall) -> None: ...
    async def deltas(self, deltas: Sequence[Delta]) -> None: ...
    def tool(self, activity: ToolActivity) -> None:
        """Take it or leave it, at once."""

    async def finish(self, call: OpenCall, finished: Finished) -> None:
        """All is on disk. ``finished.usage`` is what the books hold."""


@dataclass(frozen=True, slots=True)
class Steering:
    """A message for a turn that is under way; ``answers`` is its run, if it gets no other turn."""

    message: Message
    answers: str | None = None


class Interlude(Protocol):
    """What may happen between two rounds of a turn."""

    def steered(self) -> Sequence[Steering]:
        """What came meanwhile and is to be heard now."""

    async def make_room(self) -> bool:
        """The model cannot read as much: shorten what was before this turn, if that helps."""


@dataclass(slots=True)
class TurnRecord:
    """How far a turn has come, for whoever writes it down.

    ``text`` is what the present round said, ``rounds`` the messages of those
    before it, ``told`` all that was shown.
    """

    run: Run | None = None
    text: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    rounds: list[Message] = field(default_factory=list)
    call: OpenCall | None = None  # the latest
    is_open: bool = False  # it is under way, and not in ``usage`` yet
    reason: FinishReason | None = None
    usage: TokenUsage | None = None  # of all rounds that are settled
    cost_nano: int = 0
    is_priced: bool = True  # every call's cost is known
    tool_calls: int = 0
    waited: float = 0.0  # seconds for models and tools; not ours to answer for
    handed_over: tuple[str, ...] = ()  # calls that the caller is to answer
    status: RunStatus = RunStatus.FAILED
    error: str = ""
    cancelled_by: Callable[[], str] = lambda: ""  # who or what, once it is cancelled
    kept: bool = False


def model_of(tenant: AwakeTenant, agent: str, wanted: str | None = None) -> str:
    """The model that answers for ``agent``: ``wanted``, its own, or the tenant's default.

    Raises :exc:`ModelUnknown` for an agent that is not configured or has no model.
    """
    model = wanted or agent_of(tenant, agent).model or tenant.config.models.default
    if model is None:
        raise ModelUnknown("no model is configured; the operator sets models.default")
    return model


def agent_of(tenant: AwakeTenant, name: str) -> AgentConfig:
    """How ``name`` is configured. Raises :exc:`ModelUnknown` for one that is not."""
    agent = tenant.config.defaults.agents.get(name)
    if agent is not None:
        return agent
    if name == DEFAULT_AGENT:
        return AgentConfig()
    raise ModelUnknown(f"there is no agent {name!r}; GET /v1/models lists those there are")
