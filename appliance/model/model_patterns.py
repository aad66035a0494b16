"""Which models a token may be used for: names, and patterns with ``*`` for any characters."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from appliance.model.errors import InvalidRequest

MOST_PATTERNS = 50
LONGEST_PATTERN = 256  # characters
ANY = "*"


def parse_patterns(raw: Iterable[str], *, field: str = "models") -> tuple[str, ...]:
    """Read patterns such as ``openai/*``; raise :exc:`InvalidRequest` for what is none."""
    patterns = tuple(dict.fromkeys(raw))
    if len(patterns) > MOST_PATTERNS:
        raise InvalidRequest.at(field, f"names more than {MOST_PATTERNS} models", "use *")
    for pattern in patterns:
        is_name = pattern.isprintable() and not any(map(str.isspace, pattern))
        if not 1 <= len(pattern) <= LONGEST_PATTERN or not is_name:
            raise InvalidRequest.at(
                field,
                f"a model is named with 1 to {LONGEST_PATTERN} characters, without spaces",
                "write provider/model, an alias, or provider/*",
            )
    return patterns


@lru_cache(maxsize=4096)
def admits(patterns: Sequence[str], name: str) -> bool:
    """Whether ``name`` is one of ``patterns``; a star stands for anything, slashes too."""
    return any(_matches(pattern, name) for pattern in patterns)


def is_within(patterns: Sequence[str], others: Sequence[str]) -> bool:
    """Whether each of ``patterns`` names nothing that ``others`` do not.

    To the careful side: of ``others`` one must cover it by itself.
    """
    return all(any(_matches(other, each) for other in others) for each in patterns)


def _matches(pattern: str, name: str) -> bool:
    """In linear time for each star: the earliest place for a part is as good as any later."""
    first, *parts = pattern.split(ANY)
    if not parts:
        return name == first
    *between, last = parts
    if not name.startswith(first) or len(name) < len(first) + len(last):
        return False
    at, end = len(first), len(name) - len(last)
    if not name.endswith(last):
        return False
    for part in between:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
