"""Where the files of each agent lie, and who owns them."""

import os
from typing import Any, Protocol

import trio

from appliance.config.schema import GatewayConfig
from appliance.model.session_keys import DEFAULT_AGENT
from appliance.services.stepping import step_through
from appliance.storage.paths import PathRefused, TenantRoot
from appliance.storage.tree_walk import TreeTooLarge
from appliance.storage.workspace import Workspace
from appliance.storage.workspace_handover import hand_over

OTHER_AGENTS = "agents"  # in the first agent's workspace, where that one does not see it


class TenantWithWorkspaces(Protocol):
    @property
    def root(self) -> TenantRoot: ...
    @property
    def config(self) -> GatewayConfig: ...


def workspace_of(agent: str) -> str:
    """Where an agent's files are, below the tenant's directory."""
    return "workspace" if agent == DEFAULT_AGENT else f"workspace/{OTHER_AGENTS}/{agent}"


def hidden_from(agent: str) -> frozenset[str]:
    """Names in its workspace that it does not see."""
    return frozenset({OTHER_AGENTS}) if agent == DEFAULT_AGENT else frozenset()


def open_workspace(tenant: TenantWithWorkspaces, agent: str) -> Workspace:
    """The workspace of ``agent``, made where there is none; the caller closes it. Blocks.

    Raises ``PathRefused`` if something else stands in its place, and ``DiskFull``.
    """
    return Workspace.open(tenant.root, workspace_of(agent), **_manner(tenant, agent))


def find_workspace(tenant: TenantWithWorkspaces, agent: str) -> Workspace | None:
    """The same if it is there already; three system calls that wait for nothing."""
    try:
        return Workspace.find(tenant.root, workspace_of(agent), **_manner(tenant, agent))
    except FileNotFoundError:
        return None


async def make_ready(tenant: TenantWithWorkspaces, agent: str) -> Workspace:
    """The same, made and its owner's, so that a sandbox may be started in it.

    Only the first time in a workspace of an earlier release does this take
    long. It may be cancelled, and goes on when it is called again.
    """
    workspace = await trio.to_thread.run_sync(open_workspace, tenant, agent)
    try:
        await step_through(hand_over(workspace))
    except BaseException as error:
        workspace.close()
        if isinstance(error, TreeTooLarge):
            raise PathRefused(f"the workspace cannot be prepared: {error}") from None
        raise
    return workspace


def sandbox_owner(config: GatewayConfig) -> int | None:
    """Who sandboxes are on this machine; None: whoever we are."""
    return config.sandbox.uid if os.geteuid() == 0 else None


def _manner(tenant: TenantWithWorkspaces, agent: str) -> dict[str, Any]:
    return {"owner": sandbox_owner(tenant.config), "hidden": hidden_from(agent)}
