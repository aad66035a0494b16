"""``openclawmu serve``: run the gateway until it is told to stop."""

import os
from pathlib import Path

import click
import trio

from appliance.cli.exits import CommandFailed
from appliance.cli.gateway import Started, WhenStarted, run_gateway
from appliance.cli.output import hint, print_secret
from appliance.cli.parts import Setup
from appliance.cli.state import state_option
from appliance.model.errors import ApplianceError


@click.command(help="Run the gateway. A new state directory is initialised first.")
@click.option("--bind", metavar="HOST:PORT", help="Where to listen; overrides server.bind.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration, if it is not config.yaml of the state directory.",
)
@state_option
def serve(bind: str | None, config: Path | None, state_dir: Path) -> None:
    setup = Setup(state_dir=state_dir, config=config, bind=bind, environ=os.environ)
    run(setup, _announce)


def run(setup: Setup, when_started: WhenStarted) -> None:
    """Run a gateway to its end; a failure to start ends the command with one line."""
    try:
        trio.run(lambda: run_gateway(setup, when_started=when_started))
    except* ApplianceError as group:
        raise CommandFailed(_first(group).detail) from None
    except* OSError as group:
        raise CommandFailed(_cannot_listen(group)) from None


async def _announce(started: Started) -> None:
    made = started.new_state
    if made is not None and not made.was_given:
        print_secret("Admin key", made.admin_key.text)
    hint(f"Serving at {started.url}; GET {started.url}/docs lists the routes.")


def _first(group: BaseExceptionGroup[ApplianceError]) -> ApplianceError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _cannot_listen(group: BaseExceptionGroup[OSError]) -> str:
    error = group.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _cannot_listen(error)
    return f"the gateway could not start: {error.strerror or error}"
