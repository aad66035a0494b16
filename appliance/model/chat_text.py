"""What of a message's text is kept and shown."""

import re

from appliance.model.errors import InvalidRequest

# Line breaks and tabs mean something; the rest of them move cursors and ring bells.
_CONTROL = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")


def clean_text(text: str, *, field: str = "message") -> str:
    """Return ``text`` without control characters.

    Raises :exc:`InvalidRequest` for a NUL, which no client sends by intention,
    and for half of a surrogate pair, which cannot be written down.
    """
    if "\x00" in text:
        raise InvalidRequest.at(field, "message must not contain null bytes")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest.at(
            field, "the text holds half of a surrogate pair", "send whole characters"
        ) from None
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def shorten(text: str, limit: int) -> str:
    """``text``, cut to ``limit`` characters with a mark where something is missing."""
    if len(text) <= limit:
        return text
    return f"{text[: max(0, limit - 1)]}…"


def one_line(text: str, limit: int) -> str:
    """The beginning of ``text`` on one line."""
    return shorten(" ".join(text[: 4 * limit].split()), limit)
