"""Money as integers: nano-units of the billing currency, never floats."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

NANO = 10**9
_DECIMAL = re.compile(r"\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MOST = 10**12  # units; anything larger is a slip of the keyboard


def parse_amount(text: str | int) -> int:
    """Return the nano-units in a decimal such as ``"50.00"``.

    Raises :exc:`ValueError` for what is not a plain, non-negative decimal with
    at most nine places: a float has lost digits before it gets here.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError('an amount is a decimal in quotes, such as "50.00"')  # noqa: TRY004 - one error type for one cause
    if isinstance(text, str) and _DECIMAL.fullmatch(text) is None:
        # ``Decimal`` also reads blanks, underscores and the digits of other scripts.
        raise ValueError(f"{text[:40]!r} is not a decimal such as 50.00")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{str(text)[:40]!r} is not a decimal such as 50.00") from None
    if not value.is_finite() or value < 0 or value > _MOST:
        raise ValueError(f"an amount lies between 0 and {_MOST}")
    nano = value * NANO
    if nano != nano.to_integral_value():
        raise ValueError("an amount has at most nine decimal places")
    return int(nano)


def format_amount(nano: int) -> str:
    """Write nano-units as a decimal with at least two places: ``"0.000125"``, ``"50.00"``."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    whole, part = divmod(nano, NANO)
    digits = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-units per million tokens of each class.

    ``steps`` are the prices of long prompts, shortest first: a prompt of more
    than ``above`` tokens is charged wholly at the step's price. Sound that has
    no price of its own costs what text costs. ``web_search`` is for a thousand
    searches, as providers publish it; without it searches cost nothing.
    """

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    steps: tuple["PriceStep", ...] = ()
    input_audio: int | None = None
    output_audio: int | None = None
    web_search: int | None = None

    def at(self, prompt_tokens: int) -> "Price":
        """The price of a call whose prompt has ``prompt_tokens``."""
        for step in reversed(self.steps):
            if prompt_tokens > step.above:
                return step.price
        return self

    def of_text(self) -> "Price":
        """The same without what sound and searches cost."""
        steps = tuple(PriceStep(step.above, step.price.of_text()) for step in self.steps)
        return replace(self, steps=steps, input_audio=None, output_audio=None, web_search=None)


@dataclass(frozen=True, slots=True)
class PriceStep:
    above: int  # prompt tokens, cached ones included
    price: Price


FREE = Price(0, 0, 0, 0, 0)
