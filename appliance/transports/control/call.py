"""One request on its way to its handler: proven, authorised, decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from appliance.model.callers import Caller
from appliance.model.errors import TokenRejected
from appliance.transports.callers import Presented
from appliance.transports.control.collaborators import ControlServices

B = TypeVar("B")
Q = TypeVar("Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[B, Q]):
    """What a handler is given. ``tenant`` is the one in the path, "" if there is none."""

    services: ControlServices
    identity: Caller | None
    presented: Presented
    ip: str
    secure: bool  # the browser spoke TLS
    tenant: str
    path: Mapping[str, str]
    body: B
    query: Q
    headers: Mapping[str, str] = field(default_factory=dict)  # lower-case names
    scope: Mapping[str, Any] = field(default_factory=dict)

    @property
    def caller(self) -> Caller:
        """Who calls. On a route for anyone there is nobody to act as, and this raises."""
        if self.identity is None:
            raise TokenRejected
        return self.identity

    def header(self, name: str) -> str | None:
        return self.headers.get(name)
