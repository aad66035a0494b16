"""``agents.*``: a tenant's agents and the files that make them what they are."""

from typing import Any

from msgspec import UNSET

from appliance.model.errors import InvalidRequest
from appliance.model.operator_scopes import OperatorScope
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.model.tokens import Scope
from appliance.services.agents import AgentChanges, require_workspace
from appliance.services.workspaces import workspace_of
from appliance.transports.rpc.agents_shapes import (
    AgentsCreateParams,
    AgentsCreateResult,
    AgentsDeleteParams,
    AgentsDeleteResult,
    AgentsFilesGetParams,
    AgentsFilesGetResult,
    AgentsFilesListParams,
    AgentsFilesListResult,
    AgentsFilesSetParams,
    AgentsFilesSetResult,
    AgentsListResult,
    AgentSummary,
    AgentsUpdateParams,
    AgentsUpdateResult,
    FileView,
)
from appliance.transports.rpc.config import announce
from appliance.transports.rpc.method import Method, MethodCall, NoParams
from appliance.transports.rpc.models import require_model


async def list_all(call: MethodCall[NoParams]) -> AgentsListResult:
    tenant = call.awake
    session = tenant.config.defaults.session
    return AgentsListResult(
        default_id=DEFAULT_AGENT,
        main_key=session.main_key,
        scope=session.scope,
        ownership="sole",
        selection_required=False,
        agents=[AgentSummary.of(agent) for agent in call.services.agents.list(tenant)],
    )


async def create(call: MethodCall[AgentsCreateParams]) -> AgentsCreateResult:
    params = call.params
    require_workspace(params.workspace)
    require_model(call, params.model)
    wanted = AgentChanges(
        name=params.name, model=params.model, emoji=params.emoji, avatar=params.avatar
    )
    agent = await call.services.agents.create(call.awake, call.caller, wanted)
    await _changed(call)
    return AgentsCreateResult(
        ok=True, agent_id=agent.id, name=agent.name, workspace=agent.workspace, model=params.model
    )


async def update(call: MethodCall[AgentsUpdateParams]) -> AgentsUpdateResult:
    params = call.params
    require_workspace(params.workspace)
    if params.agent_runtime is not None:
        raise InvalidRequest.at("agentRuntime", "there is one way to run an agent", "leave it out")
    model = None if params.model is UNSET else params.model or ""
    require_model(call, model)
    wanted = AgentChanges(name=params.name, model=model, emoji=params.emoji, avatar=params.avatar)
    agent = await call.services.agents.update(call.awake, call.caller, params.agent_id, wanted)
    await _changed(call)
    return AgentsUpdateResult(ok=True, agent_id=agent.id)


async def delete(call: MethodCall[AgentsDeleteParams]) -> AgentsDeleteResult:
    params = call.params
    await call.services.agents.delete(
        call.awake, call.caller, params.agent_id, delete_files=params.delete_files
    )
    await _changed(call)
    return AgentsDeleteResult(ok=True, agent_id=params.agent_id, removed_bindings=0)


async def list_files(call: MethodCall[AgentsFilesListParams]) -> AgentsFilesListResult:
    agent = call.params.agent_id
    files = await call.services.agents.files(call.awake, agent)
    return AgentsFilesListResult(
        agent_id=agent, workspace=workspace_of(agent), files=[FileView.of(file) for file in files]
    )


async def get_file(call: MethodCall[AgentsFilesGetParams]) -> AgentsFilesGetResult:
    agent = call.params.agent_id
    file = await call.services.agents.read_file(call.awake, agent, call.params.name)
    return AgentsFilesGetResult(
        agent_id=agent, workspace=workspace_of(agent), file=FileView.of(file)
    )


async def set_file(call: MethodCall[AgentsFilesSetParams]) -> AgentsFilesSetResult:
    params = call.params
    file = await call.services.agents.write_file(
        call.awake,
        call.caller,
        params.agent_id,
        params.name,
        params.content,
        expected=params.expected_hash,
    )
    return AgentsFilesSetResult(
        ok=True,
        agent_id=params.agent_id,
        workspace=workspace_of(params.agent_id),
        file=FileView.of(file),
    )


async def _changed(call: MethodCall[Any]) -> None:
    version = await call.services.tenants.config_version(call.caller, call.awake.id)
    announce(call, version)


METHODS: tuple[Method, ...] = (
    Method(
        name="agents.list",
        summary="List the agents",
        scope=OperatorScope.READ,
        needs=Scope.CHAT,
        result=AgentsListResult,
        handler=list_all,
    ),
    Method(
        name="agents.create",
        summary="Make an agent, called after its name",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=AgentsCreateParams,
        result=AgentsCreateResult,
        handler=create,
        audited="agent.create",
    ),
    Method(
        name="agents.update",
        summary="Change an agent",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=AgentsUpdateParams,
        result=AgentsUpdateResult,
        handler=update,
        audited="agent.update",
    ),
    Method(
        name="agents.delete",
        summary="Remove an agent; its sessions stay",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=AgentsDeleteParams,
        result=AgentsDeleteResult,
        handler=delete,
        audited="agent.delete",
    ),
    Method(
        name="agents.files.list",
        summary="List an agent's own files",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=AgentsFilesListParams,
        result=AgentsFilesListResult,
        handler=list_files,
    ),
    Method(
        name="agents.files.get",
        summary="Read one of an agent's own files",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=AgentsFilesGetParams,
        result=AgentsFilesGetResult,
        handler=get_file,
    ),
    Method(
        name="agents.files.set",
        summary="Write one of an agent's own files",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=AgentsFilesSetParams,
        result=AgentsFilesSetResult,
        handler=set_file,
        audited="agent.file.write",
    ),
)
