"""Items: what a conversation in the Responses API is made of, said and answered.

Whatever is answered is taken back as it is. What an item holds beyond the known
keys is not kept.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses import seals
from appliance.protocols.responses.asides import HOSTED
from appliance.protocols.responses.fields import (
    LONGEST_TEXT,
    flag,
    listed,
    mapping,
    optional_text,
    text,
    word,
)

Item = dict[str, Any]

TOOL_CALL = "openclaw:tool_call"  # what an agent's own tool did; an extension item
PREFIXES: Mapping[str, str] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fc",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctc",
    "mcp_approval_response": "mcpa",
    **HOSTED,
    "reasoning": "rs",
    "compaction": "cmp",
    TOOL_CALL: "otc",
}
# Only a provider of this API can read them.
OF_THIS_API = frozenset({"mcp_approval_response", *HOSTED})
BREAKPOINT = "prompt_cache_breakpoint"  # what is read up to there is cached
MARKED = frozenset({"input_text", "input_image", "input_file"})  # parts that may have one
_CALLS = frozenset(
    {"custom_tool_call", "custom_tool_call_output", "function_call", "function_call_output"}
)
_LONGEST_ID = 512
_LONGEST_NAME = 256
_LONGEST_DATA = 48 * 1024 * 1024  # characters of a picture or a file; the body's limit is lower
_STATUSES = frozenset({"in_progress", "completed", "incomplete"})
_ROLES = frozenset({"user", "system", "developer", "assistant"})
_PHASES = frozenset({"commentary", "final_answer"})
_DETAILS = frozenset({"auto", "low", "high", "original"})


def new_id(prefix: str) -> str:
    """A fresh id of 128 random bits; prefixes are ``resp``, ``conv`` and :data:`PREFIXES`."""
    return f"{prefix}_{secrets.token_hex(16)}"


def input_items(raw: object, at: str) -> tuple[Item, ...]:
    """Those of a string or a list; a string is one message of the user.

    Raises :exc:`InvalidRequest`.
    """
    if isinstance(raw, str):
        return (input_item({"role": "user", "content": raw}, at),)
    if not isinstance(raw, list):
        raise InvalidRequest.at(at, "must be a string or a list of items")
    return tuple(input_item(item, f"{at}[{number}]") for number, item in enumerate(raw))


def input_item(raw: object, at: str) -> Item:
    """The item in its full form, with a type and an id; raise :exc:`InvalidRequest`.

    ``raw`` is decoded JSON, ``at`` where it stands in the request: ``input[2]``.
    """
    raw = mapping(raw, at)
    kind = raw.get("type")
    if kind is None:
        # An item_reference may go without its type too; it alone has no content.
        kind = "item_reference" if set(raw) - {"type"} == {"id"} else "message"
    read = _READ.get(kind) if isinstance(kind, str) else None
    if read is None:
        shown = f"{kind[:60]!r} " if isinstance(kind, str) else ""
        raise InvalidRequest.at(
            f"{at}.type", f"{shown}is not a type of item", f"send {', '.join(_READ)}"
        )
    item = {"type": kind, "id": optional_text(raw.get("id"), f"{at}.id", longest=_LONGEST_ID)}
    if not item["id"]:
        if kind == "item_reference":
            raise InvalidRequest.at(f"{at}.id", "is missing")
        item["id"] = new_id(PREFIXES[kind])
    if kind in _CALLS:
        _require_direct(raw, at)
    return item | read(raw, at)


def _require_direct(raw: Item, at: str) -> None:
    """Raise for a call by a program of the model's, or of a tool in a namespace."""
    if raw.get("caller") not in (None, {"type": "direct"}):
        raise InvalidRequest.at(f"{at}.caller", "is not direct; no other calls are offered here")
    if raw.get("namespace") is not None:
        raise InvalidRequest.at(f"{at}.namespace", "is not offered here", "leave it out")


def asks(item: Item) -> str | None:
    """By which id the caller answers the item, if it is to be answered."""
    match item:
        case {"type": "function_call" | "custom_tool_call", "call_id": str(call_id)}:
            return call_id
        case {"type": "mcp_approval_request", "id": str(request_id)}:
            return request_id
    return None


def answers(item: Item) -> str | None:
    """The id of what the item answers, if it answers one."""
    match item:
        case {"type": "function_call_output" | "custom_tool_call_output", "call_id": str(call_id)}:
            return call_id
        case {"type": "mcp_approval_response", "approval_request_id": str(request_id)}:
            return request_id
    return None


def check_calls(items: Sequence[Item]) -> None:
    """Raise :exc:`InvalidRequest` for an output whose call is not among the items before it."""
    asked = set()
    for item in items:
        if (named := asks(item)) is not None:
            asked.add(named)
        elif (named := answers(item)) is not None and named not in asked:
            of_tool = item["type"] != "mcp_approval_response"
            found = "tool call was found for the output" if of_tool else "request for the approval"
            raise InvalidRequest.at(
                "input",
                f"no {found} with {'call_id' if of_tool else 'the id'} {named[:80]!r}",
                "send what it answers before it, or the previous_response_id it belongs to",
            )


