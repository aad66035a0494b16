"""How much a model reads, and how much of it a conversation may fill."""

import pytest

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.services.context_windows import USUAL, context_window, history_budget

CONFIG = """
providers:
  claude: {dialect: anthropic}
  near: {dialect: ollama, context_tokens: 8192}
  hidden: {dialect: openai, base_url: "http://127.0.0.1:9101/v1"}
  tiny: {dialect: embedded}
models:
  aliases: {smart: claude/claude-3-5-haiku-latest}
  failover: {both: [claude/claude-3-5-haiku-latest, near/x], smart: [near/x]}
"""


def config(session: str = "{}") -> GatewayConfig:
    return parse_config(f"{CONFIG}\ndefaults: {{session: {session}}}", name="config")


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("claude/claude-3-5-haiku-latest", 200_000),
        ("claude/made-up", USUAL),
        ("near/anything", 8192),
        ("hidden/gpt-4o", USUAL),
        ("tiny/x", 4096),
        ("own/x", USUAL),
        ("nonsense", USUAL),
        ("both", 8192),
        ("smart", 8192),
    ],
)
def test_the_operator_knows_best_then_the_list_then_what_is_usual(model: str, tokens: int) -> None:
    assert context_window(config(), model) == tokens


@pytest.mark.parametrize(
    ("session", "model", "tokens"),
    [
        ("{}", "claude/claude-3-5-haiku-latest", 200_000 - 16_384),
        ("{}", "tiny/x", 2048),
        ("{compaction: {reserve_tokens: 1000}}", "near/x", 7192),
        ("{history_tokens: 1500}", "claude/x", 1500),
        ("{history_tokens: 0}", "claude/x", 0),
    ],
)
def test_a_conversation_may_fill_what_is_not_kept_free(
    session: str, model: str, tokens: int
) -> None:
    assert history_budget(config(session), model) == tokens
