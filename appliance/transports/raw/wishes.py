"""What a caller asks of us beside the request itself, in headers."""

import re
from collections.abc import Iterable
from dataclasses import replace

from appliance.model.cache_use import CacheWish
from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest
from appliance.transports.raw.failures import Header

TAGS = b"x-openclaw-tags"
CACHE = b"x-openclaw-cache"
CACHE_CONTROL = b"cache-control"

MOST_TAGS = 8
_PART = r"[a-z0-9_.:-]{1,64}"
_TAG = re.compile(f"({_PART})={_PART}", re.ASCII)


def with_wishes(caller: Caller, headers: Iterable[Header]) -> Caller:
    """``caller`` with the tags and the use of kept answers that the headers name.

    Raises :exc:`InvalidRequest` for what cannot be understood: whoever
    attributes costs wants to know that they are.
    """
    tags = []
    for name, value in headers:
        if name == TAGS:
            tags.append(value)
        elif name == CACHE:
            caller = replace(caller, cache=_cache(value))
    # A list that is sent in several lines is one list (RFC 9110 §5.3).
    return replace(caller, tags=_tags(b",".join(tags))) if tags else caller


def with_cache_control(caller: Caller, headers: Iterable[Header]) -> Caller:
    """``caller`` with the use of kept answers that ``Cache-Control`` asks for.

    Everybody's header says much that is not for us, so what cannot be understood is
    passed over. As in HTTP (RFC 9111 §5.2.1), ``no-store`` is for whoever wants no copy
    to be there; here it also means that none is used.
    """
    values = [value for name, value in headers if name == CACHE_CONTROL]
    if not values:
        return caller
    directives = {part.strip().lower() for part in b",".join(values).split(b",")}
    if b"no-store" in directives:
        return replace(caller, cache=CacheWish.BYPASS)
    if b"no-cache" in directives:
        return replace(caller, cache=CacheWish.NO_CACHE)
    return caller


def _tags(value: bytes) -> tuple[str, ...]:
    tags = tuple(part.strip() for part in value.decode("latin-1").split(","))
    names = set()
    for tag in tags:
        match = _TAG.fullmatch(tag)
        if match is None:
            raise _refused(TAGS, "a tag reads name=value, each of 1 to 64 of a-z, 0-9 and _.:-")
        names.add(match.group(1))
    if len(names) < len(tags):
        raise _refused(TAGS, "names a tag twice")
    if len(tags) > MOST_TAGS:
        raise _refused(TAGS, f"has more than {MOST_TAGS} tags")
    return tuple(sorted(tags))


def _cache(value: bytes) -> CacheWish:
    text = value.decode("latin-1").strip().lower()
    wishes = [wish for wish in CacheWish if wish]
    if text not in wishes:
        raise _refused(CACHE, f"is one of {', '.join(wishes)}")
    return CacheWish(text)


def _refused(header: bytes, reason: str) -> InvalidRequest:
    return InvalidRequest.at(header.decode(), reason)
