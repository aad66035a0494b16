"""Methods whose engines come with later releases.

They are known here so that scopes and parameters are settled: until there is a
handler they answer ``UNAVAILABLE`` to whoever may call them, and are not
advertised. A method leaves this module when its engine arrives.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.fields import (
    AgentIdText,
    FileNameText,
    RunIdText,
    SessionKeyText,
    TenantIdText,
)
from appliance.transports.rpc.later_cron import CRON
from appliance.transports.rpc.later_exec import APPROVALS
from appliance.transports.rpc.method import Method, NoParams, Params, Who

_READ, _WRITE = OperatorScope.READ, OperatorScope.WRITE
_ADMIN, _PAIRING = OperatorScope.ADMIN, OperatorScope.PAIRING

Text = Annotated[str, Meta(max_length=100_000)]
Word = Annotated[str, Meta(min_length=1, max_length=256)]
Milliseconds = Annotated[int, Meta(ge=1)]


class OfAgent(Params, frozen=True, kw_only=True):
    agent_id: AgentIdText | None = None


class OfSession(OfAgent, frozen=True, kw_only=True):
    session_key: SessionKeyText | None = None


class Anything(Params, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Settled when the engine arrives."""


# -- backups -----------------------------------------------------------------


class BackupParams(Params, frozen=True, kw_only=True):
    tenant_id: TenantIdText


class RestoreParams(BackupParams, frozen=True, kw_only=True):
    key: Annotated[str, Meta(min_length=1, max_length=1024)]


# -- agents, tools, skills, memory -------------------------------------------


class SkillsSearchParams(Params, frozen=True, kw_only=True):
    query: Annotated[str, Meta(max_length=1000)] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] | None = None


class SkillsDetailParams(Params, frozen=True, kw_only=True):
    slug: Word


class SkillsInstallParams(OfAgent, frozen=True, kw_only=True):
    name: Word | None = None
    install_id: Word | None = None
    source: Literal["clawhub", "upload"] | None = None
    slug: Word | None = None
    version: Word | None = None
    upload_id: Word | None = None
    sha256: Annotated[str, Meta(max_length=64)] | None = None
    force: bool = False
    dangerously_force_unsafe_install: bool = False
    timeout_ms: Annotated[int, Meta(ge=1000)] | None = None


class SkillsUpdateParams(OfAgent, frozen=True, kw_only=True):
    skill_key: Word | None = None
    enabled: bool | None = None
    api_key: Annotated[str, Meta(max_length=4096)] | None = None
    env: dict[str, str] | None = None
    source: Literal["clawhub"] | None = None
    slug: Word | None = None
    all: bool = False
    force: bool = False


class MemorySearchParams(OfSession, frozen=True, kw_only=True):
    query: Annotated[str, Meta(min_length=1, max_length=4096)]
    max_results: Annotated[int, Meta(ge=1, le=100)] | None = None
    min_score: float | None = None


# -- channels ----------------------------------------------------------------


class ChannelParams(Params, frozen=True, kw_only=True):
    channel: Word
    account_id: Word | None = None


class ChannelsPairingListParams(Params, frozen=True, kw_only=True):
    channel: Word | None = None
    account_id: Word | None = None


class ChannelsPairingParams(Params, frozen=True, kw_only=True):
    channel: Word
    account_id: Word
    request_id: Word
    notify: bool | None = None
    bootstrap_command_owner: bool | None = None


class WebLoginStartParams(Params, frozen=True, kw_only=True):
    force: bool = False
    timeout_ms: Annotated[int, Meta(ge=0)] | None = None
    verbose: bool = False
    account_id: Word | None = None


class WebLoginWaitParams(Params, frozen=True, kw_only=True):
    timeout_ms: Annotated[int, Meta(ge=0)] | None = None
    account_id: Word | None = None
    current_qr_data_url: Annotated[str, Meta(max_length=16_384)] | None = None


# -- speech ------------------------------------------------------------------


class TtsConvertParams(Params, frozen=True, kw_only=True):
    text: Text
    channel: Word | None = None


class TtsSpeakParams(Params, frozen=True, kw_only=True):
    text: Text


class TtsSetProviderParams(Params, frozen=True, kw_only=True):
    provider: Word


class TtsSetPersonaParams(Params, frozen=True, kw_only=True):
    persona: Word | None = None


class TalkModeParams(Params, frozen=True, kw_only=True):
    enabled: bool
    phase: Word | None = None


class TalkConfigParams(Params, frozen=True, kw_only=True):
    include_secrets: bool = False


# -- wizards, updates --------------------------------------------------------


class WizardStartParams(Params, frozen=True, kw_only=True):
    mode: Literal["local", "remote"] | None = None
    workspace: Annotated[str, Meta(max_length=4096)] | None = None
    install_daemon: bool | None = None
    flow: Literal["setup", "channels"] | None = None
    channel: Word | None = None


class WizardAnswer(Params, frozen=True, kw_only=True):
    step_id: Word
    value: Any = None


class WizardParams(Params, frozen=True, kw_only=True):
    session_id: Word  # of the wizard, no conversation


class WizardNextParams(WizardParams, frozen=True, kw_only=True):
    answer: WizardAnswer | None = None


class UpdateStatusParams(Params, frozen=True, kw_only=True):
    refresh_checkout: bool = False


# -- tasks, artifacts --------------------------------------------------------


