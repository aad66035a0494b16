"""Nothing is lost without a word: each member that the vendors' own types have arrives, or is
harmless, or is refused by its name.

The lists follow the types of openai-python 3.3 and anthropic-python 2.12, beta included.
"""

import json
from typing import Any

import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.protocols.known_members import require_known, unknown
from appliance.protocols.translation import read_prompt, write_body
from tests.protocols.prompting import body, field_of

CHAT, RESPONSES, MESSAGES, OLLAMA = (
    Dialect.OPENAI, Dialect.RESPONSES, Dialect.ANTHROPIC, Dialect.OLLAMA,
)  # fmt: skip
ALL = (CHAT, RESPONSES, MESSAGES, OLLAMA)
MARK = {"mode": "explicit"}
PIXEL = "data:image/png;base64,AAAA"
CACHE = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"x": {}}}
GRAMMAR = {"syntax": "regex", "definition": "a+"}
RUN = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
LEAST: dict[Dialect, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    RESPONSES: {"input": "Hi"},
    MESSAGES: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20},
}


def asked(of: Dialect, to: Dialect, **members: Any) -> str:
    """What a provider of ``to`` is asked, as text."""
    written = write_body(to, read_prompt(of, body(**{**LEAST[of], **members})))
    return json.dumps({name: json.loads(value) for name, value in written.items()})


