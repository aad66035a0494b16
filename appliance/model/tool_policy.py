"""Which tools an agent may use.

Several rules apply at once: the tenant's, its channel's, the agent's, the
session's, those for sub-agents. A tool must pass them all; a denial wins.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

ALL = "*"
# Other names that people write in their config.
_ALIASES = {"bash": "exec", "shell": "exec", "apply-patch": "apply_patch", "webfetch": "web_fetch"}

PROFILES: dict[str, tuple[str, ...]] = {
    "minimal": ("agents_list", "sessions_list"),
    "coding": (
        "group:fs", "group:runtime", "group:web", "group:sessions", "group:memory", "group:media",
        "group:agents", "group:mcp",
    ),
    "messaging": (
        "group:messaging", "sessions_list", "sessions_history", "sessions_send", "agents_list",
    ),
    "full": (ALL,),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """``allow`` None is what ``profile`` says; with a narrower profile it comes on top."""

    profile: str | None = None
    allow: Sequence[str] | None = None
    deny: Sequence[str] = ()

    def admits(self, name: str, group: str) -> bool:
        if matches(self.deny, name, group):
            return False
        allowed = list(self.allow or ())
        if self.profile not in {None, "full"}:
            allowed += PROFILES[str(self.profile)]
        elif self.allow is None:
            return True
        return matches(allowed, name, group)


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    rules: tuple[Rule, ...] = ()

    def allows(self, name: str, group: str) -> bool:
        return all(rule.admits(name, group) for rule in self.rules)

    def within(self, *rules: Rule) -> "ToolPolicy":
        """The same, narrowed by further rules."""
        return ToolPolicy((*self.rules, *rules))


def matches(patterns: Iterable[str], name: str, group: str) -> bool:
    """Whether a name, ``group:<group>`` or a pattern with ``*`` in it stands for the tool."""
    for written in patterns:
        pattern = _ALIASES.get(written, written)
        if pattern in {ALL, name, f"group:{group}"}:
            return True
        if ALL in pattern and _compiled(pattern).match(name):
            return True
    return False


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
