"""What a caller says of kept answers, and what became of it."""

from enum import StrEnum


class CacheWish(StrEnum):
    """The header ``x-openclaw-cache`` of a request."""

    USUAL = ""
    NO_CACHE = "no-cache"  # ask the model, and keep its answer
    NO_STORE = "no-store"  # an answer that is kept will do, but keep none
    BYPASS = "bypass"  # neither


class CacheUse(StrEnum):
    """The header ``x-openclaw-cache`` of an answer."""

    HIT = "hit"
    MISS = "miss"
    OFF = "off"