def refused(of: Dialect, to: Dialect, **members: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        asked(of, to, **members)
    return field_of(caught.value)


def said(*content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    """A message with parts, after one of the user's."""
    first = {"role": "user", "content": "Hi"}
    return {"messages": [first, {"role": role, "content": list(content), **more}]}


def tool(**more: Any) -> dict[str, Any]:
    return {"tools": [{"name": "f", "input_schema": SCHEMA, **more}]}


def function(*, beside: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": "f", "parameters": SCHEMA, **more}}
    return {"tools": [{**made, **(beside or {})}]}


def custom(**more: Any) -> dict[str, Any]:
    return {"tools": [{"type": "custom", "custom": {"name": "f", **more}}]}


def flat(**more: Any) -> dict[str, Any]:
    return {
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": False, **more}]
    }


def text(**more: Any) -> dict[str, Any]:
    return {"type": "text", "text": "Look", **more}


def image(**more: Any) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "url", "url": "https://example.org/x"}, **more}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USED = {"type": "tool_use", "id": "c", "name": "f", "input": {}}


@pytest.mark.parametrize(
    ("of", "members"),
    [
        (CHAT, {"metadata": {"a": "b"}}),
        (CHAT, {"modalities": ["text"]}),
        (CHAT, {"prediction": {"type": "content", "content": "x"}}),
        (CHAT, {"prompt_cache_key": "k"}),
        (CHAT, {"prompt_cache_options": {"mode": "implicit"}}),
        (CHAT, {"prompt_cache_retention": "24h"}),
        (CHAT, {"safety_identifier": "s"}),
        (CHAT, {"seed": 3}),
        (CHAT, {"service_tier": "flex"}),
        (CHAT, {"store": True}),
        (CHAT, {"user": "u"}),
        (CHAT, {"verbosity": "low"}),
        (CHAT, {"stream_options": {"include_usage": True, "include_obfuscation": False}}),
        (CHAT, said(text(), role="assistant", annotations=[{"type": "url_citation"}])),
        (CHAT, said(text(), role="assistant", audio=None, function_call=None, refusal=None)),
        (CHAT, said(text(), role="assistant", parsed={"x": 1})),
        (CHAT, said(text(), role="assistant", reasoning_details=[{"type": "reasoning.text"}])),
        (CHAT, said(text(), role="assistant", provider_specific_fields={"x": 1})),
        (CHAT, said(text(), role="assistant", tool_calls=[{**CALL, "index": 0}])),
        (CHAT, said(text(prompt_cache_breakpoint=MARK))),
        (CHAT, said(text(cache_control=CACHE))),
        (CHAT, said(text(unheard_of=None))),
        (MESSAGES, {"cache_control": CACHE}),
        (MESSAGES, {"diagnostics": {"previous_message_id": None}}),
        (MESSAGES, {"metadata": {"user_id": "u"}}),
        (MESSAGES, {"service_tier": "auto"}),
        (MESSAGES, {"speed": "standard"}),
        (MESSAGES, {"user_profile_id": "p"}),
        (MESSAGES, {"workspace_id": "w"}),
        (MESSAGES, {"mcp_servers": [], "fallbacks": []}),
        (MESSAGES, {"thinking": {"type": "adaptive", "block_binding": {}}}),
        (MESSAGES, tool(eager_input_streaming=True)),
        (MESSAGES, tool(allowed_callers=["direct"], defer_loading=False, input_examples=[])),
        (MESSAGES, said(text(citations=[]))),
        (MESSAGES, said(text(citations=[{"type": "char_location"}]), role="assistant")),
        (MESSAGES, said({**USED, "caller": {"type": "direct"}, "toolset_name": None},
                        role="assistant")),
        (RESPONSES, {"max_tool_calls": 3}),
        (RESPONSES, {"truncation": "auto"}),
        (RESPONSES, flat(allowed_callers=["direct"], defer_loading=False, output_schema=None)),
    ],
)  # fmt: skip
def test_what_changes_no_answer_is_taken_by_all(of: Dialect, members: dict[str, Any]) -> None:
    for to in ALL:
        assert asked(of, to, **members)  # and nothing was raised


@pytest.mark.parametrize(
    ("of", "members", "field"),
    [
        # Chat completions.
        (CHAT, {"audio": {"voice": "x", "format": "wav"}}, "audio"),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities"),
        (CHAT, {"moderation": {"model": "m"}}, "moderation"),
        (CHAT, {"web_search_options": {}}, "web_search_options"),
        (CHAT, {"min_p": 0.1}, "min_p"),
        (CHAT, function(examples=[1]), "tools[0].function.examples"),
        (CHAT, function(beside={"strict": True}), "tools[0].strict"),
        (CHAT, {"functions": [{"name": "f", "strange": 1}]}, "functions[0].strange"),
        (CHAT, custom(strict=True), "tools[0].custom.strict"),
        (CHAT, custom(format={"type": "text", "more": 1}), "tools[0].custom.format.more"),
        (
            CHAT,
            custom(format={"type": "grammar", "grammar": GRAMMAR, "more": 1}),
            "tools[0].custom.format.more",
        ),
        (
            CHAT,
            custom(format={"type": "grammar", "grammar": {**GRAMMAR, "start": "x"}}),
            "tools[0].custom.format.grammar.start",
        ),
        (CHAT, custom() | {"tool_choice": {
            "type": "custom", "custom": {"name": "f"}, "mode": "required",
        }}, "tool_choice.mode"),
        (
            CHAT,
            said(text(), role="assistant", tool_calls=[{**RUN, "caller": "x"}]),
            "messages[1].tool_calls[0].caller",
        ),
        (
            CHAT,
            said(text(), role="assistant", tool_calls=[
                {**RUN, "custom": {"name": "f", "input": "", "namespace": "x"}},
            ]),
            "messages[1].tool_calls[0].custom.namespace",
        ),
        (
            CHAT,
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            "response_format.schema",
        ),
        (
            CHAT,
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "grammar": "g"},
                }
            },
            "response_format.json_schema.grammar",
        ),
        (CHAT, function() | {"tool_choice": {
            "type": "function", "function": {"name": "f"}, "mode": "required",
        }}, "tool_choice.mode"),
        (CHAT, {"thinking": {"type": "enabled", "level": 3}}, "thinking.level"),
        (CHAT, said(text(weight=2)), "messages[1].content[0].weight"),
        (
            CHAT,
            said({"type": "image_url", "image_url": {"url": PIXEL, "crop": 1}}),
            "messages[1].content[0].image_url.crop",
        ),
        (
            CHAT,
            said({"type": "input_audio", "input_audio": {"data": "A", "format": "wav", "x": 1}}),
            "messages[1].content[0].input_audio.x",
        ),
        (
            CHAT,
            said({"type": "file", "file": {"file_data": PIXEL, "pages": "1"}}),
            "messages[1].content[0].file.pages",
        ),
        (CHAT, said(text(), weight=2), "messages[1].weight"),
        (CHAT, said(text(), role="assistant", audio={"id": "a"}), "messages[1].audio"),
        (
            CHAT,
            said(text(), role="assistant", tool_calls=[{**CALL, "caller": "x"}]),
            "messages[1].tool_calls[0].caller",
        ),
        # Messages.
        (MESSAGES, {"container": "c"}, "container"),
        (MESSAGES, {"inference_geo": "us"}, "inference_geo"),
        (MESSAGES, {"billing_policy": {"x": 1}}, "billing_policy"),
        (MESSAGES, {"compaction": {"x": 1}}, "compaction"),
        (MESSAGES, {"fallback_credit_token": "t"}, "fallback_credit_token"),
        (MESSAGES, {"fallbacks": [{"model": "m"}]}, "fallbacks"),
        (MESSAGES, {"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
        (MESSAGES, {"thread": {"id": "t"}}, "thread"),
        (MESSAGES, {"thinking": {"type": "between_tools"}}, "thinking"),
        (
            MESSAGES,
            {"output_config": {"task_budget": {"type": "tokens", "total": 9}}},
            "output_config.task_budget",
        ),
        (
            MESSAGES,
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA, "name": "n"}}},
            "output_config.format.name",
        ),
        (MESSAGES, tool(input_examples=[{"x": 1}]), "tools[0].input_examples"),
        (MESSAGES, tool(defer_loading=True), "tools[0].defer_loading"),
        (
            MESSAGES,
            tool(allowed_callers=["code_execution_20250825"]),
            "tools[0].allowed_callers",
        ),
        (MESSAGES, tool(foo=1), "tools[0].foo"),
        (MESSAGES, tool() | {"tool_choice": {"type": "auto", "names": ["f"]}}, "tool_choice.names"),
        (
            MESSAGES,
            {"system": [text(citations=[{"type": "x"}])]},
            "system[0].citations",
        ),
        (MESSAGES, said(text(citations=[{"type": "x"}])), "messages[1].content[0].citations"),
        (
            MESSAGES,
            said(image(transformations={"oversized_image": "error"})),
            "messages[1].content[0].transformations",
        ),
        (
            MESSAGES,
            said({"type": "image", "source": {
                "type": "url", "url": "https://example.org/x", "headers": {},
            }}),
            "messages[1].content[0].source.headers",
        ),
        (
            MESSAGES,
            said({**USED, "caller": {"type": "code_execution_20250825", "tool_id": "t"}},
                 role="assistant"),
            "messages[1].content[0].caller",
        ),
        (
            MESSAGES,
            said({**USED, "toolset_name": "browser"}, role="assistant"),
            "messages[1].content[0].toolset_name",
        ),
        (
            MESSAGES,
            said({"type": "tool_result", "tool_use_id": "c", "toolset_name": "browser"}),
            "messages[1].content[0].toolset_name",
        ),
        (MESSAGES, said(text(), role="system", clear_at="never"), "messages[1].clear_at"),
        (
            MESSAGES,
            said(text(), role="system", output_config={"effort": "low"}),
            "messages[1].output_config",
        ),
        # Responses.
        (RESPONSES, {"moderation": {"model": "m"}}, "moderation"),
        (RESPONSES, {"prompt": {"id": "p"}}, "prompt"),
        (RESPONSES, {"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        (RESPONSES, {"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        (RESPONSES, flat(output_schema=SCHEMA), "tools[0].output_schema"),
        (RESPONSES, flat(defer_loading=True), "tools[0].defer_loading"),
        (RESPONSES, flat(allowed_callers=["programmatic"]), "tools[0].allowed_callers"),
        (
            RESPONSES,
            {"text": {"format": {
                "type": "json_schema", "name": "n", "schema": SCHEMA, "grammar": "g",
            }}},
            "text.format.grammar",
        ),
        (
            RESPONSES,
            {"input": [{
                "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}",
                "namespace": "n",
            }]},
            "input[0].namespace",
        ),
        (
            RESPONSES,
            {"input": [{
                "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}",
                "caller": {"type": "program", "caller_id": "p"},
            }]},
            "input[0].caller",
        ),
    ],
)  # fmt: skip
def test_the_rest_is_refused_by_its_name(of: Dialect, members: dict[str, Any], field: str) -> None:
    for to in ALL:
        if to is not of:
            assert refused(of, to, **members) == field


