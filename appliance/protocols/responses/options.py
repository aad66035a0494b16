"""The members of a request that are objects or lists of their own, checked and in full form."""

from collections.abc import Mapping
from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses.fields import (
    flag,
    integer,
    listed,
    mapping,
    name,
    optional_text,
    text,
    word,
)

TOOL_CALLS = "openclaw:tool_calls"  # in ``include``: show what an agent's own tools do
ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
SUMMARIES = frozenset({"auto", "concise", "detailed"})
VERBOSITIES = frozenset({"low", "medium", "high"})
_INCLUDED = frozenset(
    {
        TOOL_CALLS,
        ENCRYPTED_REASONING,
        LOGPROBS,
        # Of tools that the provider runs.
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "web_search_call.action.sources",
        "web_search_call.results",
        # Items that were sent are shown whole in any case.
        "message.input_image.image_url",
    }
)
_REASONING = frozenset({"effort", "summary", "generate_summary", "context", "mode"})
_MOST_PAIRS = 16
_LONGEST_KEY = 64
_LONGEST_VALUE = 512
_MOST_TOKENS = 10_000_000

Json = Mapping[str, Any]


def read_include(raw: object) -> frozenset[str]:
    if raw is None:
        return frozenset()
    values = listed(raw, "include", most=len(_INCLUDED) * 2)
    return frozenset(
        word(value, f"include[{number}]", _INCLUDED) for number, value in enumerate(values)
    )


def read_text(raw: object) -> Json:
    """``format`` in full form, and ``verbosity`` where it is given."""
    options = {} if raw is None else mapping(raw, "text")
    _refuse_unknown(options, "text", frozenset({"format", "verbosity"}))
    found: dict[str, Any] = {"format": _format(options.get("format"))}
    if options.get("verbosity") is not None:
        found["verbosity"] = word(options["verbosity"], "text.verbosity", VERBOSITIES)
    return found


def _format(raw: object) -> Json:
    at = "text.format"
    if raw is None:
        return {"type": "text"}
    form = mapping(raw, at)
    kind = word(form.get("type"), f"{at}.type", ("text", "json_object", "json_schema"))
    if kind != "json_schema":
        return {"type": kind}
    description, strict = form.get("description"), form.get("strict")
    return {
        "type": kind,
        "name": name(form.get("name"), f"{at}.name"),
        "description": None if description is None else text(description, f"{at}.description"),
        "schema": mapping(form.get("schema"), f"{at}.schema"),
        "strict": False if strict is None else flag(strict, f"{at}.strict"),
    }


def read_reasoning(raw: object) -> Json | None:
    """``effort`` and ``summary``, each None where it is left to the model; and what else is set."""
    if raw is None:
        return None
    options = mapping(raw, "reasoning")
    _refuse_unknown(options, "reasoning", _REASONING)
    effort, summary = options.get("effort"), options.get("summary")
    if summary is None:
        summary = options.get("generate_summary")  # its former name
    found: dict[str, Any] = {
        "effort": None if effort is None else word(effort, "reasoning.effort", EFFORTS),
        "summary": None if summary is None else word(summary, "reasoning.summary", SUMMARIES),
    }
    for key in ("context", "mode"):
        if value := optional_text(options.get(key), f"reasoning.{key}", longest=_LONGEST_KEY):
            found[key] = value
    return found


def read_metadata(raw: object) -> dict[str, str]:
    pairs = {} if raw is None else mapping(raw, "metadata")
    if len(pairs) > _MOST_PAIRS:
        raise InvalidRequest.at("metadata", f"must hold at most {_MOST_PAIRS} pairs")
    for key, value in pairs.items():
        if len(key) > _LONGEST_KEY:
            raise InvalidRequest.at("metadata", f"a key is longer than {_LONGEST_KEY} characters")
        text(value, f"metadata.{key}", longest=_LONGEST_VALUE)
    return pairs


def read_stream_options(raw: object) -> bool:
    """Whether the events are to be padded."""
    options = {} if raw is None else mapping(raw, "stream_options")
    # Usage is always told; clients of chat completions ask for it by habit.
    _refuse_unknown(options, "stream_options", frozenset({"include_obfuscation", "include_usage"}))
    padded = options.get("include_obfuscation")
    return padded is not None and flag(padded, "stream_options.include_obfuscation")


def read_compact_threshold(raw: object) -> int | None:
    """How many tokens a context may have before it is compacted, by ``context_management``."""
    threshold = None
    for number, each in enumerate(listed([] if raw is None else raw, "context_management", most=1)):
        at = f"context_management[{number}]"
        word(mapping(each, at).get("type"), f"{at}.type", ("compaction",))
        if each.get("compact_threshold") is not None:
            place = f"{at}.compact_threshold"
            threshold = integer(each["compact_threshold"], place, least=1, most=_MOST_TOKENS)
    return threshold


def read_prewarm(raw: object) -> bool:
    """Whether ``prompt_cache_options`` want the prompt to be read and nothing to be said."""
    at = "prompt_cache_options"
    wishes = {} if raw is None else mapping(raw, at)
    if wishes.get("comparison_response_id") is not None:
        raise InvalidRequest.at(
            f"{at}.comparison_response_id",
            "no provider knows the responses of this gateway",
            "leave it out",
        )
    prewarm = wishes.get("prewarm")
    return prewarm is not None and flag(prewarm, f"{at}.prewarm")


def read_conversation(raw: object) -> str | None:
    """Its id."""
    at = "conversation"
    if isinstance(raw, dict):
        raw, at = raw.get("id"), "conversation.id"
        if raw is None:
            raise InvalidRequest.at(at, "is missing")
    return None if raw is None else text(raw, at, longest=_LONGEST_VALUE, shortest=1)


def _refuse_unknown(options: Json, at: str, known: frozenset[str]) -> None:
    for key in options:
        if key not in known:
            raise InvalidRequest.at(f"{at}.{key[:60]}", "is not known here", "leave it out")
