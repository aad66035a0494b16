"""What a call is taken to use where nobody has counted."""

from collections.abc import Mapping

import msgspec

from appliance.model.calls import Dialect
from appliance.model.spending import Outcome, OutcomeStatus, SpendRequest
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import FOUND_TOKENS, estimated

# Tokens of an answer, where neither the caller nor the operator sets a limit.
ASSUMED_OUTPUT = 4_096

# Before a call: rather too many, since room that was not needed comes back,
# and what was not kept may be missing.
_RESERVED_BYTES_A_TOKEN = 3
_RESERVED_EXTRA = 8
# Searches of one call, where the request sets no limit: after ten rounds of its own tools
# Anthropic pauses a turn. Nobody needs more than the most; the estimate grows with its square.
ASSUMED_SEARCHES = 10
MOST_SEARCHES = 100


class _Tool(msgspec.Struct):
    type: str | None = None
    max_uses: int | None = None


_tools = msgspec.json.Decoder(list[_Tool])


def searches_to_reserve(dialect: Dialect, body: Mapping[str, bytes]) -> int:
    """How often a provider may search the web for a request; in a thread for a large one.

    Chat completions are not looked at: nobody tells how often they searched.
    """
    tools = body.get("tools", b"")
    if dialect is Dialect.OPENAI or not (b"web_search" in tools or b"\\u" in tools):
        return 0
    try:
        found = _tools.decode(tools)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ASSUMED_SEARCHES  # somebody else will refuse it
    limits = [tool.max_uses for tool in found if (tool.type or "").startswith("web_search")]
    most = sum(ASSUMED_SEARCHES if each is None else max(0, each) for each in limits)
    return min(most, MOST_SEARCHES)


def input_to_reserve(prompt_bytes: int, searches: int = 0) -> int:
    """After each search the model reads all anew, with what the searches so far have found."""
    tokens = prompt_bytes // _RESERVED_BYTES_A_TOKEN + _RESERVED_EXTRA
    return (searches + 1) * tokens + FOUND_TOKENS * searches * (searches + 1) // 2


def usage_of(request: SpendRequest, outcome: Outcome) -> TokenUsage:
    """What the provider says the call used; an estimate where it says nothing credible."""
    usage = outcome.usage
    searches = 0 if usage is None or not usage.is_plausible else usage.web_searches
    if usage is not None and (is_credible(usage) or _may_be_nothing(usage, outcome)):
        return usage
    if outcome.status is OutcomeStatus.FAILED and outcome.text_bytes == 0:
        return TokenUsage()  # refused or unreachable: providers charge nothing for it
    return TokenUsage(
        input=estimated(request.prompt_bytes) + searches * FOUND_TOKENS,
        output=estimated(outcome.text_bytes),
        estimated=True,
        web_searches=searches,
    )


def is_credible(usage: TokenUsage | None) -> bool:
    """Whether a provider has counted what was asked and what was answered."""
    return (
        usage is not None and usage.is_plausible and usage.counts_prompt() and usage.counts_answer()
    )


# Whoever reads a complete answer (``protocols.answers.believed``) knows that its prompt was
# read, and mends each figure by itself. What is settled may have broken off, or never have
# begun: a prompt of no tokens can be true then, and what cannot be makes the rest doubtful.
def _may_be_nothing(usage: TokenUsage, outcome: Outcome) -> bool:
    """Whether zeros can be true: who has said something was asked, and has used tokens."""
    return outcome.text_bytes == 0 and usage.web_searches == 0 and usage.is_plausible
