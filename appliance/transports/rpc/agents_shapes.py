"""What ``agents.*`` take and return."""

from typing import Annotated, Self

from msgspec import UNSET, Meta, UnsetType

from appliance.model.agent_identity import AgentIdentity
from appliance.model.periods import to_ns
from appliance.services.agents import Agent
from appliance.services.workspace_files import LARGEST, WorkspaceFile
from appliance.transports.rpc.fields import AgentIdText, FileNameText
from appliance.transports.rpc.method import Params, Result

_MILLISECOND = 1_000_000  # ns

Name = Annotated[str, Meta(min_length=1, max_length=200)]
ModelText = Annotated[str, Meta(min_length=1, max_length=256)]
Workspace = Annotated[
    str, Meta(max_length=1024, description="Refused unless it lies in the agent's own place.")
]
Emoji = Annotated[str, Meta(max_length=32)]
Avatar = Annotated[str, Meta(max_length=65_536)]
Digest = Annotated[str, Meta(min_length=64, max_length=64, pattern="^[0-9a-fA-F]*$")]


class AgentsCreateParams(Params, frozen=True, kw_only=True):
    name: Name
    workspace: Workspace | None = None
    model: ModelText | None = None
    emoji: Emoji | None = None
    avatar: Avatar | None = None


class AgentsUpdateParams(Params, frozen=True, kw_only=True):
    """What is not named stays; an empty text, or null for the model, takes a thing away."""

    agent_id: AgentIdText
    name: Name | None = None
    workspace: Workspace | None = None
    model: ModelText | UnsetType | None = UNSET
    emoji: Emoji | None = None
    avatar: Avatar | None = None
    agent_runtime: Annotated[str, Meta(max_length=128)] | None = None


class AgentsDeleteParams(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText
    delete_files: Annotated[bool, Meta(description="Its workspace goes too.")] = True


class AgentsFilesListParams(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText


class AgentsFilesGetParams(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText
    name: FileNameText


class AgentsFilesSetParams(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText
    name: FileNameText
    content: Annotated[str, Meta(max_length=LARGEST)]
    expected_hash: Annotated[Digest, Meta(description="Of what it replaces.")] | None = None


class IdentityView(Result, frozen=True, kw_only=True):
    name: str | None = None
    theme: str | None = None
    emoji: str | None = None
    avatar: str | None = None

    @classmethod
    def of(cls, identity: AgentIdentity) -> Self:
        return cls(
            name=identity.name,
            theme=identity.theme,
            emoji=identity.emoji,
            avatar=identity.avatar,
        )


class AgentModel(Result, frozen=True, kw_only=True):
    primary: str


class AgentSummary(Result, frozen=True, kw_only=True):
    id: str
    name: str
    identity: IdentityView
    workspace: Annotated[str, Meta(description="Below the tenant's own directory.")]
    model: AgentModel | None = None

    @classmethod
    def of(cls, agent: Agent) -> Self:
        return cls(
            id=agent.id,
            name=agent.name,
            identity=IdentityView.of(agent.identity),
            workspace=agent.workspace,
            model=None if agent.model is None else AgentModel(primary=agent.model),
        )


class AgentsListResult(Result, frozen=True, kw_only=True):
    default_id: str
    main_key: str
    scope: str
    ownership: str
    selection_required: bool
    agents: list[AgentSummary]


class AgentsCreateResult(Result, frozen=True, kw_only=True):
    ok: bool
    agent_id: str
    name: str
    workspace: str
    model: str | None = None


class AgentsUpdateResult(Result, frozen=True, kw_only=True):
    ok: bool
    agent_id: str


class AgentsDeleteResult(Result, frozen=True, kw_only=True):
    ok: bool
    agent_id: str
    removed_bindings: int


class FileView(Result, frozen=True, kw_only=True):
    name: str
    path: Annotated[str, Meta(description="Below the agent's workspace.")]
    missing: bool
    size: int | None = None
    updated_at_ms: int | None = None
    hash: str | None = None
    content: str | None = None

    @classmethod
    def of(cls, file: WorkspaceFile) -> Self:
        updated = file.updated_at
        return cls(
            name=file.name,
            path=file.name,
            missing=file.missing,
            size=file.size,
            updated_at_ms=None if updated is None else to_ns(updated) // _MILLISECOND,
            hash=file.digest,
            content=file.content,
        )


class AgentsFilesListResult(Result, frozen=True, kw_only=True):
    agent_id: str
    workspace: str
    files: list[FileView]


class AgentsFilesGetResult(Result, frozen=True, kw_only=True):
    agent_id: str
    workspace: str
    file: FileView


class AgentsFilesSetResult(Result, frozen=True, kw_only=True):
    ok: bool
    agent_id: str
    workspace: str
    file: FileView
