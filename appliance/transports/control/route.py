"""How a route is declared. The declaration is all there is to know about it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.model.tokens import Scope
from appliance.transports.problems import Problem
from appliance.transports.schemas.base import NoBody, NoQuery, Query, View

if TYPE_CHECKING:
    from appliance.transports.control.call import Call

JSON = "application/json"
CSV = "text/csv; charset=utf-8"
HTML = "text/html; charset=utf-8"

TENANT_PARAMETER = "{id}"


class Who(StrEnum):
    """Who may call a route."""

    ANYONE = "anyone"
    TENANT = "the tenant itself, or an admin"
    ADMIN = "an admin"
    CONTROL_PLANE = "an admin, or whoever holds the control-plane token"
    LOOPBACK = "anyone on this machine, or an admin"


class Form(StrEnum):
    """How a route describes a failure."""

    PROBLEM = "problem"  # RFC 9457
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OPENCLAW = "openclaw"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler returns when a struct alone does not say it all."""

    content: bytes
    media_type: str = JSON
    status: int | None = None  # None: the route's own
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, view: View, **headers: str) -> "Answer":
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(msgspec.json.encode(view), headers=named)


Handler = Callable[["Call[Any, Any]"], Awaitable[View | Answer | None]]
Refusal = Callable[[Problem, Mapping[str, Any]], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method at one path.

    ``scope`` is what a tenant's token needs, None if any will do. A route without ``handler`` is
    answered by the raw doors in front of the framework and stands here so that
    the documents and the isolation suite know it.
    """

    name: str  # noun.verb: the operation's id
    method: str
    path: str  # with {parameters}; {id} is a tenant
    who: Who
    summary: str
    handler: Handler | None
    scope: Scope | None = Scope.READ
    body: type[Any] = NoBody
    query: type[Query] = NoQuery
    answer: type[View] | None = None
    also: tuple[type[View], ...] = ()  # other shapes of the answer
    status: int = 200
    failures: tuple[int, ...] = ()  # beyond those that follow from the rest
    produces: tuple[str, ...] = (JSON,)
    form: Form = Form.PROBLEM
    uploads: bool = False  # the body is a file, whatever it holds
    refusal: Refusal | None = None  # how a page shows a failure; None: as problem details

    @property
    def takes_body(self) -> bool:
        return self.body is not NoBody

    @property
    def names_tenant(self) -> bool:
        return TENANT_PARAMETER in self.path

    @property
    def is_of_one_tenant(self) -> bool:
        """Whether the route also answers below ``/t/<id>/``."""
        return self.names_tenant or self.who in {Who.TENANT, Who.ANYONE}

    @property
    def rule(self) -> str:
        """The path as the framework writes it."""
        return self.path.replace("{", "<").replace("}", ">")
