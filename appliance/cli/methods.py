"""``openclawmu methods``: every method of the gateway, from the registry and without a gateway."""

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from appliance.cli.client import json_option
from appliance.cli.output import print_json, print_table
from appliance.transports.rpc.method import Method

_REFERENCE = "#/components/schemas/{name}"


@click.command(help="List the methods of the gateway's WebSocket.")
@json_option()
def methods(*, as_json: bool) -> None:
    # It pulls in every service, which --help must not wait for.
    from appliance.transports.rpc.table import METHODS

    known = sorted(METHODS, key=lambda method: method.name)
    if as_json:
        print_json(described(known))
        return
    print_table(
        "Methods",
        ("method", "scope", "token needs", "who", "does"),
        [(m.name, m.scope, m.needs, m.who, _summary(m)) for m in known if not m.hidden],
    )


def described(known: Sequence[Method]) -> dict[str, Any]:
    """The methods with JSON Schemas of what they take and return."""
    kinds = [method.params for method in known]
    results = [method.result for method in known if method.result is not None]
    schemas, components = msgspec.json.schema_components(
        [*kinds, *results], ref_template=_REFERENCE, schema_hook=_anything
    )
    of_params = schemas[: len(kinds)]
    of_results = iter(schemas[len(kinds) :])
    return {
        "methods": [
            {
                "name": method.name,
                "summary": method.summary,
                "scope": method.scope,
                "needs": method.needs,
                "who": method.who.name.lower(),
                "available": method.is_available,
                "audited": method.audited or None,
                "params": params,
                "result": None if method.result is None else next(of_results),
            }
            for method, params in zip(known, of_params, strict=True)
        ],
        "components": {"schemas": components},
    }


def _anything(kind: type) -> dict[str, Any]:
    """A value of which nothing is promised has the schema that fits everything."""
    if kind is object:
        return {"description": "Anything."}  # an empty one counts as none
    raise NotImplementedError(f"no schema for {kind}")


def _summary(method: Method) -> str:
    return method.summary if method.is_available else f"{method.summary} (not in this release)"
