"""Each parameter of the official clients is known: let pass, looked into, or refused."""

import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsBase
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.services import plain_members
from appliance.services.surcharges import require_plain

# A parameter that a new release of a client brings belongs into one of the three.
LOOKED_INTO = {
    Dialect.OPENAI: {"messages", "modalities", "service_tier", "store", "tools"},
    Dialect.RESPONSES: {"input", "reasoning", "service_tier", "tools"},
    Dialect.ANTHROPIC: {
        "context_management",
        "inference_geo",
        "messages",
        "service_tier",
        "speed",
        "system",
        "tools",
    },
}
REFUSED = {
    Dialect.OPENAI: {"audio", "moderation", "web_search_options"},
    Dialect.RESPONSES: {"access_programs", "background_options", "image", "moderation", "prompt"},
    Dialect.ANTHROPIC: {
        "billing_policy",
        "compaction",
        "container",
        "fallback_credit_token",
        "fallbacks",
        "mcp_servers",
        "thread",
        # The client sends these three as headers.
        "betas",
        "user_profile_id",
        "workspace_id",
    },
}


@pytest.mark.parametrize(
    ("dialect", "parameters", "plain"),
    [
        (
            Dialect.OPENAI,
            CompletionCreateParamsBase.__annotations__,
            plain_members.CHAT | plain_members.COMPATIBLE,
        ),
        (Dialect.RESPONSES, ResponseCreateParamsBase.__annotations__, plain_members.RESPONSES),
        (Dialect.ANTHROPIC, MessageCreateParamsBase.__annotations__, plain_members.MESSAGES),
    ],
    ids=lambda each: each.value if isinstance(each, Dialect) else "",
)
def test_no_parameter_of_a_client_is_forgotten(
    dialect: Dialect, parameters: dict[str, object], plain: frozenset[str]
) -> None:
    assert set(parameters) - plain - LOOKED_INTO[dialect] == REFUSED[dialect]


@pytest.mark.parametrize(
    ("dialect", "name"), [(dialect, name) for dialect, of in REFUSED.items() for name in sorted(of)]
)
def test_what_is_meant_to_be_refused_is(dialect: Dialect, name: str) -> None:
    with pytest.raises(InvalidRequest):
        require_plain(dialect, {name: b'{"a": 1}'})


@pytest.mark.parametrize("plain", [plain_members.CHAT_PARTS, plain_members.MESSAGES_BLOCKS])
def test_no_part_brings_in_tools_files_or_sound(plain: frozenset[str]) -> None:
    assert not plain & {"audio", "container_upload", "input_audio", "tool_addition"}
