"""The members of requests that are paid for by the tokens they cause, and touch nobody else.

Lists of what is known, by dialect, from the references of the APIs and of the
servers that speak like OpenAI's. What is in none of them may cost or read
more; the next release of an API may have a name for that already.

Not here although servers know them: what counts in another way than a limit of
ours (``n_predict``, ``best_of``), chooses code, adapters or hosts
(``logits_processors``, ``lora_path``, ``kv_transfer_params``), or lets one
caller get ahead of the others (``priority``, ``id_slot``).
"""

# Chat completions as OpenAI documents them.
CHAT = frozenset(
    {
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "model",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        # Of embeddings, which are asked for in the same dialect.
        "input",
    }
)

# What compatible servers and routers understand beside that.
COMPATIBLE = frozenset(
    {
        # Sampling: vLLM, SGLang, llama.cpp and those built on them.
        "allowed_token_ids",
        "bad_words",
        "dry_allowed_length",
        "dry_base",
        "dry_multiplier",
        "dry_penalty_last_n",
        "dry_sequence_breakers",
        "dynatemp_exponent",
        "dynatemp_range",
        "ignore_eos",
        "length_penalty",
        "min_keep",
        "min_p",
        "min_tokens",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "penalize_nl",
        "random_seed",
        "repeat_last_n",
        "repeat_penalty",
        "repetition_penalty",
        "samplers",
        "stop_regex",
        "stop_token_ids",
        "tfs_z",
        "top_a",
        "top_k",
        "top_n_sigma",
        "typical_p",
        "xtc_probability",
        "xtc_threshold",
        # The form of the answer.
        "ebnf",
        "grammar",
        "guided_choice",
        "guided_decoding_backend",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "guided_whitespace_pattern",
        "json_schema",
        "regex",
        "structured_outputs",
        # How the prompt is made, and what is told about the answer.
        "add_generation_prompt",
        "add_special_tokens",
        "cache_control",
        "cache_prompt",
        "cache_salt",
        "chat_template_kwargs",
        "continue_final_message",
        "echo",
        "include_stop_str_in_output",
        "n_probs",
        "no_stop_trim",
        "post_sampling_probs",
        "prompt_mode",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "safe_prompt",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "timings_per_token",
        "truncate_prompt_tokens",
        "usage",
        # Thinking.
        "clear_thinking",
        "disable_reasoning",
        "enable_thinking",
        "include_reasoning",
        "reasoning_budget",
        "reasoning_format",
        "separate_reasoning",
        "stream_reasoning",
        "thinking",
        "thinking_budget",
        "thinking_token_budget",
    }
)

# Responses, without what is the gateway's own to do. ``context_management`` is.
RESPONSES = frozenset(
    {
        "background",
        "context_management",
        "conversation",
        "frequency_penalty",
        "include",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "truncation",
        "type",
        "user",
    }
)

MESSAGES = frozenset(
    {
        "cache_control",
        "diagnostics",
        "max_tokens",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "stop_sequences",
        "stream",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_p",
    }
)

# The parts of a message. Not sound, whose tokens cost more than those of text.
CHAT_PARTS = frozenset(
    {
        "file",
        "image_url",
        "redacted_thinking",
        "refusal",
        "text",
        "thinking",
        "video_url",
    }
)
# Not tool_addition, which brings in whatever tools may hold, nor container_upload.
MESSAGES_BLOCKS = frozenset(
    {
        "browser_state",
        "compaction",
        "document",
        "image",
        "redacted_thinking",
        "search_result",
        "text",
        "thinking",
        "tool_reference",
        "tool_removal",
        "tool_result",
        "tool_use",
    }
)

# What a search leaves in a conversation.
SEARCH_BLOCKS = frozenset(
    {
        "server_tool_use",
        "web_search_result",
        "web_search_tool_result",
        "web_search_tool_result_error",
    }
)

CHAT_TOOL = frozenset({"cache_control", "custom", "function", "strict", "type"})
RESPONSES_TOOL = frozenset({"description", "format", "name", "parameters", "strict", "type"})
MESSAGES_TOOL = frozenset(
    {
        "allowed_callers",
        "cache_control",
        "configs",
        "defer_loading",
        "description",
        "display_height_px",
        "display_number",
        "display_width_px",
        "eager_input_streaming",
        "enable_zoom",
        "input_examples",
        "input_schema",
        "max_characters",
        "name",
        "strict",
        "type",
    }
)

# Tools with which a provider searches, each search at the same price, with their members. Not
# those that fetch, filter or run code as well (later ones of Anthropic's), nor previews.
MESSAGES_SEARCHES = {
    "web_search_20250305": frozenset(
        {
            "allowed_domains",
            "blocked_domains",
            "cache_control",
            "max_uses",
            "name",
            "type",
            "user_location",
        }
    )
}
_RESPONSES_SEARCH = frozenset({"filters", "search_context_size", "type", "user_location"})
RESPONSES_SEARCHES = {
    "web_search": _RESPONSES_SEARCH,
    "web_search_2025_08_26": _RESPONSES_SEARCH,
}
