"""``openclawmu logs``: the latest lines of the log, the tenant's own or the gateway's."""

from typing import Any

import click
import msgspec
import trio

from appliance.cli.client import json_option
from appliance.cli.gateway_client import GatewayConnection, act_for_option, talks_over_websocket
from appliance.cli.output import hint
from appliance.log import for_people

_EVERY = 1.0  # seconds between two looks
_MOST = 5000


@click.command(help="Show the latest log lines: a tenant's own, or with the admin key all.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is logged from now on.")
@click.option(
    "--lines", "-n", type=click.IntRange(1, _MOST), default=200, show_default=True, help="How many."
)
@json_option()
@act_for_option
@talks_over_websocket
async def logs(gateway: GatewayConnection, *, follow: bool, lines: int, as_json: bool) -> None:
    tail = await gateway.call("logs.tail", {"limit": lines})
    _print(tail["lines"], as_json=as_json)
    while follow:
        await trio.sleep(_EVERY)
        tail = await gateway.call("logs.tail", {"cursor": tail["cursor"], "limit": _MOST})
        if tail.get("reset"):
            hint("The log begins anew here.")
        elif tail.get("truncated"):
            hint("Some lines are missing here: they came too fast.")
        _print(tail["lines"], as_json=as_json)


def _print(lines: list[str], *, as_json: bool) -> None:
    for line in lines:
        click.echo(line if as_json else _readable(line))


def _readable(line: str) -> str:
    try:
        return for_people(line.encode()).decode().rstrip("\n")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return _printable(line)  # of another kind of gateway


def _printable(text: Any) -> str:
    return "".join(char if char.isprintable() else "�" for char in str(text))
