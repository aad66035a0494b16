"""What a call is taken to use where nobody has counted."""

from appliance.model.spending import Outcome, OutcomeStatus, SpendRequest
from appliance.model.usage import TokenUsage

# Tokens of an answer, where neither the caller nor the operator sets a limit.
ASSUMED_OUTPUT = 4_096

# Before a call: rather too many, since room that was not needed comes back,
# and what was not kept may be missing.
_RESERVED_BYTES_A_TOKEN = 3
_RESERVED_EXTRA = 8
# Afterwards, for a provider that does not tell: as fair as a guess can be.
_BYTES_A_TOKEN = 4
# A provider that claims more than this, or less than none, has told nothing.
_PLAUSIBLE = 10**9


def input_to_reserve(prompt_bytes: int) -> int:
    return prompt_bytes // _RESERVED_BYTES_A_TOKEN + _RESERVED_EXTRA


def usage_of(request: SpendRequest, outcome: Outcome) -> TokenUsage:
    """What the provider says the call used; an estimate where it says nothing credible."""
    usage = outcome.usage
    if usage is not None and (is_credible(usage) or _may_be_nothing(usage, outcome)):
        return usage
    if outcome.status is OutcomeStatus.FAILED and outcome.text_bytes == 0:
        return TokenUsage()  # refused or unreachable: providers charge nothing for it
    return TokenUsage(
        input=-(-request.prompt_bytes // _BYTES_A_TOKEN),
        output=-(-outcome.text_bytes // _BYTES_A_TOKEN),
        estimated=True,
    )


def is_credible(usage: TokenUsage | None) -> bool:
    """Whether a provider has counted what was asked and what was answered."""
    return usage is not None and usage.prompt > 0 and usage.completion > 0 and _is_plausible(usage)


def _may_be_nothing(usage: TokenUsage, outcome: Outcome) -> bool:
    """Whether zeros can be true: who has said something was asked, and has used tokens."""
    return outcome.text_bytes == 0 and _is_plausible(usage)


def _is_plausible(usage: TokenUsage) -> bool:
    counts = (usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning)
    return min(counts) >= 0 and max(counts) <= _PLAUSIBLE
