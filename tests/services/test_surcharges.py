"""Only what is paid for by its tokens goes out with the gateway's key."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.config.loading import parse_config
from appliance.model.calls import Dialect
from appliance.model.errors import Fault, InvalidRequest
from appliance.services.call_requests import CallRequest
from appliance.services.surcharges import require_plain, require_plain_model
from tests.fakes.providers import FakeProvider, FakeReply
from tests.fakes.tenants import CALLER, CONFIG, Exchange, FakeTenant, open_tenant
from tests.fakes.writers import chat_writer

CHAT, RESPONSES, MESSAGES = Dialect.OPENAI, Dialect.RESPONSES, Dialect.ANTHROPIC
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": {"model": "any"}}}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
ADVISOR = {"type": "advisor_20260301", "name": "advisor", "model": "dear"}


def check(dialect: Dialect, members: Mapping[str, Any]) -> None:
    require_plain(dialect, {name: json.dumps(value).encode() for name, value in members.items()})


def said(*parts: object, role: str = "user", **more: object) -> dict[str, Any]:
    return {
        "messages": [{"role": role, "content": "hi"}, {"role": role, "content": [*parts], **more}]
    }


def refused(dialect: Dialect, members: Mapping[str, Any]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check(dialect, members)
    (found,) = caught.value.fields
    assert found.fault is Fault.UNSUPPORTED
    assert "providers.*.extras" in found.remedy
    return found.field


@pytest.mark.parametrize(
    ("dialect", "member", "value"),
    [
        # Dearer than the price list says.
        (CHAT, "service_tier", "priority"),
        (RESPONSES, "service_tier", "fast"),
        (MESSAGES, "speed", "fast"),
        (MESSAGES, "inference_geo", "us"),
        (CHAT, "modalities", ["text", "audio"]),
        (CHAT, "modalities", ["image"]),
        (CHAT, "audio", {"voice": "alloy", "format": "wav"}),
        # Searched, run or fetched by the provider.
        (CHAT, "web_search_options", {}),
        (CHAT, "plugins", [{"id": "web"}]),
        (CHAT, "search_parameters", {"mode": "on"}),
        (CHAT, "enable_search", True),
        (MESSAGES, "mcp_servers", [{"type": "url", "url": "https://example.com"}]),
        (MESSAGES, "container", "c_1"),
        # Other models and other sellers.
        (CHAT, "models", ["openai/o1-pro"]),
        (CHAT, "provider", {"sort": "throughput"}),
        (CHAT, "preset", "dear"),
        (CHAT, "moderation", {"model": "other"}),
        (RESPONSES, "moderation", {"model": "other"}),
        (MESSAGES, "fallbacks", [{"model": "other"}]),
        (MESSAGES, "fallbacks", "default"),
        # Kept with the owner of the key, or its own affair.
        (CHAT, "store", True),
        (RESPONSES, "prompt", {"id": "pmpt_1"}),
        (MESSAGES, "thread", {"type": "create"}),
        (MESSAGES, "billing_policy", {"type": "billing_policy", "bill_to": "user_profile"}),
        (MESSAGES, "compaction", {"type": "summarize"}),
        # Limits, code, hosts and turns of other programs.
        (CHAT, "n_predict", 100_000),
        (CHAT, "best_of", 100),
        (CHAT, "kv_transfer_params", {"remote_host": "10.0.0.1"}),
        (CHAT, "custom_logit_processor", "code"),
        (CHAT, "lora_path", "other"),
        (CHAT, "priority", -1),
        # Whatever comes next.
        (CHAT, "foo", 1),
        (RESPONSES, "foo", 1),
        (MESSAGES, "foo", 1),
    ],
)
def test_a_member_that_may_cost_or_read_more_is_refused_by_name(
    dialect: Dialect, member: str, value: object
) -> None:
    assert refused(dialect, {"temperature": 1, member: value}) == member


@pytest.mark.parametrize(
    ("dialect", "members", "place"),
    [
        (MESSAGES, {"tools": [{"name": "a"}, ADVISOR]}, "tools[1].type"),
        (MESSAGES, {"tools": [{"name": "a", "input_schema": {}, "model": "b"}]}, "tools[0].model"),
        (MESSAGES, {"tools": [{"type": "web_search_20260318"}]}, "tools[0].type"),
        (MESSAGES, {"tools": [{"type": "bash_code_execution_20250825"}]}, "tools[0].type"),
        (MESSAGES, {"tools": [{"type": "mcp_toolset"}]}, "tools[0].type"),
        (CHAT, {"tools": [FUNCTION, {"type": "web_search"}]}, "tools[1].type"),
        (CHAT, {"tools": [{"google_search": {}}]}, "tools[0].google_search"),
        (CHAT, {"tools": [{**FUNCTION, "model": "b"}]}, "tools[0].model"),
        (RESPONSES, {"tools": [{"type": "web_search"}]}, "tools[0].type"),
        (RESPONSES, {"tools": [{"type": "mcp", "server_label": "a"}]}, "tools[0].type"),
        (RESPONSES, {"reasoning": {"effort": "low", "mode": "pro"}}, "reasoning.mode"),
        (
            MESSAGES,
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            "context_management.edits[0].type",
        ),
        (MESSAGES, {"context_management": {"model": "b"}}, "context_management.model"),
        (CHAT, said({"type": "file", "file": {"file_id": "f"}}), "messages[1].content[0].file.fil"),
        (CHAT, said({"type": "file", "file_id": "f"}), "messages[1].content[0].file_id"),
        (CHAT, said({"type": "input_audio", "input_audio": {}}), "messages[1].content[0].type"),
        (CHAT, said(PICTURE, {"type": "document_url"}), "messages[1].content[1].type"),
        (CHAT, said(role="assistant", audio={"id": "audio_1"}), "messages[1].audio"),
        (CHAT, said(role="system", tools=[{"type": "builtin_function"}]), "messages[1].tools"),
        (
            MESSAGES,
            said({"type": "image", "source": {"type": "file", "file_id": "f"}}),
            "messages[1].content[0].source.file_id",
        ),
        (
            MESSAGES,
            said(
                {
                    "type": "tool_result",
                    "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}],
                }
            ),
            "messages[1].content[0].content[0].source.file_id",
        ),
        (
            MESSAGES,
            said(
                {
                    "type": "document",
                    "source": {
                        "type": "content",
                        "content": [{"type": "image", "source": {"file_id": "f"}}],
                    },
                }
            ),
            "messages[1].content[0].source.content[0].source.file_id",
        ),
        (
            MESSAGES,
            said({"type": "tool_addition", "tool": {"definition": ADVISOR}}),
            "messages[1].content[0].type",
        ),
        (
            MESSAGES,
            {"messages": [{"role": "user", "content": {"type": "tool_addition"}}]},
            "messages[0].content.type",
        ),
        (
            MESSAGES,
            said({"type": "container_upload", "file_id": "f"}),
            "messages[1].content[0].type",
        ),
        (MESSAGES, {"system": [{"type": "tool_addition"}]}, "system[0].type"),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            RESPONSES,
            {"input": [{"call_id": "c", "output": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].output[0].file_id",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_stands_deeper_is_refused_by_where_it_stands(
    dialect: Dialect, members: dict[str, Any], place: str
) -> None:
    assert refused(dialect, members).startswith(place)


@pytest.mark.parametrize(
    ("dialect", "member", "value"),
    [
        (CHAT, "tools", "none"),
        (CHAT, "tools", [{"type": "web_search"}, 7]),
        (CHAT, "tools", [{"type": 7}]),
        (CHAT, "service_tier", 7),
        (CHAT, "store", "false"),
        (CHAT, "modalities", "text"),
        (CHAT, "reasoning", "high"),
        (CHAT, "messages", {"0": {}}),
        (CHAT, "messages", [{"role": "user", "content": 7}]),
        (CHAT, "messages", [{"role": "user", "content": [7]}]),
        (CHAT, "messages", [{"role": "user", "content": [{"type": ["input_audio"]}]}]),
        (MESSAGES, "messages", [{"role": "user", "content": [{"source": [{"file_id": "f"}]}]}]),
        (MESSAGES, "system", [7]),
        (MESSAGES, "context_management", []),
        (MESSAGES, "context_management", {"edits": {"type": "compact_20260112"}}),
        (MESSAGES, "context_management", {"edits": [{}]}),
    ],
)
def test_what_cannot_be_read_is_not_passed_on_unread(
    dialect: Dialect, member: str, value: object
) -> None:
    if value == []:
        check(dialect, {member: value})
    else:
        assert refused(dialect, {member: value}) == member


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tools", rb'[{"type": "web_\u0073earch_20250305", "name": "web_search"}]'),
        ("messages", rb'[{"content": [{"type": "image", "source": {"\u0066ile_id": "f"}}]}]'),
        ("speed", rb'"\u0066ast"'),
    ],
)
def test_an_escaped_name_hides_nothing(name: str, text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        require_plain(MESSAGES, {name: text})


@pytest.mark.parametrize("model", ["openai/gpt-4o:online", "meta/llama:nitro", "@preset/dear"])
def test_a_name_that_stands_for_more_than_a_model_is_refused(model: str) -> None:
    with pytest.raises(InvalidRequest, match="extras"):
        require_plain_model(model)


@pytest.mark.parametrize("model", ["gpt-4o", "qwen3:8b", "meta/llama:free", "online", "a@b"])
def test_other_names_are_models(model: str) -> None:
    require_plain_model(model)


# All that openai 2.54 and anthropic 2.12 have parameters for, in their plain values.
OF_THE_SDKS: Mapping[Dialect, Mapping[str, Any]] = {
    CHAT: {
        "model": "gpt-5",
        "frequency_penalty": 0.1,
        "function_call": "auto",
        "functions": [{"name": "look"}],
        "logit_bias": {"1": 2},
        "logprobs": True,
        "max_completion_tokens": 10,
        "max_tokens": 10,
        "metadata": {"a": "b"},
        "modalities": ["text"],
        "n": 2,
        "parallel_tool_calls": True,
        "prediction": {"type": "content", "content": "a"},
        "presence_penalty": 0.1,
        "prompt_cache_key": "a",
        "prompt_cache_options": {"mode": "implicit"},
        "prompt_cache_retention": "24h",
        "reasoning_effort": "high",
        "response_format": {"type": "json_object"},
        "safety_identifier": "a",
        "seed": 1,
        "service_tier": "flex",
        "stop": ["a"],
        "store": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 1,
        "tool_choice": "auto",
        "tools": [FUNCTION, {"type": "custom", "custom": {"name": "a"}}],
        "top_logprobs": 2,
        "top_p": 1,
        "user": "u",
        "verbosity": "low",
        "web_search_options": None,
        "audio": None,
        "moderation": None,
    },
    RESPONSES: {
        "model": "gpt-5",
        "frequency_penalty": 0,
        "include": ["reasoning.encrypted_content"],
        "input": "hello",
        "instructions": "be brief",
        "max_output_tokens": 16,
        "max_tool_calls": 1,
        "metadata": {},
        "parallel_tool_calls": True,
        "presence_penalty": 0,
        "prompt": None,
        "prompt_cache_key": "a",
        "prompt_cache_options": {"mode": "implicit"},
        "prompt_cache_retention": "24h",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "a",
        "service_tier": "default",
        "temperature": 1,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [
            {"type": "function", "name": "a", "parameters": {}, "strict": True},
            {"type": "custom", "name": "b", "format": {"type": "text"}},
        ],
        "top_logprobs": 1,
        "top_p": 1,
        "truncation": "auto",
        "user": "u",
    },
    MESSAGES: {
        "model": "claude",
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
        "container": None,
        "context_management": {
            "edits": [{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]
        },
        "diagnostics": {"previous_message_id": None},
        "fallbacks": [],
        "inference_geo": "global",
        "max_tokens": 10,
        "mcp_servers": [],
        "metadata": {"user_id": "u"},
        "output_config": {"effort": "low"},
        "service_tier": "standard_only",
        "speed": "standard",
        "stop_sequences": ["a"],
        "stream": True,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "temperature": 1,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tool_choice": {"type": "auto"},
        "tools": [
            {"name": "a", "input_schema": {"model": 1}, "strict": True, "defer_loading": False},
            {"type": "custom", "name": "b", "input_schema": {}, "input_examples": [{}]},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "edit", "max_characters": 9},
            {"type": "computer_20251124", "name": "computer", "display_width_px": 9},
            {"type": "memory_20250818", "name": "memory"},
            {"type": "browser_toolset_20260801", "configs": {}},
        ],
        "top_k": 1,
        "top_p": 1,
    },
}


@pytest.mark.parametrize(
    ("dialect", "name"), [(dialect, name) for dialect, of in OF_THE_SDKS.items() for name in of]
)
def test_what_the_official_clients_send_for_plain_use_is_passed_on(
    dialect: Dialect, name: str
) -> None:
    check(dialect, {name: OF_THE_SDKS[dialect][name]})


@pytest.mark.parametrize(
    "members",
    [
        said("not a part", role="user") | {"messages": [{"role": "user", "content": None}]},
        said({"type": "text", "text": "file_id"}, PICTURE, {"text": "no type"}),
        said({"type": "file", "file": {"file_data": "data:;base64,", "filename": "a"}}),
        said({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}),
        said({"type": "thinking", "thinking": "t", "signature": "s"}, role="assistant"),
        # As openai-python dumps an answer to be sent back.
        said(role="assistant", audio=None, refusal=None, annotations=[], tool_calls=[FUNCTION]),
        {"messages": [{"role": "tool", "tool_call_id": "c", "content": "file_id"}]},
        {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.1, "guided_json": {"model": "a"}},
        {"chat_template_kwargs": {"enable_thinking": False}, "structured_outputs": {"regex": "a"}},
        {"grammar": "root ::= x", "cache_prompt": True, "mirostat": 2, "reasoning_format": "none"},
        {"reasoning": {"effort": "high"}, "usage": {"include": True}, "include_reasoning": True},
        {"thinking": {"type": "enabled"}, "safe_prompt": True, "random_seed": 1},
        {"model": "local/qwen3:8b"},
    ],
)
def test_what_costs_nothing_elsewhere_is_passed_on(members: dict[str, Any]) -> None:
    check(CHAT, members)


def test_all_kinds_of_blocks_that_callers_make_are_passed_on() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    check(
        MESSAGES,
        said(
            {"type": "text", "text": "a", "citations": None},
            image,
            {"type": "document", "source": {"type": "text", "data": "a"}, "title": "file_id"},
            {"type": "document", "source": {"type": "content", "content": [image]}},
            {"type": "document", "source": {"type": "content", "content": "a text"}},
            {"type": "search_result", "source": "https://example.com", "content": []},
            {"type": "thinking", "thinking": "a", "signature": "b"},
            {"type": "redacted_thinking", "data": "a"},
            # What a model gives a tool may be called anything.
            {"type": "tool_use", "id": "t", "name": "a", "input": {"file_id": "f", "source": []}},
            {"type": "tool_result", "tool_use_id": "t", "content": "a"},
            {"type": "tool_result", "tool_use_id": "t", "content": [image]},
        ),
    )


def test_a_large_conversation_is_looked_through_like_a_small_one() -> None:
    texts = [{"role": "user", "content": "file_id \n" * 50_000}] * 5
    parts = said(*[{"type": "text", "text": "x" * 100}, PICTURE] * 1_000)["messages"]

    check(CHAT, {"messages": [*texts, *parts]})

    parts[1]["content"][-1] = {"type": "file", "file": {"file_id": "f"}}
    place = refused(CHAT, {"messages": [*texts, *parts]})
    assert place == "messages[6].content[1999].file.file_id"


EXTRA_STUB = CONFIG.replace("stub: {dialect: openai}", "stub: {dialect: openai, extras: true}")
EXTRA_BOTH = EXTRA_STUB.replace(
    "spare: {dialect: openai}", "spare: {dialect: openai, extras: true}"
)


async def expect(tenant: FakeTenant, request: CallRequest, *, passes: bool, field: str) -> None:
    """That the request is answered, or refused for the field before anything is in the books."""
    calls = Exchange(FakeProvider("stub", [FakeReply()]), FakeProvider("spare")).calls
    if passes:
        async with calls.open(tenant, CALLER, request) as call:
            await call.reply.whole(chat_writer())
        return
    with pytest.raises(InvalidRequest, match=field):
        async with calls.open(tenant, CALLER, request):
            raise AssertionError("it was let pass")
    assert tenant.entries("outcome") == []


@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize(
    ("config", "keys", "model", "passes"),
    [
        (CONFIG, {}, "stub/mock", False),
        (CONFIG, {"stub": "sk-own"}, "stub/mock", True),
        (EXTRA_STUB, {}, "stub/mock", True),
        # Any of a chain may be the one that is asked.
        (CONFIG, {"stub": "sk-own"}, "both", False),
        (EXTRA_STUB, {}, "both", False),
        (EXTRA_STUB, {"spare": "sk-own"}, "both", True),
        (EXTRA_BOTH, {}, "both", True),
    ],
)
async def test_who_pays_or_allows_it_may_have_it(
    tmp_path: Path, config: str, keys: dict[str, str], model: str, size: int, *, passes: bool
) -> None:
    body = {
        "messages": json.dumps([{"role": "user", "content": "x" * size}]).encode(),
        "plugins": b"[1]",
    }
    request = CallRequest(
        model=model, body=body, stream=False, prompt_bytes=30, output_limit=20, dialect=CHAT
    )

    async with open_tenant(tmp_path) as tenant:
        tenant.config = parse_config(config, name="config")
        tenant.keys = dict(keys)
        await expect(tenant, request, passes=passes, field="plugins")


@pytest.mark.parametrize(
    ("models", "keys", "passes"),
    [
        ("", {}, False),
        ("models: [gpt:online], ", {}, True),
        ("extras: true, ", {}, True),
        ("", {"stub": "sk-own"}, True),
    ],
)
async def test_an_alias_of_a_tenant_hides_no_such_name(
    tmp_path: Path, models: str, keys: dict[str, str], *, passes: bool
) -> None:
    config = CONFIG.replace("stub: {", f"stub: {{{models}").replace(
        "  default:", "  aliases: {mine: stub/gpt:online}\n  default:"
    )
    request = CallRequest(model="mine", body={}, stream=False, prompt_bytes=30, output_limit=20)

    async with open_tenant(tmp_path) as tenant:
        tenant.config = parse_config(config, name="config")
        tenant.keys = dict(keys)
        await expect(tenant, request, passes=passes, field="model")


@pytest.mark.parametrize(
    ("dialect", "members"), [(CHAT, {"models": ["b"]}), (MESSAGES, {"tools": [ADVISOR]})]
)
async def test_a_token_for_some_models_reaches_no_others_whoever_pays(
    tmp_path: Path, dialect: Dialect, members: dict[str, Any]
) -> None:
    exchange = Exchange(FakeProvider("stub", [FakeReply()]), FakeProvider("spare"))
    body = {name: json.dumps(value).encode() for name, value in members.items()}
    request = CallRequest(
        model="stub/mock", body=body, stream=False, prompt_bytes=3, output_limit=2, dialect=dialect
    )
    caller = replace(CALLER, models=("stub/*",))

    async with open_tenant(tmp_path) as tenant:
        tenant.keys = {"stub": "sk-own"}
        with pytest.raises(InvalidRequest, match="use a token for all models"):
            async with exchange.calls.open(tenant, caller, request):
                raise AssertionError("it was let pass")
        async with exchange.calls.open(tenant, CALLER, request) as call:
            await call.reply.whole(chat_writer())


# What the operator gave a price

ALL = frozenset({"input_audio", "output_audio", "web_search"})
WEB = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
HEARD = {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}
VOICE = {"voice": "alloy", "format": "wav"}
SEARCHED = [
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "a"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "s",
        "content": [{"type": "web_search_result", "url": "a", "encrypted_content": "b"}],
    },
    {
        "type": "web_search_tool_result",
        "tool_use_id": "s",
        "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"},
    },
]


def in_items(part: object) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [part]}]}


def priced_check(dialect: Dialect, members: Mapping[str, Any], priced: frozenset[str]) -> None:
    body = {name: json.dumps(value).encode() for name, value in members.items()}
    require_plain(dialect, body, priced=priced)


PRICED = [
    ("web_search", MESSAGES, {"tools": [{"name": "a"}, WEB]}),
    ("web_search", MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("web_search", MESSAGES, {"tools": [{**WEB, "max_uses": None, "blocked_domains": ["a"]}]}),
    ("web_search", MESSAGES, {"tools": [{**WEB, "user_location": {"type": "approximate"}}]}),
    ("web_search", MESSAGES, said(*SEARCHED, role="assistant")),
    ("web_search", RESPONSES, {"tools": [{"type": "web_search", "search_context_size": "low"}]}),
    ("web_search", RESPONSES, {"tools": [{"type": "web_search_2025_08_26", "filters": {}}]}),
    ("input_audio", CHAT, said(HEARD)),
    ("input_audio", RESPONSES, in_items(HEARD)),
    ("output_audio", CHAT, {"modalities": ["text", "audio"]}),
    ("output_audio", CHAT, {"audio": VOICE, "stream": False}),
]


@pytest.mark.parametrize(("key", "dialect", "members"), PRICED)
def test_what_has_a_price_is_passed_on_and_refused_without_it(
    key: str, dialect: Dialect, members: dict[str, Any]
) -> None:
    priced_check(dialect, members, frozenset({key}))
    for others in (frozenset[str](), ALL - {key}):
        with pytest.raises(InvalidRequest) as caught:
            priced_check(dialect, members, others)
        remedy = caught.value.fields[0].remedy
        assert remedy.endswith(f"models.rate_card.*.{key}")
        assert "providers.*.extras" in remedy


@pytest.mark.parametrize(
    ("dialect", "members", "place"),
    [
        # Of searches: other tools, more than one, more than is reserved for, more than a search.
        (MESSAGES, {"tools": [{"type": "web_fetch_20250910"}]}, "tools[0].type"),
        (MESSAGES, {"tools": [{"type": "web_search_20260209"}]}, "tools[0].type"),
        (MESSAGES, {"tools": [WEB, ADVISOR]}, "tools[1].type"),
        (MESSAGES, {"tools": [WEB, WEB]}, "tools[1].type"),
        (MESSAGES, {"tools": [{**WEB, "max_uses": 0}]}, "tools[0].max_uses"),
        (MESSAGES, {"tools": [{**WEB, "max_uses": 101}]}, "tools[0].max_uses"),
        (MESSAGES, {"tools": [{**WEB, "max_uses": "5"}]}, "tools"),
        (MESSAGES, {"tools": [{**WEB, "model": "dear"}]}, "tools[0].model"),
        (MESSAGES, {"tools": [{"name": "a", "max_uses": 5}]}, "tools[0].max_uses"),
        (RESPONSES, {"tools": [{"type": "web_search_preview"}]}, "tools[0].type"),
        (RESPONSES, {"tools": [{"type": "web_search", "model": "dear"}]}, "tools[0].model"),
        (RESPONSES, {"tools": [{"type": "file_search"}]}, "tools[0].type"),
        (CHAT, {"tools": [{"type": "web_search"}]}, "tools[0].type"),
        (CHAT, {"web_search_options": {}}, "web_search_options"),
        (
            MESSAGES,
            said({"type": "server_tool_use", "name": "code_execution"}, role="assistant"),
            "messages[1].content[0].name",
        ),
        (MESSAGES, said(*SEARCHED, {"type": "container_upload"}), "messages[1].content[3].type"),
        (MESSAGES, said(HEARD), "messages[1].content[0].type"),
        # Of sound: what is kept with the key's owner, and what nobody knows.
        (CHAT, said(role="assistant", audio={"id": "audio_1"}), "messages[1].audio"),
        (CHAT, {"audio": {"voice": {"id": "v_1"}, "format": "wav"}}, "audio.voice"),
        (CHAT, {"audio": {**VOICE, "model": "dear"}}, "audio.model"),
        (CHAT, {"audio": "loud"}, "audio"),
        (CHAT, {"modalities": ["text", "audio", "image"]}, "modalities"),
        (
            CHAT,
            said({"type": "input_audio", "input_audio": {"data": "A", "file_id": "f"}}),
            "messages[1].content[0].input_audio.file_id",
        ),
        (CHAT, said({**HEARD, "file_id": "f"}), "messages[1].content[0].file_id"),
        (CHAT, said(HEARD, {"type": "document_url"}), "messages[1].content[1].type"),
        (
            RESPONSES,
            in_items({**HEARD, "file_id": "f"}),
            "input[0].content[0].file_id",
        ),
    ],
)
def test_a_price_allows_nothing_beside_what_it_is_for(
    dialect: Dialect, members: dict[str, Any], place: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        priced_check(dialect, members, ALL)
    (found,) = caught.value.fields
    assert found.field == place
    assert "rate_card" not in found.remedy


@pytest.mark.parametrize("part", [HEARD, {"input_audio": HEARD["input_audio"]}])
def test_sound_is_not_plain_in_any_dialect(part: dict[str, Any]) -> None:
    assert refused(CHAT, said(part)).startswith("messages[1].content[0]")
    assert refused(RESPONSES, in_items(part)).startswith("input[0].content[0]")


def test_who_leaves_sound_early_would_not_be_billed_for_it() -> None:
    for members in ({"audio": VOICE}, {"modalities": ["audio", "text"]}):
        with pytest.raises(InvalidRequest, match="stream: cannot be billed"):
            priced_check(CHAT, {**members, "stream": True}, ALL)
    priced_check(CHAT, {**said(HEARD), "modalities": ["text"], "stream": True}, ALL)
