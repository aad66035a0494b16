"""Session keys: ``tenant:<id>:agent:<agent>:<rest>``.

Callers may leave out the tenant prefix, and the agent too. A foreign or a
nested prefix is refused, never re-homed: ``tenant:a:tenant:b:…`` would be
tenant a's to one reader and tenant b's to the next.
"""

import re
from dataclasses import dataclass

from appliance.model.errors import ForeignSession, InvalidRequest
from appliance.model.ids import is_tenant_id, parse_agent_id

DEFAULT_AGENT = "main"
LONGEST = 512  # characters of a whole key
_REST = re.compile(r"[^\x00-\x1f\x7f]+")
_FIELD = "x-openclaw-session-key"


@dataclass(frozen=True, slots=True)
class SessionKey:
    tenant: str
    agent: str
    rest: str

    @property
    def text(self) -> str:
        return f"tenant:{self.tenant}:agent:{self.agent}:{self.rest}"

    @property
    def short(self) -> str:
        """The key without the tenant prefix, as shown to the tenant's own clients."""
        return f"agent:{self.agent}:{self.rest}"

    @classmethod
    def parse(
        cls, text: str, *, tenant: str, agent: str = DEFAULT_AGENT, field: str = _FIELD
    ) -> "SessionKey":
        """Read a key given by a caller of ``tenant``.

        Raises :exc:`ForeignSession` for another tenant's key and
        :exc:`InvalidRequest` (naming ``field``) for one that is no key.
        """
        key = text.strip().lower()
        if not key or len(key) > LONGEST or _REST.fullmatch(key) is None:
            raise InvalidRequest.at(
                field, f"a session key is 1 to {LONGEST} printable characters", "send a shorter key"
            )
        if key.startswith("tenant:"):
            owner, _, key = key.removeprefix("tenant:").partition(":")
            if owner != tenant or not is_tenant_id(owner):
                raise ForeignSession("the session key does not match the authenticated tenant")
        if key.startswith("tenant:") or ":tenant:" in key:
            raise ForeignSession("a session key holds one tenant prefix at most")
        if key.startswith("agent:"):
            named, _, key = key.removeprefix("agent:").partition(":")
            try:
                agent = parse_agent_id(named)
            except ValueError as exc:
                raise InvalidRequest.at(field, str(exc)) from exc
        if not key:
            raise InvalidRequest.at(field, "nothing follows the prefix", "name the session")
        return cls(tenant, agent, key)