def compaction_item(summary: str) -> Item:
    """An item that stands for all that was said before; we alone can read it."""
    sealed = seals.seal_summary(summary)
    return {"type": "compaction", "id": new_id("cmp"), "encrypted_content": sealed}


def message_item(role: str, parts: Sequence[Item]) -> Item:
    """A message as it is stored and sent."""
    return {
        "type": "message",
        "id": new_id("msg"),
        "status": "completed",
        "role": role,
        "content": list(parts),
    }


def _status(raw: Item, at: str) -> str:
    status = raw.get("status")
    return "completed" if status is None else word(status, f"{at}.status", _STATUSES)


def _message(raw: Item, at: str) -> Item:
    if "role" not in raw:
        raise InvalidRequest.at(at, "has neither a type nor a role", "send a message with a role")
    role = word(raw["role"], f"{at}.role", _ROLES)
    content = raw.get("content")
    of_assistant = role == "assistant"
    if isinstance(content, str):
        kind = "output_text" if of_assistant else "input_text"
        content = [{"type": kind, "text": content}]
    elif not isinstance(content, list):
        raise InvalidRequest.at(f"{at}.content", "must be a string or a list of parts")
    parts = [part(each, f"{at}.content[{n}]", role=role) for n, each in enumerate(content)]
    item: Item = {"status": _status(raw, at), "role": role, "content": parts}
    if raw.get("phase") is not None:
        item["phase"] = word(raw["phase"], f"{at}.phase", _PHASES)
    return item


def _function_call(raw: Item, at: str) -> Item:
    return {
        "call_id": text(raw.get("call_id"), f"{at}.call_id", longest=_LONGEST_ID, shortest=1),
        "name": text(raw.get("name"), f"{at}.name", longest=_LONGEST_NAME, shortest=1),
        "arguments": text(raw.get("arguments"), f"{at}.arguments"),
        "status": _status(raw, at),
    }


def _function_call_output(raw: Item, at: str) -> Item:
    output = raw.get("output")
    if isinstance(output, list):
        output = [part(each, f"{at}.output[{n}]", role="tool") for n, each in enumerate(output)]
    elif not isinstance(output, str):
        raise InvalidRequest.at(f"{at}.output", "must be a string or a list of parts")
    elif len(output) > LONGEST_TEXT:
        raise InvalidRequest.at(f"{at}.output", f"must be at most {LONGEST_TEXT} characters")
    return {
        "call_id": text(raw.get("call_id"), f"{at}.call_id", longest=_LONGEST_ID, shortest=1),
        "output": output,
        "status": _status(raw, at),
    }


def _custom_tool_call(raw: Item, at: str) -> Item:
    return {
        "call_id": text(raw.get("call_id"), f"{at}.call_id", longest=_LONGEST_ID, shortest=1),
        "name": text(raw.get("name"), f"{at}.name", longest=_LONGEST_NAME, shortest=1),
        "input": text(raw.get("input"), f"{at}.input"),
        "status": _status(raw, at),
    }


def _approval(raw: Item, at: str) -> Item:
    place = f"{at}.approval_request_id"
    item: Item = {
        "approval_request_id": text(raw.get("approval_request_id"), place, longest=_LONGEST_ID),
        "approve": flag(raw.get("approve"), f"{at}.approve"),
    }
    if raw.get("reason") is not None:
        item["reason"] = text(raw["reason"], f"{at}.reason")
    return item


def _hosted(raw: Item, _at: str) -> Item:
    """All of it: what is in there, only its provider knows."""
    return {name: value for name, value in raw.items() if name not in {"type", "id"}}


def _reasoning(raw: Item, at: str) -> Item:
    item: Item = {"summary": _texts(raw.get("summary"), f"{at}.summary", "summary_text")}
    if raw.get("status") is not None:
        item["status"] = _status(raw, at)
    if raw.get("content") is not None:
        item["content"] = _texts(raw["content"], f"{at}.content", "reasoning_text")
    if raw.get("encrypted_content") is not None:
        item["encrypted_content"] = text(raw["encrypted_content"], f"{at}.encrypted_content")
    return item


def _texts(raw: object, at: str, kind: str) -> list[Item]:
    found = []
    for number, each in enumerate(listed([] if raw is None else raw, at)):
        place = f"{at}[{number}]"
        word(mapping(each, place).get("type"), f"{place}.type", (kind,))
        found.append({"type": kind, "text": text(each.get("text"), f"{place}.text")})
    return found


def _compaction(raw: Item, at: str) -> Item:
    content = text(raw.get("encrypted_content"), f"{at}.encrypted_content", shortest=1)
    return {"encrypted_content": content}


