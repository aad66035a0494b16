"""``encrypted_content`` of ours: what has to come back with a conversation to be of use.

It is opaque to callers, not secret: they may see what is in it. What a provider
made opaque itself travels as it is; ours is told from it by its beginning.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from appliance.model.calls import Dialect

_OURS = "ocm1."


def seal(content: Mapping[str, str]) -> str:
    return _OURS + base64.urlsafe_b64encode(msgspec.json.encode(content)).decode().rstrip("=")


def is_ours(sealed: str) -> bool:
    return sealed.startswith(_OURS)


def unseal(sealed: str) -> Mapping[str, Any]:
    """What was sealed; empty for what is not ours, or not any more."""
    if not is_ours(sealed):
        return {}
    text = sealed.removeprefix(_OURS)
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def seal_thinking(text: str, signature: str) -> str:
    """What a model thought, with its provider's signature."""
    return seal({"thinking": text, "signature": signature})


def seal_hidden(hidden: str, dialect: Dialect) -> str:
    """Thought that only a provider can read, with whose it is.

    A caller of another API carries it so, where it has room for such a thing.
    """
    return seal({"hidden": hidden, "dialect": dialect.value})


def hidden_of(sealed: str, dialect: Dialect) -> str | None:
    """None for what a provider of ``dialect`` could not read."""
    match unseal(sealed):
        case {"hidden": str(hidden), "dialect": str(whose)} if whose == dialect.value:
            return hidden
    return None


def seal_summary(summary: str) -> str:
    """What stands for the conversation so far."""
    return seal({"summary": summary})


def summary_of(sealed: str) -> str | None:
    """None for what is no summary of ours."""
    summary = unseal(sealed).get("summary")
    return summary if isinstance(summary, str) else None
