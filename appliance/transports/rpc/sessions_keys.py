"""Reads the session keys and settings of a request."""

from typing import Any

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.ids import parse_agent_id
from appliance.model.session_keys import SessionKey
from appliance.transports.rpc.method import MethodCall


def session_key(
    call: MethodCall[Any], text: str, *, agent: str | None = None, field: str = "key"
) -> SessionKey:
    """The session meant by ``text``; ``main`` is the main one, whatever its key.

    Raises :exc:`ForeignSession`, and :exc:`InvalidRequest` for what is no key
    or names another agent than ``agent``.
    """
    agent = None if agent is None else agent_id(agent)
    key = call.session_key(text, field=field, agent=agent)
    if agent is not None and key.agent != agent:
        raise InvalidRequest.at("agentId", f"is not the agent of {field}", "leave it out")
    return call.services.sessions.policy.canonical(call.awake, key)


def agent_id(text: str) -> str:
    """``text`` if it may name an agent."""
    try:
        return parse_agent_id(text.strip().lower())
    except ValueError as exc:
        raise InvalidRequest.at("agentId", str(exc)) from exc


def own_key_text(call: MethodCall[Any], text: str | None, *, field: str) -> str | None:
    """A key that is only compared or stored: short, and of this tenant."""
    return None if text is None else session_key(call, text, field=field).short


def named_settings(
    params: msgspec.Struct, names: tuple[str, ...], *, absent: object
) -> dict[str, object]:
    """The fields that were sent, by their names on the wire."""
    values = {camel(name): getattr(params, name) for name in names}
    return {
        name: msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
        for name, value in values.items()
        if value is not absent
    }


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