def _reference(_raw: Item, _at: str) -> Item:
    return {}


def _tool_call(raw: Item, at: str) -> Item:
    item: Item = {
        "status": _status(raw, at),
        "call_id": text(raw.get("call_id"), f"{at}.call_id", longest=_LONGEST_ID, shortest=1),
        "name": text(raw.get("name"), f"{at}.name", longest=_LONGEST_NAME, shortest=1),
        "arguments": text(raw.get("arguments"), f"{at}.arguments"),
        "output": optional_text(raw.get("output"), f"{at}.output"),
    }
    if raw.get("is_error") is not None:
        item["is_error"] = flag(raw["is_error"], f"{at}.is_error")
    return item


_READ: Mapping[str, Callable[[Item, str], Item]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "custom_tool_call": _custom_tool_call,
    "custom_tool_call_output": _function_call_output,
    "mcp_approval_response": _approval,
    **dict.fromkeys(HOSTED, _hosted),
    "reasoning": _reasoning,
    "item_reference": _reference,
    "compaction": _compaction,
    TOOL_CALL: _tool_call,
}


def part(raw: object, at: str, *, role: str) -> Item:
    """One part of a message's content, or of a tool's output; raises :exc:`InvalidRequest`."""
    raw = mapping(raw, at)
    kind = raw.get("type")
    allowed = _PARTS[role]
    if not isinstance(kind, str) or kind not in allowed:
        shown = f"{kind[:60]!r} " if isinstance(kind, str) else ""
        raise InvalidRequest.at(
            f"{at}.type",
            f"{shown}is no part of a message of role {role}",
            f"send {', '.join(allowed)}",
        )
    found = {"type": kind, **_READ_PART[kind](raw, at)}
    if kind in MARKED and raw.get(BREAKPOINT) is not None:
        found[BREAKPOINT] = mapping(raw[BREAKPOINT], f"{at}.{BREAKPOINT}")
    return found


def _text_part(raw: Item, at: str) -> Item:
    return {"text": text(raw.get("text"), f"{at}.text")}


def _output_text(raw: Item, at: str) -> Item:
    annotations = raw.get("annotations")
    found: Item = {
        "text": text(raw.get("text"), f"{at}.text"),
        "annotations": [
            mapping(each, f"{at}.annotations[{number}]")
            for number, each in enumerate(listed(annotations or [], f"{at}.annotations"))
        ],
    }
    if raw.get("logprobs") is not None:
        found["logprobs"] = listed(raw["logprobs"], f"{at}.logprobs")
    return found


def _refusal(raw: Item, at: str) -> Item:
    return {"refusal": text(raw.get("refusal"), f"{at}.refusal")}


def _image(raw: Item, at: str) -> Item:
    found = _one_of(raw, at, {"image_url": _LONGEST_DATA, "file_id": _LONGEST_ID})
    detail = raw.get("detail")
    # The key is part of the item's form even where the picture is a file.
    found.setdefault("image_url", None)
    found["detail"] = "auto" if detail is None else word(detail, f"{at}.detail", _DETAILS)
    return found


def _file(raw: Item, at: str) -> Item:
    sizes = {"file_data": _LONGEST_DATA, "file_url": LONGEST_TEXT, "file_id": _LONGEST_ID}
    found = _one_of(raw, at, sizes)
    if name := optional_text(raw.get("filename"), f"{at}.filename", longest=_LONGEST_ID):
        found["filename"] = name
    if raw.get("detail") is not None:
        found["detail"] = word(raw["detail"], f"{at}.detail", _DETAILS)
    return found


def _audio(raw: Item, at: str) -> Item:
    place = f"{at}.input_audio"
    audio = mapping(raw.get("input_audio"), place)
    data = text(audio.get("data"), f"{place}.data", longest=_LONGEST_DATA)
    form = word(audio.get("format"), f"{place}.format", ("mp3", "wav"))
    return {"input_audio": {"data": data, "format": form}}


def _one_of(raw: Item, at: str, sizes: Mapping[str, int]) -> Item:
    given = [name for name in sizes if raw.get(name) not in (None, "")]
    if len(given) != 1:
        raise InvalidRequest.at(at, f"must have one of {', '.join(sizes)}")
    (name,) = given
    return {name: text(raw[name], f"{at}.{name}", longest=sizes[name])}


_READ_PART: Mapping[str, Callable[[Item, str], Item]] = {
    "input_text": _text_part,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
    "output_text": _output_text,
    "refusal": _refusal,
}
_PARTS: Mapping[str, tuple[str, ...]] = {
    "user": ("input_text", "input_image", "input_file", "input_audio"),
    "system": ("input_text",),
    "developer": ("input_text",),
    "assistant": ("output_text", "refusal"),
    "tool": ("input_text", "input_image", "input_file"),
}
