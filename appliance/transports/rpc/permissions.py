"""Which methods a connection may call. Authorization happens here and nowhere else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance.model.callers import Caller
from appliance.model.operator_scopes import OperatorScope, Role, covers
from appliance.model.tokens import Scope
from appliance.protocols.gateway import CONNECT, WireError
from appliance.transports.rpc.failures import (
    connected_already,
    missing_scope,
    needs_admin,
    needs_tenant,
    not_yet,
    unknown_method,
    wrong_role,
)
from appliance.transports.rpc.method import Method, Who

_OF_ONE_TENANT = frozenset({Who.TENANT, Who.NODE, Who.MEMBER})


@dataclass(frozen=True, slots=True)
class Rights:
    """What a connection was granted; equal rights share one table of methods."""

    is_admin: bool
    acts_for_tenant: bool
    token_scopes: frozenset[Scope]
    role: Role
    scopes: frozenset[OperatorScope]

    @classmethod
    def of(cls, caller: Caller, role: Role, scopes: frozenset[OperatorScope]) -> "Rights":
        return cls(caller.is_admin, caller.tenant is not None, caller.scopes, role, scopes)

    def may_use(self, needed: Scope | None) -> bool:
        if (
            needed is None
            or self.is_admin
            or Scope.FULL in self.token_scopes
            or needed in self.token_scopes
        ):
            return True
        return needed is Scope.READ and Scope.MANAGE in self.token_scopes


class Permissions:
    """The methods there are, and who may call them."""

    def __init__(self, methods: Iterable[Method]) -> None:
        self.methods: Mapping[str, Method] = {method.name: method for method in methods}
        self._tables: dict[Rights, Mapping[str, Method]] = {}

    def table(self, rights: Rights) -> Mapping[str, Method]:
        """Every method that ``rights`` allow and this release can answer."""
        known = self._tables.get(rights)
        if known is None:
            known = self._tables[rights] = {
                name: method
                for name, method in self.methods.items()
                if method.is_available and self._refusal(method, rights, 4) is None
            }
        return known

    def refusal(self, name: str, rights: Rights, *, protocol: int) -> WireError:
        """Why ``name`` is not in the table."""
        method = self.methods.get(name)
        if method is None:
            return connected_already() if name == CONNECT else unknown_method(name)
        return self._refusal(method, rights, protocol) or not_yet(name)

    def _refusal(self, method: Method, rights: Rights, protocol: int) -> WireError | None:
        is_node = rights.role is Role.NODE
        if method.who is not Who.MEMBER and (method.who is Who.NODE) is not is_node:
            return wrong_role(rights.role, protocol=protocol)
        if method.who is Who.ADMIN and not rights.is_admin:
            return needs_admin(method.name, protocol=protocol)
        if method.who in _OF_ONE_TENANT and not rights.acts_for_tenant:
            return needs_tenant(method.name, protocol=protocol)
        if method.scope is not None and not is_node and not covers(rights.scopes, method.scope):
            return missing_scope(method.scope, protocol=protocol)
        if rights.may_use(method.needs) or _is_a_look(method, rights):
            return None
        return missing_scope(f"token scope {method.needs}", protocol=protocol)


def _is_a_look(method: Method, rights: Rights) -> bool:
    """Whoever may read everything may read conversations too."""
    return (
        method.needs is Scope.CHAT
        and method.scope is OperatorScope.READ
        and rights.may_use(Scope.READ)
    )
