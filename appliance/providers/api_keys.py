"""One of several keys of a provider, with its secret."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ApiKey:
    """``weight`` is its share of the calls, against those of the others."""

    secret: str = field(repr=False)  # a key that is printed by mistake says nothing
    weight: int = 1
