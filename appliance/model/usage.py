"""What a model call used, in five classes that do not overlap.

Providers count differently: OpenAI's ``prompt_tokens`` include cached ones and
``completion_tokens`` include reasoning, Anthropic's ``input_tokens`` exclude
the cache. The dialects translate into this one shape; sums are additive.
"""

from dataclasses import dataclass

from appliance.model.money import Price


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

    def cost(self, price: Price) -> int:
        """Nano-units at ``price``, rounded half up once for the whole call.

        ``price.cache_write`` is for the minutes that are usual. To keep a
        prompt for an hour costs twice what reading it does (Anthropic's
        pricing; nobody else tells the two apart).
        """
        if price.steps:
            price = price.at(self.prompt)
        hour = min(self.cache_write_hour, self.cache_write)
        micro = (
            self.input * price.input
            + self.output * price.output
            + self.cache_read * price.cache_read
            + (self.cache_write - hour) * price.cache_write
            + hour * max(2 * price.input, price.cache_write)
            + self.reasoning * price.reasoning
        )
        return (micro + 500_000) // 1_000_000
