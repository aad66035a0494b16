"""Who an agent is to the people who talk to it."""

import re
from dataclasses import dataclass

# "- **Name:** Clawd", as the template of IDENTITY.md has it, or plainly "Name: Clawd".
_LINE = re.compile(
    r"[\s>*+-]{0,16}[*_]{0,3}(?P<label>[A-Za-z]{1,20})[*_]{0,3}:[*_]{0,3}(?P<value>.*)"
)
_LONGEST = {"name": 200, "emoji": 32, "avatar": 512, "theme": 200}
_LABELS = {"name": "name", "emoji": "emoji", "avatar": "avatar", "theme": "theme", "vibe": "theme"}


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """``avatar`` is an address, a ``data:`` picture, or a path in the agent's workspace."""

    name: str | None = None
    emoji: str | None = None
    avatar: str | None = None
    theme: str | None = None

    def or_else(self, other: "AgentIdentity") -> "AgentIdentity":
        """This one, with what it leaves open from ``other``."""
        return AgentIdentity(
            name=self.name or other.name,
            emoji=self.emoji or other.emoji,
            avatar=self.avatar or other.avatar,
            theme=self.theme or other.theme,
        )


def parse_identity(text: str) -> AgentIdentity:
    """What an ``IDENTITY.md`` says; lines that are not filled in say nothing."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        field = None if match is None else _LABELS.get(match["label"].lower())
        if match is None or field is None or field in found:
            continue
        value = match["value"].strip().strip("*_`").strip()
        # The template's own hints stand in brackets.
        if (
            value
            and value[0] not in "([<"
            and len(value) <= _LONGEST[field]
            and value.isprintable()
        ):
            found[field] = value
    return AgentIdentity(**found)