@pytest.mark.parametrize("to", [MESSAGES, OLLAMA])
@pytest.mark.parametrize(
    ("of", "members", "field"),
    [
        (CHAT, custom(), "tools[0].type"),
        (CHAT, custom(format={"type": "grammar", "grammar": GRAMMAR}), "tools[0].type"),
        (CHAT, custom() | {"tool_choice": "none"}, "tools[0].type"),
        (
            CHAT,
            said(text(), role="assistant", tool_calls=[RUN]),
            "messages[1].tool_calls[0].type",
        ),
        (RESPONSES, {"tools": [{"type": "custom", "name": "f"}]}, "tools[0].type"),
        (
            RESPONSES,
            {"input": [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "{}"}]},
            "input[0].type",
        ),
    ],
)
def test_who_knows_functions_only_is_given_no_custom_tool(
    of: Dialect, to: Dialect, members: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest, match="a custom tool cannot be expressed") as caught:
        asked(of, to, **members)

    assert field_of(caught.value) == field


@pytest.mark.parametrize("to", [RESPONSES, OLLAMA])
@pytest.mark.parametrize(
    ("of", "members"),
    [
        (CHAT, {"tool_choice": "required"}),
        (CHAT, {"tool_choice": {"type": "function", "function": {"name": "g"}}}),
        (CHAT, function() | {"tool_choice": {"type": "function", "function": {"name": "g"}}}),
        (CHAT, function() | {"tool_choice": {"type": "allowed_tools", "allowed_tools": {
            "mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}],
        }}}),
        (MESSAGES, {"tool_choice": {"type": "any"}}),
        (MESSAGES, {"tool_choice": {"type": "tool", "name": "f"}}),
        (MESSAGES, tool() | {"tool_choice": {"type": "tool", "name": "g"}}),
    ],
)  # fmt: skip
def test_a_choice_of_tools_that_are_not_there_is_refused(
    of: Dialect, members: dict[str, Any], to: Dialect
) -> None:
    assert refused(of, to, **members) == "tool_choice"
    assert refused(of, MESSAGES if of is CHAT else CHAT, **members) == "tool_choice"


