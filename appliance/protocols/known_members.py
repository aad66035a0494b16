"""What a reader of requests does not know, found so that it can be refused.

A reader takes what it knows out of an object; the rest would be lost without a
word. Known is what is read, and what changes no answer.
"""

from collections.abc import Collection, Mapping
from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.model.prompts import CANNOT

_LONGEST_NAME = 60  # characters of a stranger's word that are shown


def unknown(holder: Mapping[Any, Any], at: str, known: Collection[str]) -> dict[str, Any]:
    """The members of ``holder``, which stands at ``at``, that are not known, by their paths.

    Null and an empty list ask for nothing.
    """
    return {
        f"{at}.{name[:_LONGEST_NAME]}": value
        for name, value in holder.items()
        if name not in known and value is not None and value != []
    }


def require_known(holder: Mapping[Any, Any], at: str, known: Collection[str]) -> None:
    """Raise :exc:`InvalidRequest` for the first member that is not known."""
    for name in unknown(holder, at, known):
        raise InvalidRequest.at(name, CANNOT, "leave it out, or use another model")
