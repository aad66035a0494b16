"""What a Gateway connection may do: OpenClaw's operator scopes, and how tokens map to them.

Two checks stand before a method. The *token* must cover what the method does
(:class:`~appliance.model.tokens.Scope`), and the *connection* must have asked
for the operator scope that OpenClaw's clients know the method by. A client may
ask for less than its token grants, never for more.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

from appliance.model.callers import Caller
from appliance.model.tokens import Scope


class Role(StrEnum):
    OPERATOR = "operator"
    NODE = "node"


class OperatorScope(StrEnum):
    ADMIN = "operator.admin"  # covers the others
    READ = "operator.read"
    WRITE = "operator.write"  # covers read
    APPROVALS = "operator.approvals"
    PAIRING = "operator.pairing"


EVERYTHING = frozenset(OperatorScope)

_BY_TOKEN: dict[Scope, frozenset[OperatorScope]] = {
    Scope.FULL: EVERYTHING,
    Scope.READ: frozenset({OperatorScope.READ}),
    Scope.CHAT: frozenset({OperatorScope.READ, OperatorScope.WRITE}),
    Scope.TERMINAL: frozenset({OperatorScope.READ, OperatorScope.WRITE}),
    Scope.MANAGE: EVERYTHING,
}


def covers(granted: Iterable[OperatorScope], needed: OperatorScope) -> bool:
    """Whether ``granted`` includes ``needed``, by itself or through a wider scope."""
    held = frozenset(granted)
    if needed in held or OperatorScope.ADMIN in held:
        return True
    return needed is OperatorScope.READ and OperatorScope.WRITE in held


def grantable(caller: Caller) -> frozenset[OperatorScope]:
    """Every scope that a connection of ``caller`` may have."""
    return EVERYTHING if caller.is_admin else _of_token(caller.scopes)


def granted(caller: Caller, asked: Iterable[str]) -> frozenset[OperatorScope]:
    """What a client gets that asked for ``asked``: all it may have if it named nothing.

    Names that we do not know are passed over: newer clients ask for more
    (``operator.questions``, ``operator.talk``).
    """
    named = frozenset(asked)
    if not named:
        return grantable(caller)
    # Whoever named only what we do not know wanted something, but not all.
    wanted = frozenset(scope for scope in OperatorScope if scope.value in named)
    return _among(grantable(caller), wanted or frozenset({OperatorScope.READ}))


# Few combinations, shared by thousands of connections.
@lru_cache(maxsize=256)
def _of_token(scopes: frozenset[Scope]) -> frozenset[OperatorScope]:
    return frozenset().union(*(_BY_TOKEN[scope] for scope in scopes))


@lru_cache(maxsize=1024)
def _among(
    possible: frozenset[OperatorScope], wanted: frozenset[OperatorScope]
) -> frozenset[OperatorScope]:
    if OperatorScope.ADMIN in wanted and OperatorScope.ADMIN not in possible:
        return possible  # it asked for all there is
    return frozenset(scope for scope in possible if covers(wanted, scope))
