"""The ids of calls: a caller is told one of ours, the model reads its own again. Pure.

Models number their calls as they like, some alike in every conversation. What a
caller sends back must name one call of one turn, and nobody may guess it; the
model's own goes back to the model, because some providers take no other form.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from appliance.services.tools.runner import RequestedCall
from appliance.services.turns.requests import Message
from appliance.storage.session_context import call_ids

MODEL_ID = "model_id"  # a member of a kept call: what the model called it
_PREFIX = "call_"
_RANDOM = 24  # hexadecimal digits; with the prefix no longer than the vendors' own


def new_call_id() -> str:
    return f"{_PREFIX}{secrets.token_hex(_RANDOM // 2)}"


def may_be_ours(call: str) -> bool:
    """False for what :func:`new_call_id` cannot have made: no need to look for it."""
    return call.startswith(_PREFIX) and len(call) == len(_PREFIX) + _RANDOM


def for_callers(calls: Sequence[RequestedCall], names: Collection[str]) -> list[RequestedCall]:
    """The same calls; those of the caller's tools have ids of ours."""
    return [
        replace(call, id=new_call_id(), model_id=call.id) if call.name in names else call
        for call in calls
    ]


def as_model_called(messages: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The messages with the ids that the model gave."""
    found: list[Mapping[str, object]] = []
    own: dict[str, str] = {}
    for message in messages:
        calls = message.get("tool_calls")
        result = message.get("tool_call_id")
        if isinstance(calls, list) and any(MODEL_ID in call for call in calls):
            found.append({**message, "tool_calls": [_as_called(call, own) for call in calls]})
        elif isinstance(result, str) and result in own:
            found.append({**message, "tool_call_id": own[result]})
        else:
            found.append(message)
    return found


def without_waiting(messages: Sequence[Message]) -> list[Message]:
    """The messages without calls of the caller's tools that have no result among them."""
    answered = {message.get("tool_call_id") for message in messages}
    found: list[Message] = []
    for message in messages:
        calls = message.get("tool_calls")
        if not call_ids(message) or not isinstance(calls, list):
            found.append(message)
            continue
        left = [call for call in calls if MODEL_ID not in call or call.get("id") in answered]
        if left:
            found.append({**message, "tool_calls": left} if len(left) < len(calls) else message)
    return found


def _as_called(call: object, own: dict[str, str]) -> object:
    if not isinstance(call, dict) or MODEL_ID not in call:
        return call
    rest = {name: value for name, value in call.items() if name != MODEL_ID}
    ours, models = call.get("id"), call[MODEL_ID]
    if isinstance(ours, str) and isinstance(models, str):
        own[ours] = models
        rest["id"] = models
    return rest