class TasksListParams(OfSession, frozen=True, kw_only=True):
    status: str | list[str] | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] | None = None
    cursor: Word | None = None


class TaskParams(Params, frozen=True, kw_only=True):
    task_id: Word


class TasksCancelParams(TaskParams, frozen=True, kw_only=True):
    reason: Annotated[str, Meta(max_length=1000)] | None = None


class ArtifactsListParams(OfSession, frozen=True, kw_only=True):
    run_id: RunIdText | None = None
    task_id: Word | None = None


class ArtifactParams(ArtifactsListParams, frozen=True, kw_only=True):
    artifact_id: FileNameText


Entry = tuple[str, OperatorScope, type[Params], str]


def _later(needs: Scope, *entries: Entry, who: Who = Who.TENANT) -> Iterable[Method]:
    for name, scope, params, summary in entries:
        yield Method(name=name, summary=summary, scope=scope, needs=needs, params=params, who=who)


METHODS: tuple[Method, ...] = (
    *_later(
        Scope.READ,
        ("artifacts.list", _READ, ArtifactsListParams, "List what agents made"),
        ("artifacts.get", _READ, ArtifactParams, "Describe something an agent made"),
        ("artifacts.download", _READ, ArtifactParams, "Fetch something an agent made"),
        ("doctor.memory.status", _READ, OfAgent, "Check the memory index"),
        ("browser.request", _WRITE, Anything, "Use the agent's browser"),
        ("diagnostics.stability", _READ, Anything, "List what went wrong lately"),
        ("hooks.status", _READ, OfAgent, "Show the hooks"),
        ("memory.search", _READ, MemorySearchParams, "Search the memory"),
        ("skills.status", _READ, OfSession, "List the skills"),
        ("skills.search", _READ, SkillsSearchParams, "Search for skills"),
        ("skills.detail", _READ, SkillsDetailParams, "Describe a skill"),
        ("talk.config", _READ, TalkConfigParams, "Show the settings of talk mode"),
        ("tasks.list", _READ, TasksListParams, "List background tasks"),
        ("tasks.get", _READ, TaskParams, "Show a background task"),
        ("tenants.backups.list", _READ, BackupParams, "List the backups of a tenant"),
        ("tts.status", _READ, NoParams, "Show the settings of speech"),
        ("tts.providers", _READ, NoParams, "List who can speak"),
        ("tts.personas", _READ, NoParams, "List the voices"),
    ),
    *_later(
        Scope.CHAT,
        ("tasks.cancel", _WRITE, TasksCancelParams, "Stop a background task"),
        ("talk.mode", _WRITE, TalkModeParams, "Turn talk mode on or off"),
        ("tts.convert", _WRITE, TtsConvertParams, "Turn text into a sound file"),
        ("tts.speak", _WRITE, TtsSpeakParams, "Turn text into sound"),
    ),
    *_later(
        Scope.MANAGE,
        ("channels.start", _ADMIN, ChannelParams, "Start a channel"),
        ("channels.stop", _ADMIN, ChannelParams, "Stop a channel"),
        ("channels.logout", _ADMIN, ChannelParams, "Log a channel out"),
        ("channels.pairing.list", _PAIRING, ChannelsPairingListParams, "List who asked to write"),
        ("channels.pairing.approve", _PAIRING, ChannelsPairingParams, "Let somebody write"),
        ("channels.pairing.dismiss", _PAIRING, ChannelsPairingParams, "Refuse somebody"),
        ("config.openFile", _ADMIN, NoParams, "Open the settings in an editor"),
        ("skills.install", _ADMIN, SkillsInstallParams, "Install a skill"),
        ("skills.update", _ADMIN, SkillsUpdateParams, "Change a skill's settings"),
        ("tenants.backup", _ADMIN, BackupParams, "Back a tenant up"),
        ("tenants.restore", _ADMIN, RestoreParams, "Restore a tenant from a backup"),
        ("tts.enable", _WRITE, NoParams, "Turn speech on"),
        ("tts.disable", _WRITE, NoParams, "Turn speech off"),
        ("tts.setProvider", _WRITE, TtsSetProviderParams, "Choose who speaks"),
        ("tts.setPersona", _WRITE, TtsSetPersonaParams, "Choose a voice"),
        ("web.login.start", _ADMIN, WebLoginStartParams, "Begin to log a channel in"),
        ("web.login.wait", _ADMIN, WebLoginWaitParams, "Wait until a channel is logged in"),
        ("wizard.start", _ADMIN, WizardStartParams, "Begin a guided set-up"),
        ("wizard.next", _ADMIN, WizardNextParams, "Answer a step of it"),
        ("wizard.cancel", _ADMIN, WizardParams, "Give it up"),
        ("wizard.status", _ADMIN, WizardParams, "Tell how far it is"),
    ),
    *_later(
        Scope.FULL,
        ("tenants.backups.delete", _ADMIN, RestoreParams, "Remove a backup"),
        ("update.status", _ADMIN, UpdateStatusParams, "Tell whether there is a newer release"),
        ("update.run", _ADMIN, Anything, "Install a newer release"),
        ("secrets.reload", _ADMIN, NoParams, "Read the secrets again"),
        who=Who.ADMIN,
    ),
    Method(
        name="skills.bins",
        summary="List the programs that skills need",
        scope=None,
        needs=Scope.READ,
        who=Who.NODE,
    ),
    *CRON,
    *APPROVALS,
)
