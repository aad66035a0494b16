"""Methods that are known and not there yet."""

import msgspec
import pytest

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.later import METHODS
from appliance.transports.rpc.later_cron import CRON
from appliance.transports.rpc.later_exec import APPROVALS
from appliance.transports.rpc.method import Method, Who
from appliance.transports.rpc.reading import read_params

BY_NAME = {method.name: method for method in METHODS}


def test_each_is_named_once_and_none_is_advertised() -> None:
    assert len(BY_NAME) == len(METHODS)
    assert {*CRON, *APPROVALS} <= set(METHODS)
    assert not any(method.is_available for method in METHODS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_its_parameters_can_be_described(method: Method) -> None:
    assert msgspec.json.schema(method.params)


@pytest.mark.parametrize(
    ("name", "scope", "needs", "who"),
    [
        ("cron.add", OperatorScope.ADMIN, Scope.MANAGE, Who.TENANT),
        ("cron.list", OperatorScope.READ, Scope.READ, Who.TENANT),
        ("exec.approvals.node.set", OperatorScope.ADMIN, Scope.MANAGE, Who.TENANT),
        ("skills.install", OperatorScope.ADMIN, Scope.MANAGE, Who.TENANT),
        ("skills.bins", None, Scope.READ, Who.NODE),
        ("tts.convert", OperatorScope.WRITE, Scope.CHAT, Who.TENANT),
        ("update.run", OperatorScope.ADMIN, Scope.FULL, Who.ADMIN),
    ],
)
def test_who_may_call_it_is_settled(
    name: str, scope: OperatorScope | None, needs: Scope, who: Who
) -> None:
    method = BY_NAME[name]

    assert (method.scope, method.needs, method.who) == (scope, needs, who)


def test_what_clients_send_is_understood() -> None:
    job = {
        "name": "x",
        "schedule": {"kind": "every", "everyMs": 1},
        "payload": {},
        "wakeMode": "now",
    }

    read_params(BY_NAME["cron.add"].params, job, method="cron.add")
    read_params(BY_NAME["skills.status"].params, {"agentId": "main"}, method="skills.status")
    read_params(BY_NAME["update.run"].params, {"note": "x"}, method="update.run")