def test_the_older_word_for_a_choice_is_the_one_that_is_refused() -> None:
    assert refused(CHAT, MESSAGES, function_call={"name": "f"}) == "function_call"


def test_one_call_at_a_time_can_be_asked_of_all_but_ollama() -> None:
    one = function() | {"parallel_tool_calls": False}
    older = {"functions": [{"name": "f"}]}  # whose answers have room for one call

    assert refused(CHAT, OLLAMA, **one) == "parallel_tool_calls"
    assert refused(CHAT, OLLAMA, **older) == "functions"
    assert "tools" not in asked(CHAT, OLLAMA, **one, tool_choice="none")
    for members in (one, older):
        assert "disable_parallel_tool_use" in asked(CHAT, MESSAGES, **members)
        assert "parallel_tool_calls" in asked(CHAT, RESPONSES, **members)


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_that_demands_nothing_needs_no_tools(choice: str) -> None:
    assert "tool_choice" not in asked(CHAT, MESSAGES, tool_choice=choice)


@pytest.mark.parametrize(
    ("chat", "items"),
    [
        (text(prompt_cache_breakpoint=MARK), {"type": "input_text", "text": "Look"}),
        (
            {
                "type": "image_url",
                "image_url": {"url": PIXEL, "detail": "low"},
                "prompt_cache_breakpoint": MARK,
            },
            {"type": "input_image", "image_url": PIXEL, "detail": "low"},
        ),
        (
            {"type": "file", "file": {"file_id": "file-1"}, "prompt_cache_breakpoint": MARK},
            {"type": "input_file", "file_id": "file-1"},
        ),
    ],
)
def test_both_of_openais_apis_say_where_a_cached_prompt_ends(
    chat: dict[str, Any], items: dict[str, Any]
) -> None:
    part = {**items, "prompt_cache_breakpoint": MARK}
    there = json.loads(asked(CHAT, RESPONSES, messages=[{"role": "user", "content": [chat]}]))
    back = json.loads(asked(RESPONSES, CHAT, input=[{"role": "user", "content": [part]}]))

    assert there["input"][0]["content"] == [part]
    assert back["messages"][0]["content"] == [chat]
    for of, members in ((CHAT, {"messages": back["messages"]}), (RESPONSES, there)):
        assert "explicit" not in asked(of, OLLAMA, **{**members, **_without_files(members)})


