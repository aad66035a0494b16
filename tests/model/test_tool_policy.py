"""Which tools may be used: all rules must agree, and a denial wins."""

import pytest

from appliance.model.tool_policy import PROFILES, Rule, ToolPolicy, matches


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        (Rule(), {"exec", "read", "message"}),
        (Rule(profile="full"), {"exec", "read", "message"}),
        (Rule(profile="minimal"), set()),
        (Rule(profile="coding"), {"exec", "read"}),
        (Rule(profile="messaging"), {"message"}),
        (Rule(profile="minimal", allow=["exec"]), {"exec"}),
        (Rule(profile="full", allow=["read"]), {"read"}),
        (Rule(allow=["read"]), {"read"}),
        (Rule(allow=[]), set()),
        (Rule(allow=["group:fs"]), {"read"}),
        (Rule(allow=["*"], deny=["exec"]), {"read", "message"}),
        (Rule(deny=["*"]), set()),
        (Rule(deny=["group:runtime"]), {"read", "message"}),
        (Rule(allow=["bash"]), {"exec"}),
        (Rule(deny=["e*"]), {"read", "message"}),
    ],
)
def test_a_rule_admits_what_its_profile_and_list_say(rule: Rule, admitted: set[str]) -> None:
    tools = {"exec": "runtime", "read": "fs", "message": "messaging"}

    assert {name for name, group in tools.items() if rule.admits(name, group)} == admitted


def test_every_rule_must_agree() -> None:
    policy = ToolPolicy((Rule(profile="coding"),)).within(Rule(deny=["exec"]))

    assert policy.allows("read", "fs")
    assert not policy.allows("exec", "runtime")
    assert not policy.allows("message", "messaging")


def test_a_pattern_has_no_characters_but_the_star() -> None:
    assert matches(["files__*"], "files__read", "mcp")
    assert not matches(["files__*"], "myfiles__read", "mcp")
    assert not matches(["rea?"], "read", "fs")
    assert not matches(["[re]ad"], "ead", "fs")


def test_all_profiles_are_known() -> None:
    assert set(PROFILES) == {"minimal", "coding", "messaging", "full"}
