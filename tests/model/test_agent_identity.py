"""Who an agent is, as its IDENTITY.md tells."""

import pytest

from appliance.model.agent_identity import AgentIdentity, parse_identity

TEMPLATE = """# IDENTITY.md

- **Name:** Clawd
- **Creature:** a lobster
- **Vibe:** calm
- **Emoji:** 🦞
- **Avatar:** avatars/clawd.png
"""


def test_the_template_is_understood() -> None:
    assert parse_identity(TEMPLATE) == AgentIdentity("Clawd", "🦞", "avatars/clawd.png", "calm")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Name: Clawd", "Clawd"),
        ("* __Name__: *Clawd*", "Clawd"),
        ("**name**: `Clawd`", "Clawd"),
        ("Name: first\nName: second", "first"),
        ("Name:", None),
        ("- **Name:** _(pick something you like)_", None),
        ("Name: " + "x" * 300, None),
        ("Name: a\x1bb", None),
        ("My name is Clawd", None),
        ("", None),
    ],
)
def test_a_line_says_something_or_nothing(text: str, name: str | None) -> None:
    assert parse_identity(text).name == name


def test_what_one_source_leaves_open_comes_from_the_other() -> None:
    first = AgentIdentity(name="A", emoji=None)

    assert first.or_else(AgentIdentity(name="B", emoji="🐙")) == AgentIdentity("A", "🐙")
