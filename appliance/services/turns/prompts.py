"""What an agent is told before the conversation: who it is, where it works, what it may not.

The texts come from its workspace (``AGENTS.md`` and so on). Tools write there
too, so files are looked at before each turn and read again when they changed.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

import trio

from appliance.config.schema import AgentConfig, GatewayConfig
from appliance.config.tool_schema import PromptConfig
from appliance.model.session_keys import SessionKey
from appliance.model.untrusted import RULE
from appliance.sandboxes.base import WORKSPACE
from appliance.services.tools.base import Effect
from appliance.services.tools.toolbox import Offer
from appliance.services.turns.prompt_files import PromptFiles, Signature
from appliance.services.workspace_files import NAMES, read_text
from appliance.services.workspaces import workspace_of
from appliance.storage.paths import ConfinedDirectory

# What a sub-agent or a job needs to know of whom it works for, and no more.
_OF_HELPERS = frozenset({"AGENTS.md", "TOOLS.md", "SOUL.md", "IDENTITY.md", "USER.md"})
_ONLY_MAIN = "MEMORY.md"
_BOOTSTRAP = "BOOTSTRAP.md"
_LARGEST_READ = 8 * 1024 * 1024  # bytes of a file; of a larger one nothing is shown


class PromptTenant(Protocol):
    @property
    def config(self) -> GatewayConfig: ...
    @property
    def root(self) -> ConfinedDirectory: ...
    @property
    def state(self) -> "PromptState": ...


class PromptState(Protocol):
    @property
    def prompt_files(self) -> dict[str, PromptFiles]:
        """By agent, while the tenant is awake."""


class Prompts:
    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    async def system(
        self,
        tenant: PromptTenant,
        key: SessionKey,
        agent: AgentConfig,
        *,
        offer: Offer,
        depth: int = 0,
        given: Sequence[str] = (),
    ) -> str:
        """The system prompt of a turn; "" where there is nothing to say.

        ``given`` are texts that came with the request.
        """
        files = await self._files(tenant, key.agent)
        settings = tenant.config.defaults.tools.prompt
        wanted = _wanted(tenant.config, key, depth=depth, settings=settings)
        chosen = {name: files[name] for name in NAMES if name in wanted and name in files}
        parts = [agent.instructions] if agent.instructions else []
        parts += given
        if offer.tools:
            parts.append(_surroundings(offer, self._clock()))
        parts += _shown(chosen, settings)
        return "\n\n".join(parts)

    async def _files(self, tenant: PromptTenant, agent: str) -> Mapping[str, str]:
        """The files' texts; a thread is asked only for those that changed."""
        known = tenant.state.prompt_files.setdefault(agent, PromptFiles())
        found = tenant.root.stats(workspace_of(agent), NAMES)
        limit = tenant.config.defaults.tools.prompt.max_file_chars
        signature = (*_signature(found), ("", 0, 0, limit)) if found else ()
        if signature != known.signature:
            read = partial(_read_all, tenant.root, agent, found, limit)
            known.texts = await trio.to_thread.run_sync(read)
            known.signature = signature
        return known.texts


def _wanted(
    config: GatewayConfig, key: SessionKey, *, depth: int, settings: PromptConfig
) -> frozenset[str]:
    is_helper = depth > 0 or key.rest.startswith(("cron:", "subagent:"))
    wanted = set(_OF_HELPERS if is_helper else NAMES)
    if key.rest != config.defaults.session.main_key:
        wanted.discard(_ONLY_MAIN)
    if settings.skip_bootstrap:
        wanted.discard(_BOOTSTRAP)
    return frozenset(wanted)


def _shown(files: Mapping[str, str], settings: PromptConfig) -> list[str]:
    left = settings.max_chars
    parts = []
    for name, text in files.items():
        shown = _shortened(text.strip(), min(settings.max_file_chars, left), name)
        if shown:
            parts.append(f"# {name}\n\n{shown}")
            left -= len(shown)
    if parts:
        parts.insert(0, "These files of your workspace are always in front of you:")
    return parts


def _shortened(text: str, limit: int, name: str) -> str:
    """The head (70 %) and tail (20 %) of what is longer than ``limit``."""
    if len(text) <= limit:
        return text
    head, tail = limit * 7 // 10, limit * 2 // 10
    if not head:
        return ""
    notice = f"[… {len(text) - head - tail} characters of {name} left out; read the file …]"
    return f"{text[:head]}\n{notice}\n{text[len(text) - tail :] if tail else ''}".rstrip()


def _surroundings(offer: Offer, now: datetime) -> str:
    lines = [f"Today is {now:%A, %Y-%m-%d} (UTC)."]
    effects = {tool.effect for tool in offer.tools.values()}
    if Effect.EXECUTE in effects or Effect.WRITE in effects:
        lines.append(
            f"Your files are in {WORKSPACE}. Commands run in a sandbox that sees nothing else; "
            "what is outside of it is lost after each command."
        )
    lines.append(RULE)
    return "\n".join(lines)


def _signature(found: Mapping[str, os.stat_result]) -> Signature:
    return tuple(
        (name, entry.st_ino, entry.st_mtime_ns, entry.st_size) for name, entry in found.items()
    )


def _read_all(
    root: ConfinedDirectory, agent: str, found: Mapping[str, os.stat_result], limit: int
) -> dict[str, str]:
    """As much of each as a prompt shows of it: what is kept of huge files is not huge."""
    return {
        name: _shortened(read_text(root, agent, name, limit=_LARGEST_READ).strip(), limit, name)
        for name, entry in found.items()
        if entry.st_size <= _LARGEST_READ
    }
