"""How a method is declared, and what its handler is given."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from appliance.model.callers import Caller
from appliance.model.errors import Forbidden
from appliance.model.operator_scopes import OperatorScope
from appliance.model.session_keys import SessionKey
from appliance.model.tokens import Scope
from appliance.services.clients import Client
from appliance.tenants.runtime import TenantRuntime

if TYPE_CHECKING:
    from appliance.transports.rpc.services import RpcServices


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A request's ``params``. Its annotations are the only validation."""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A response's ``payload``, or a part of one."""


class NoParams(Params, frozen=True):
    """Nothing, or an empty object."""


P = TypeVar("P", bound=Params)


class Raw:
    """A result that is JSON already."""

    __slots__ = ("json",)

    def __init__(self, json: bytes) -> None:
        self.json = json


class Who(StrEnum):
    """Who may call a method."""

    TENANT = "a tenant, or an admin acting for one"
    ANYONE = "a tenant or an admin"
    ADMIN = "an admin"
    NODE = "a node of a tenant"
    MEMBER = "a tenant, an admin acting for one, or a node of it"


Answer = msgspec.Struct | Raw | dict[str, Any] | list[Any]
Handler = Callable[["MethodCall[Any]"], Awaitable[Answer]]
InlineHandler = Callable[["MethodCall[Any]"], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method.

    ``scope`` is the operator scope the connection needs, ``needs`` what the
    token must cover; None is satisfied by every token. Without a handler its
    engine is not part of this release: it answers ``UNAVAILABLE`` and is not
    advertised. An ``inline`` handler answers from memory, without ever waiting.

    ``outside`` methods may end the credential they were called with, so they
    must not run as work of the tenant, which would wait for itself.
    ``replies_twice`` methods send ``call.respond(...)`` first.
    """

    name: str
    summary: str
    scope: OperatorScope | None
    needs: Scope | None
    params: type[Params] = NoParams
    result: Any = None  # a type that msgspec can describe; None: see the summary
    who: Who = Who.TENANT
    handler: Handler | None = None
    inline: InlineHandler | None = None
    audited: str = ""  # the action in the audit log
    outside: bool = False
    replies_twice: bool = False
    hidden: bool = False  # works, but is not advertised

    @property
    def is_available(self) -> bool:
        return self.handler is not None or self.inline is not None


@dataclass(frozen=True, slots=True)
class MethodCall(Generic[P]):
    """One authorised request. ``tenant`` is awake; None for an admin who acts for nobody."""

    method: Method
    params: P
    caller: Caller
    client: Client
    tenant: TenantRuntime | None
    services: "RpcServices"
    # Sends the answer now instead of when the handler returns, so that no event
    # can overtake it; of a method that replies twice, the first of them.
    respond: Callable[[Answer], None]

    @property
    def awake(self) -> TenantRuntime:
        """The tenant this is about. Raises :exc:`Forbidden` for an admin who named none."""
        if self.tenant is None:
            raise Forbidden("connect with X-OpenClaw-Tenant or at /t/<id>/ws to act for a tenant")
        return self.tenant

    def session_key(
        self, text: str, *, field: str = "sessionKey", agent: str | None = None
    ) -> SessionKey:
        """Read a session key of this tenant; a foreign or nested prefix is refused."""
        tenant = self.awake.id
        if agent is None:
            return SessionKey.parse(text, tenant=tenant, field=field)
        return SessionKey.parse(text, tenant=tenant, agent=agent, field=field)

    def with_params(self, params: P) -> "MethodCall[P]":
        return replace(self, params=params)
