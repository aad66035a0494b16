"""What a model call used, in five classes that do not overlap.

Providers count differently: OpenAI's ``prompt_tokens`` include cached ones and
``completion_tokens`` include reasoning, Anthropic's ``input_tokens`` exclude
the cache. The dialects translate into this one shape; sums are additive.
"""

from dataclasses import dataclass

from appliance.model.money import Price

MOST_TOKENS = 10**9  # of one class, in one call; who claims more has not counted
_MOST_SEARCHES = 10_000  # likewise
_SEARCHES = 1_000  # thousands in a million, which is what prices of tokens are for


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Token counts. ``estimated`` is True where the provider told us nothing."""

    input: int = 0  # prompt tokens that were neither read from nor written to a cache
    output: int = 0  # answer tokens without reasoning
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    estimated: bool = False
    cache_write_hour: int = 0  # of cache_write, so many are kept for an hour instead of minutes
    input_audio: int = 0  # of input, so many are sound
    output_audio: int = 0  # of output
    web_searches: int = 0  # that the provider made; no tokens

    @property
    def total(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write + self.reasoning

    @property
    def prompt(self) -> int:
        """Prompt tokens as OpenAI counts them."""
        return self.input + self.cache_read + self.cache_write

    @property
    def completion(self) -> int:
        """Completion tokens as OpenAI counts them."""
        return self.output + self.reasoning

    @property
    def is_plausible(self) -> bool:
        """Whether these can be counts at all, of whatever call."""
        counts = (self.input, self.output, self.cache_read, self.cache_write, self.reasoning)
        sound = (self.input_audio, self.output_audio)
        return (
            min(*counts, *sound, self.web_searches) >= 0
            and max(*counts, *sound) <= MOST_TOKENS
            and self.web_searches <= _MOST_SEARCHES
        )

    def counts_prompt(self, size: int | None = None) -> bool:
        """Whether the prompt, of ``size`` bytes if that is known, was counted.

        No prompt is read for nothing.
        """
        return self.prompt > 0 or size == 0

    def counts_answer(self, size: int | None = None) -> bool:
        """Whether the answer, of ``size`` bytes if that is known, was counted.

        Nothing is said for nothing.
        """
        return self.completion > 0 or size == 0

    def cost(self, price: Price) -> int:
        """Nano-units at ``price``, rounded half up once for the whole call.

        ``price.cache_write`` is for the minutes that are usual. To keep a
        prompt for an hour costs twice what reading it does (Anthropic's
        pricing; nobody else tells the two apart). Each token costs the price of
        one class, be it text or sound.
        """
        if price.steps:
            price = price.at(self.prompt)
        hour = min(self.cache_write_hour, self.cache_write)
        heard = min(self.input_audio, self.input)
        spoken = min(self.output_audio, self.output)
        micro = (
            (self.input - heard) * price.input
            + heard * (price.input if price.input_audio is None else price.input_audio)
            + (self.output - spoken) * price.output
            + spoken * (price.output if price.output_audio is None else price.output_audio)
            + self.web_searches * (price.web_search or 0) * _SEARCHES
            + self.cache_read * price.cache_read
            + (self.cache_write - hour) * price.cache_write
            + hour * max(2 * price.input, price.cache_write)
            + self.reasoning * price.reasoning
        )
        return (micro + 500_000) // 1_000_000
