"""A tenant's agents: what they are called, which model they use, and their files.

An agent is an entry of ``defaults.agents`` in the tenant's overlay, on top of
what the gateway's config has for all tenants; ``main`` exists without one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import trio

from appliance.config.checking import keys_of
from appliance.config.fields import check_avatar
from appliance.config.overlay import effective
from appliance.config.schema import AgentConfig, Defaults, GatewayConfig
from appliance.model.agent_identity import AgentIdentity, parse_identity
from appliance.model.callers import Caller
from appliance.model.errors import AlreadyExists, InvalidRequest, NotFound
from appliance.model.ids import AGENT_ID, parse_agent_id
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.model.tokens import Scope
from appliance.services import workspace_files as files
from appliance.services.audit import AuditTrail
from appliance.services.tenant_config import ConfigDocument
from appliance.services.workspace_files import WorkspaceFile
from appliance.services.workspaces import workspace_of
from appliance.storage.paths import TenantRoot

_NOT_IN_AN_ID = re.compile(r"[^a-z0-9_-]+")
_LONGEST_ID = 64
_LONGEST_IDENTITY = 64 * 1024  # bytes
_PLACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}){0,7}")

Overlay = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Agent:
    """``model`` is what it answers with; None if no model is configured at all."""

    id: str
    name: str
    model: str | None
    identity: AgentIdentity

    @property
    def workspace(self) -> str:
        """Where its files are, below the tenant's own directory."""
        return workspace_of(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentChanges:
    """What to set; None leaves a thing as it is, "" takes it away."""

    name: str | None = None
    model: str | None = None
    emoji: str | None = None
    avatar: str | None = None

    def items(self) -> Mapping[str, str]:
        found = {key: getattr(self, key) for key in ("name", "model", "emoji", "avatar")}
        return {key: value for key, value in found.items() if value is not None}


class TenantWithAgents(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def root(self) -> TenantRoot: ...


class TenantConfigs(Protocol):
    """``TenantService``, as far as it is needed here."""

    async def change_config(
        self,
        caller: Caller,
        tenant_id: str,
        change: Callable[[Overlay], object],
        *,
        action: str,
        target: str,
    ) -> ConfigDocument: ...


class AgentService:
    """Changes raise ``Forbidden``, ``ConfigInvalid`` and what ``change_config`` raises besides."""

    def __init__(
        self, configs: TenantConfigs, *, gateway: Callable[[], GatewayConfig], audit: AuditTrail
    ) -> None:
        self._configs = configs
        self._gateway = gateway
        self._audit = audit

    def list(self, tenant: TenantWithAgents) -> tuple[Agent, ...]:
        """All agents, ``main`` first."""
        others = sorted(set(tenant.config.defaults.agents) - {DEFAULT_AGENT})
        return tuple(_agent(tenant.config, name) for name in (DEFAULT_AGENT, *others))

    def require(self, tenant: TenantWithAgents, agent: str) -> Agent:
        """Raises :exc:`NotFound`."""
        if not _exists(tenant.config, agent):
            raise _unknown(agent)
        return _agent(tenant.config, agent)

    async def identity(self, tenant: TenantWithAgents, agent: str) -> AgentIdentity:
        """Who ``agent`` is: the config first, then its ``IDENTITY.md``. Raises :exc:`NotFound`."""
        found = self.require(tenant, agent)
        read = partial(files.read_text, tenant.root, agent, "IDENTITY.md", limit=_LONGEST_IDENTITY)
        text = await trio.to_thread.run_sync(read)
        return found.identity.or_else(_showable(parse_identity(text)))

    # -- changes -----------------------------------------------------------

    async def create(self, tenant: TenantWithAgents, caller: Caller, wanted: AgentChanges) -> Agent:
        """Make an agent, called after its name. Raises :exc:`AlreadyExists`."""
        agent = _id_from(wanted.name or "")
        entry = {key: value for key, value in wanted.items().items() if value}

        def change(overlay: Overlay) -> Overlay:
            if _exists(effective(self._gateway(), overlay), agent):
                raise AlreadyExists(f'agent "{agent}" already exists')
            # The tenant may have taken away one of the gateway's; the new one
            # is not to have that one's instructions.
            bare = dict.fromkeys(keys_of(AgentConfig)) if agent in self._base else {}
            return self._with_agent(overlay, agent, {**bare, **entry})

        return await self._change(tenant, caller, change, "agent.create", agent)

    async def update(
        self, tenant: TenantWithAgents, caller: Caller, agent: str, wanted: AgentChanges
    ) -> Agent:
        """Raises :exc:`NotFound`."""

        def change(overlay: Overlay) -> Overlay:
            if not _exists(effective(self._gateway(), overlay), agent):
                raise _unknown(agent)
            entry = dict(self._agents(overlay).get(agent) or {})
            for key, value in wanted.items().items():
                if value:
                    entry[key] = value
                else:
                    entry.pop(key, None)
            return self._with_agent(overlay, agent, entry)

        return await self._change(tenant, caller, change, "agent.update", agent)

    async def delete(
        self, tenant: TenantWithAgents, caller: Caller, agent: str, *, delete_files: bool
    ) -> None:
        """Raises :exc:`NotFound`, and :exc:`InvalidRequest` for ``main``. Sessions stay."""
        if agent == DEFAULT_AGENT:
            raise InvalidRequest.at("agentId", f'"{DEFAULT_AGENT}" cannot be deleted')

        def change(overlay: Overlay) -> Overlay:
            if not _exists(effective(self._gateway(), overlay), agent):
                raise _unknown(agent)
            agents = dict(self._agents(overlay))
            agents.pop(agent, None)
            if agent in self._base:
                agents[agent] = None
            return self._with_agents(overlay, agents)

        await self._configs.change_config(
            caller, tenant.id, change, action="agent.delete", target=agent
        )
        if delete_files:
            await trio.to_thread.run_sync(files.remove_files, tenant.root, agent)

    # -- files -------------------------------------------------------------

    async def files(self, tenant: TenantWithAgents, agent: str) -> tuple[WorkspaceFile, ...]:
        """Raises :exc:`NotFound`."""
        self.require(tenant, agent)
        return await trio.to_thread.run_sync(files.list_files, tenant.root, agent)

    async def read_file(self, tenant: TenantWithAgents, agent: str, name: str) -> WorkspaceFile:
        """Raises :exc:`NotFound` (the agent), ``InvalidRequest`` (the name), ``PathRefused``."""
        self.require(tenant, agent)
        files.require_name(name)
        return await trio.to_thread.run_sync(files.read_file, tenant.root, agent, name)

    async def write_file(
        self,
        tenant: TenantWithAgents,
        caller: Caller,
        agent: str,
        name: str,
        content: str,
        *,
        expected: str | None = None,
    ) -> WorkspaceFile:
        """As :meth:`read_file`; ``expected`` is the digest of what is replaced."""
        caller.require_access(tenant.id, Scope.MANAGE)
        self.require(tenant, agent)
        files.require_name(name)
        write = partial(files.write_file, tenant, agent, name, content, expected=expected)
        target = f"{agent}/{name}"
        async with self._audit.action(caller, "agent.file.write", tenant=tenant.id, target=target):
            return await trio.to_thread.run_sync(write)

    # -- how ---------------------------------------------------------------

    @property
    def _base(self) -> Mapping[str, AgentConfig]:
        return self._gateway().defaults.agents

    async def _change(
        self,
        tenant: TenantWithAgents,
        caller: Caller,
        change: Callable[[Overlay], Overlay],
        action: str,
        agent: str,
    ) -> Agent:
        document = await self._configs.change_config(
            caller, tenant.id, change, action=action, target=agent
        )
        return _agent(effective(self._gateway(), document.overlay), agent)

    def _with_agent(self, overlay: Overlay, agent: str, entry: Overlay) -> Overlay:
        return self._with_agents(overlay, {**self._agents(overlay), agent: entry})

    def _with_agents(self, overlay: Overlay, agents: Overlay) -> Overlay:
        # What null took away as a whole must not come back with a part of it.
        gone = "defaults" in overlay and overlay["defaults"] is None
        defaults = dict.fromkeys(keys_of(Defaults)) if gone else overlay.get("defaults", {})
        return {**overlay, "defaults": {**defaults, "agents": agents}}

    def _agents(self, overlay: Overlay) -> Overlay:
        defaults = overlay.get("defaults", {})
        agents = None if defaults is None else defaults.get("agents", {})
        return dict.fromkeys(self._base) if agents is None else agents


def require_workspace(wanted: str | None) -> None:
    """Refuse a place of the caller's choice unless it plainly lies in the tenant's own.

    Every agent has a place of its own; clients name one because elsewhere they
    must. Raises :exc:`InvalidRequest`.
    """
    if wanted is None or wanted == "":
        return
    if _PLACE.fullmatch(wanted) is None or ".." in wanted:
        raise InvalidRequest.at(
            "workspace", "each agent has a workspace of its own here", "leave it out"
        )


def _agent(config: GatewayConfig, agent: str) -> Agent:
    found = config.defaults.agents.get(agent) or AgentConfig()
    identity = AgentIdentity(found.name, found.emoji, found.avatar, found.theme)
    return Agent(agent, found.name or agent, found.model or config.models.default, identity)


def _showable(written: AgentIdentity) -> AgentIdentity:
    """Without a picture that the config would not take either."""
    if written.avatar is None:
        return written
    try:
        check_avatar(written.avatar)
    except ValueError:
        return replace(written, avatar=None)
    return written


def _exists(config: GatewayConfig, agent: str) -> bool:
    return agent == DEFAULT_AGENT or agent in config.defaults.agents


def _unknown(agent: str) -> NotFound:
    return NotFound(f'agent "{agent[:_LONGEST_ID]}" not found')


def _id_from(name: str) -> str:
    text = _NOT_IN_AN_ID.sub("-", name.strip().lower()).strip("-_")[:_LONGEST_ID]
    if not AGENT_ID.fullmatch(text):
        raise InvalidRequest.at(
            "name", "holds no letter or digit of a-z, 0-9", "an agent's id is made from it"
        )
    if text == DEFAULT_AGENT:
        raise AlreadyExists(f'agent "{DEFAULT_AGENT}" already exists')
    return parse_agent_id(text)
