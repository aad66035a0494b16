"""Every method there is. A method that is not in here does not exist."""

from appliance.transports.rpc import (
    admin,
    agent,
    agents,
    chat,
    config,
    devices,
    health,
    later,
    logs,
    models,
    node_side,
    nodes,
    presence,
    sessions,
    sessions_changes,
    sessions_create,
    sessions_transcripts,
    sessions_usage,
    tenant_usage,
    tenants,
    tokens,
    usage,
    voicewake,
)
from appliance.transports.rpc.method import Method

METHODS: tuple[Method, ...] = tuple(
    sorted(
        (
            *admin.METHODS,
            *agent.METHODS,
            *agents.METHODS,
            *chat.METHODS,
            *config.METHODS,
            *devices.METHODS,
            *health.METHODS,
            *later.METHODS,
            *logs.METHODS,
            *models.METHODS,
            *node_side.METHODS,
            *nodes.METHODS,
            *presence.METHODS,
            *sessions.METHODS,
            *sessions_changes.METHODS,
            *sessions_create.METHODS,
            *sessions_transcripts.METHODS,
            *sessions_usage.METHODS,
            *tenant_usage.METHODS,
            *tenants.METHODS,
            *tokens.METHODS,
            *usage.METHODS,
            *voicewake.METHODS,
        ),
        key=lambda method: method.name,
    )
)
