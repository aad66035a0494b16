"""What an answer of this API holds that no other one has a word for.

What kind of message it is, and what tools did that the provider runs: only
callers of the same API are told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.model.calls import Aside

Json = Mapping[str, Any]

# The items of tools that the provider runs, with the prefix of their ids.
HOSTED: Mapping[str, str] = {
    "code_interpreter_call": "ci",
    "file_search_call": "fs",
    "image_generation_call": "ig",
    "mcp_approval_request": "mcpr",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "web_search_call": "ws",
}
# What is told of them on their way begins so.
PROGRESS = tuple(
    f"response.{kind}."
    for kind in (
        "code_interpreter_call",
        "code_interpreter_call_code",
        "file_search_call",
        "image_generation_call",
        "mcp_call",
        "mcp_call_arguments",
        "mcp_list_tools",
        "web_search_call",
    )
)


@dataclass(frozen=True, slots=True)
class NewMessage(Aside):
    """What is said from here on is a message of its own."""

    phase: str = ""  # commentary, final_answer, or not known


@dataclass(frozen=True, slots=True)
class NewPart(Aside):
    """What is said from here on is a part of its own of the same message."""


@dataclass(frozen=True, slots=True)
class HostedCall(Aside):
    """A tool that the provider runs. ``key`` tells several of an answer apart.

    ``item`` is how it stands, where that is told; ``event`` one of :data:`PROGRESS`
    with the fields that are its own.
    """

    key: object = None
    item: Json | None = None
    event: Json | None = None
    is_done: bool = False
