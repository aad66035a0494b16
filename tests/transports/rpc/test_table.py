"""The table of methods is complete, and says of each what a client must know."""

import importlib
import pkgutil
import re

import msgspec
import pytest

from appliance.model.operator_scopes import Role
from appliance.transports import rpc
from appliance.transports.rpc.method import Method, Params, Who
from appliance.transports.rpc.table import METHODS

BY_NAME = {method.name: method for method in METHODS}
NAME = re.compile(r"[a-z][A-Za-z]*(?:[.-][a-z][A-Za-z]*)*")


def test_no_name_is_given_twice_and_they_are_in_order() -> None:
    names = [method.name for method in METHODS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("module", [each.name for each in pkgutil.iter_modules(rpc.__path__)])
def test_every_method_that_a_module_declares_is_in_the_table(module: str) -> None:
    found = importlib.import_module(f"{rpc.__name__}.{module}")
    declared = [
        method
        for value in vars(found).values()
        for method in (value if isinstance(value, tuple) else (value,))
        if isinstance(method, Method)
    ]
    assert [method.name for method in declared if BY_NAME.get(method.name) is not method] == []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_is_described(method: Method) -> None:
    assert NAME.fullmatch(method.name)
    assert method.summary
    assert not method.summary.endswith(".")
    assert issubclass(method.params, Params)
    assert msgspec.json.schema(method.params, schema_hook=_anything)
    if method.is_available:
        assert method.params.__struct_config__.forbid_unknown_fields
    if method.result is not None:
        assert msgspec.json.schema(method.result, schema_hook=_anything)
    elif method.is_available:
        # Its shape is another's (a schema, a snapshot, what a node answers): the
        # summary says so, in more than two words.
        assert len(method.summary.split()) > 2


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_what_a_method_may_do_fits_together(method: Method) -> None:
    if method.who is Who.NODE:
        assert method.scope is None, f"{Role.NODE} connections have no operator scopes"
    else:
        assert method.scope is not None or method.who in {Who.MEMBER, Who.ANYONE}
    if method.replies_twice or method.outside:
        assert method.handler is not None
    if method.outside:
        assert method.audited


def _anything(_: type) -> dict[str, object]:
    return {"description": "Anything."}


def test_only_what_needs_no_right_has_no_scope() -> None:
    free = {each.name for each in METHODS if each.scope is None and each.who is not Who.NODE}
    assert free <= {"health", "voicewake.get", "system-presence", "last-heartbeat"}, free
