"""Session keys as a client of the older generation writes them.

Such a client may send ``acp:1`` and wait for chat events of just that key; its
own gateway never made ``agent:main:acp:1`` of it. So its connection is told of
the sessions it spoke in by the names it used.
"""

from dataclasses import replace

import msgspec

from appliance.model.errors import ApplianceError
from appliance.model.session_keys import SessionKey
from appliance.services.events import Event

SPEAKS_FOR_ITSELF = 3
"""The protocol whose clients do that."""

_MOST = 64


class SessionAliases:
    """What one connection calls its sessions; the latest few."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def note(self, tenant: str, params: object) -> None:
        """Remember how a ``chat.send`` named its session."""
        given = params.get("sessionKey") if isinstance(params, dict) else None
        if not isinstance(given, str):
            return
        try:
            key = SessionKey.parse(given, tenant=tenant)
        except ApplianceError:
            return  # it is about to be refused
        self._names.pop(key.short, None)
        if given != key.short:
            self._names[key.short] = given
            if len(self._names) > _MOST:
                del self._names[next(iter(self._names))]

    def spelled(self, event: Event) -> Event:
        """``event`` with the name that the client knows its session by."""
        name = self._names.get(event.session or "")
        if name is None or event.name != "chat":
            return event
        payload = msgspec.json.decode(event.payload)
        return replace(event, payload=msgspec.json.encode({**payload, "sessionKey": name}))
