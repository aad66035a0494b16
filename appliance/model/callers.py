"""Who is asking: made once at the door, passed on unchanged."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.model.agent_names import agent_of, names_of
from appliance.model.cache_use import CacheWish
from appliance.model.errors import Forbidden, ModelForbidden, ScopeMissing
from appliance.model.model_patterns import admits
from appliance.model.tokens import Scope


class ActorKind(StrEnum):
    ADMIN = "admin"
    ADMIN_ON_BEHALF = "admin-on-behalf"
    TENANT = "tenant"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    ``tenant`` is the tenant acted on: a tenant token's own, or the one an
    admin named with ``X-OpenClaw-Tenant``; None for an admin at large.
    ``credential`` is the id of the token or the label of the admin key.
    """

    kind: ActorKind
    credential: str
    tenant: str | None
    scopes: frozenset[Scope] = field(default_factory=frozenset)
    request_id: str = ""
    ip: str = ""
    models: tuple[str, ...] = ()  # patterns of the models its token is for; none: any
    tags: tuple[str, ...] = ()  # ``name=value``: what its calls are booked under besides
    cache: CacheWish = CacheWish.USUAL

    @property
    def is_admin(self) -> bool:
        return self.kind in {ActorKind.ADMIN, ActorKind.ADMIN_ON_BEHALF, ActorKind.SYSTEM}

    def may(self, scope: Scope) -> bool:
        if self.is_admin or Scope.FULL in self.scopes or scope in self.scopes:
            return True
        # Whoever may change settings may look at them.
        return scope is Scope.READ and Scope.MANAGE in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise :exc:`ScopeMissing` unless the caller's token covers ``scope``."""
        if not self.may(scope):
            raise ScopeMissing(f"this needs a token with the scope {scope.value!r}")

    def may_ask(self, name: str, targets: Iterable[str] = ()) -> bool:
        """Whether the token is for the model ``name``, or for all that it leads to.

        For an agent it is by any of the agent's names.
        """
        agent = agent_of(name)
        names = (name,) if agent is None else names_of(agent)
        if not self.models or any(admits(self.models, each) for each in names):
            return True
        targets = tuple(targets)
        return bool(targets) and all(admits(self.models, target) for target in targets)

    def require_model(self, name: str, targets: Iterable[str] = ()) -> None:
        """Raise :exc:`ModelForbidden` unless :meth:`may_ask`."""
        if not self.may_ask(name, targets):
            raise ModelForbidden(f"this token is not for the model {name[:200]!r}")

    def require_admin(self) -> None:
        if not self.is_admin:
            raise Forbidden("this needs the admin key")

    def require_tenant(self) -> str:
        """Return the tenant this call is about; an admin must have named one."""
        if self.tenant is None:
            raise Forbidden("name the tenant with the header X-OpenClaw-Tenant")
        return self.tenant

    def require_access(self, tenant: str, scope: Scope) -> None:
        """Refuse unless the caller may act on ``tenant`` with ``scope``.

        The refusal is the same whether or not ``tenant`` exists.
        """
        if self.is_admin:
            return
        if self.tenant != tenant:
            raise Forbidden("the token belongs to another tenant")
        self.require(scope)