def _without_files(members: dict[str, Any]) -> dict[str, Any]:
    """Ollama keeps no files: said in words instead."""
    mark = {"text": "x", "prompt_cache_breakpoint": MARK}
    if "input" in members:
        return {"input": [{"role": "user", "content": [{"type": "input_text", **mark}]}]}
    return {"messages": [{"role": "user", "content": [{"type": "text", **mark}]}]}


def test_a_result_of_a_tool_keeps_its_mark() -> None:
    results: list[dict[str, Any]] = [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "input_text", "text": "42", "prompt_cache_breakpoint": MARK}],
        },
    ]

    chat = json.loads(asked(RESPONSES, CHAT, input=results))["messages"]
    again = json.loads(asked(CHAT, RESPONSES, messages=chat))["input"]

    assert chat[1]["content"] == [{"type": "text", "text": "42", "prompt_cache_breakpoint": MARK}]
    assert again[1]["output"] == results[1]["output"]


@pytest.mark.parametrize("to", [RESPONSES, MESSAGES, OLLAMA])
def test_who_speaks_is_said_in_words_where_there_are_no_names(to: Dialect) -> None:
    messages = [
        {"role": "system", "content": "Be brief.", "name": "rules"},
        {"role": "user", "content": [text()], "name": "ann"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}],
         "name": "bob"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "Well?"},
    ]  # fmt: skip

    found = asked(CHAT, to, messages=messages)

    assert "ann: Look" in found
    assert '"bob:"' in found
    assert '"Well?"' in found
    assert "rules" not in found  # only one speaks for the system


def test_a_document_of_blocks_keeps_its_title_and_its_mark() -> None:
    document = {
        "type": "document",
        "title": "Menu",
        "cache_control": CACHE,
        "source": {"type": "content", "content": [text(), text()]},
    }

    prompt = read_prompt(MESSAGES, body(**said(document)))

    title, first, last = prompt.messages[1].blocks
    assert (title.text, first.cache, last.cache) == ("Menu", None, CACHE)  # type: ignore[union-attr]  # texts
    assert "Menu" in asked(MESSAGES, OLLAMA, **said(document))


def test_a_tools_mark_may_stand_on_either_side_of_its_brace() -> None:
    beside, inside = function(beside={"cache_control": CACHE}), function(cache_control=CACHE)

    assert asked(CHAT, MESSAGES, **inside) == asked(CHAT, MESSAGES, **beside)
    assert "ephemeral" in asked(CHAT, MESSAGES, **inside)


def test_a_members_name_is_shown_in_part() -> None:
    holder: dict[str, Any] = {"a": 1, "b": None, "c": [], "x" * 500: 1}

    assert unknown(holder, "here", {"a"}) == {"here." + "x" * 60: 1}
    require_known(holder, "here", {"a", "x" * 500})
    with pytest.raises(InvalidRequest) as caught:
        require_known(holder, "here", {"a"})
    assert field_of(caught.value) == "here." + "x" * 60
