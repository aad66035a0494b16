"""``openclawmu call``: call one method of the gateway."""

import sys
from typing import Any

import click
import msgspec

from appliance.cli.gateway_client import GatewayConnection, act_for_option, talks_over_websocket
from appliance.cli.output import print_json


class JsonObject(click.ParamType[dict[str, Any]]):
    """``-`` reads it from stdin, where ps does not show it."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        text = sys.stdin.read() if value == "-" else value
        try:
            found = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError) as exc:
            self.fail(f"is not JSON: {exc}", param, ctx)
        if not isinstance(found, dict):
            self.fail('is not a JSON object such as {"limit": 10}', param, ctx)
        return found


@click.command(help="Call METHOD and print its answer as JSON; see `openclawmu methods`.")
@click.argument("method")
@click.option("--params", metavar="JSON", type=JsonObject(), help="An object; - reads stdin.")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@act_for_option
@talks_over_websocket
async def call(
    gateway: GatewayConnection, *, method: str, params: dict[str, Any] | None, seconds: float
) -> None:
    # An agent's run is first accepted and answered later, under the same id.
    answer = await gateway.call(method, params, timeout=seconds, final=method == "agent")
    print_json(answer)
