"""What waits for the user's word, as newer clients ask for it again and again.

Nothing here ever asks the user anything yet, so the lists are empty. They are
answered, and not advertised: a client that is refused asks every few seconds.
"""

from typing import Any

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.fields import AgentIdText, SessionKeyText
from appliance.transports.rpc.method import Method, MethodCall, Params


class PendingParams(Params, frozen=True):
    agent_id: AgentIdText | None = None
    session_key: SessionKeyText | None = None


def _check(call: MethodCall[PendingParams]) -> None:
    if call.params.session_key is not None:
        call.session_key(call.params.session_key)


async def _questions(call: MethodCall[PendingParams]) -> dict[str, Any]:
    _check(call)
    return {"questions": []}


async def _approvals(call: MethodCall[PendingParams]) -> list[Any]:
    _check(call)
    return []


async def _suggestions(call: MethodCall[PendingParams]) -> dict[str, Any]:
    _check(call)
    return {"suggestions": []}


METHODS: tuple[Method, ...] = tuple(
    Method(
        name=name,
        summary=summary,
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=PendingParams,
        result=dict[str, Any] if handler is not _approvals else list[Any],
        handler=handler,
        hidden=True,
    )
    for name, summary, handler in (
        ("question.list", "List the questions of agents", _questions),
        ("plugin.approval.list", "List what plugins want approved", _approvals),
        ("taskSuggestions.list", "List tasks that agents suggest", _suggestions),
    )
)
